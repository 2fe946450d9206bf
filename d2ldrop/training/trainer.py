"""The one training loop: it knows epochs, batches and metrics, and leaves every array to the model's backend."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from d2ldrop.backend import Array, Metrics, Numbers
from d2ldrop.data import BatchLoader
from d2ldrop.errors import ArgumentError, DivergedError
from d2ldrop.hyperparameters import call_of, number, positive
from d2ldrop.randomness import initial_weights, integer, of_epoch, sharing_masks, streams
from d2ldrop.training.batches import fetched, on_device, parts_of
from d2ldrop.training.callbacks import Callback
from d2ldrop.training.checkpoints import Checkpoint, restore
from d2ldrop.training.checks import (
    check_finite,
    check_labels,
    check_size,
    checked_callbacks,
    checked_data,
    checked_model,
    diverged,
)
from d2ldrop.training.evaluation import Evaluator
from d2ldrop.training.metrics import MetricLog
from d2ldrop.training.progress import shown

__all__ = ["Trainer"]


class Trainer(Evaluator):
    """Trains a model of any framework on a data module.

    Parameters
    ----------
    max_epochs
        The number of passes over the training samples.
    num_gpus
        1 to train on the first GPU, if the framework sees one; 0 for the CPU.
    gradient_clip_val
        If positive, gradients are scaled so that the norm of all of them together is at most this.
    seed
        Makes training repeatable: from it come the initial weights of a new model, the order of the samples, and the
        dropout masks, as three independent streams, the latter two begun anew in each epoch. Whatever callbacks draw,
        they stay as they are. A second `fit` begins with the first epoch's order and masks again: to go on with others
        after a first training, use another seed, or `fit(resume=)`. None: a seed is drawn from the framework's own
        global generator, which differs from process to process unless its user seeds it (`torch.manual_seed`,
        `tf.random.set_seed`, `mx.random.seed`; with NumPy and JAX, `d2l.seed`). The seed says the same in threads that
        train at once with NumPy and JAX, and with the chapter's models in TensorFlow; generators of PyTorch and MXNet
        belong to the process, so there it does not.
    shared_masks
        Draw the masks of `dropout_layer` on the host, so that each framework drops the same elements. It is slower, and
        meant for comparing frameworks.
    callbacks
        Objects whose hooks are called, see `Callback`.
    on_divergence
        What to do when the loss or a weight becomes nan or infinite: `"raise"` a `DivergedError`, or `"warn"`.
    progress
        False for silence. By default there is a bar in a terminal (where it cannot be drawn, as with TERM=dumb, a line
        per epoch), and the animated board in a notebook. True for lines also where no terminal is.

    Attributes
    ----------
    history : list of dict
        A row per epoch: `epoch`, `train_loss`, `train_acc`, `val_loss`, `val_acc` (means over samples; training's are
        taken while the weights change and dropout is on; a regression has no accuracy), `seconds` and
        `samples_per_second` (of training alone).
    model, optim, state
        The model, its optimiser, and all that training carries from step to step.
    epoch_log : MetricLog
        The values of each batch of the current or last epoch, with the number of samples in it.
    epoch, train_batch_idx, val_batch_idx, num_train_batches, num_val_batches
        How far training is. In the first epoch of a loader that does not know its length, this is infinite.
    train_dataloader, val_dataloader
        The loaders of the data module.

    Examples
    --------
    >>> from d2ldrop import numpy as d2l
    >>> model = d2l.SoftmaxRegression(num_outputs=10, lr=0.5)
    >>> trainer = d2l.Trainer(max_epochs=3, seed=0)
    >>> trainer.fit(model, d2l.Digits())
    >>> trainer.history[-1]["val_acc"] > 0.8
    True
    """

    state: Any

    def __init__(
        self,
        max_epochs: int,
        num_gpus: int = 0,
        gradient_clip_val: float = 0,
        *,
        seed: int | None = None,
        shared_masks: bool = False,
        callbacks: Sequence[Callback] = (),
        on_divergence: str = "raise",
        progress: bool | None = None,
    ):
        self.save_hyperparameters()
        self.max_epochs = positive("max_epochs", max_epochs)
        self.num_gpus = positive("num_gpus", num_gpus) if num_gpus != 0 else 0
        self.gradient_clip_val = number("gradient_clip_val", gradient_clip_val)
        self.callbacks = checked_callbacks(callbacks)
        if on_divergence not in ("raise", "warn"):
            raise ArgumentError(f'Expected on_divergence to be "raise" or "warn". Received: {on_divergence!r}')
        streams(seed)  # a wrong seed is an error now, not when training begins
        self.history: list[dict[str, float]] = []
        self.epoch_log = MetricLog()
        self.should_stop = False

    def __repr__(self) -> str:
        history = vars(self).get("history")
        row = history[-1] if history else {}
        numbers = [f"{key} {value:.4f}" for key, value in row.items() if key.startswith(("train_", "val_"))]
        return f"<{call_of(self)}: {', '.join([f'{len(history or ())} epochs trained', *numbers])}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: settings, history and the model, but no data, optimiser or loaders."""
        kept = ("model", "history", "epoch", "epoch_log", "should_stop", "hparams", "_streams", *self.hparams)
        return {name: value for name, value in vars(self).items() if name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "model" in state:
            self.model.trainer, self.backend = self, self.model.backend

    # Training

    def fit(self, model: Any, data: Any, key: Any = None, *, resume: str | os.PathLike[str] | None = None) -> None:
        """Train a model; its parameters are changed in place.

        Where training ends by an error or an interrupt in the middle of an epoch, the model gets the weights that it
        had after the last whole epoch, to which `history` belongs.

        Parameters
        ----------
        model
            A `Module` of one of the adapters. Parameters that it has are trained further; what it lacks is initialised.
        data
            A data module, of whatever framework, or a pair of arrays (X, y), see `ArrayData`; or a loader of batches
            (inputs, ..., y), or a pair of them, for training and for validation: PyTorch's `DataLoader`, a batched
            `tf.data.Dataset`, gluon's, in a model of any framework. In what order samples come is the loader's choice.
        key
            In place of a seed's stream, what seeds the framework's initialisers (JAX: a key).
        resume
            The folder of a `Checkpoint`. Training goes on where the newest one there was written, and ends with the
            weights and the history that it would have had without an interruption. Without any it begins anew.

        Raises
        ------
        ArgumentError
            If `model` is not a `Module`, or `data` not what can be trained on.
        DataError
            If there are labels for which the model has no output, or other ones than it predicts.
        DivergedError
            If the loss or a weight becomes nan or infinite.
        CheckpointError
            If a checkpoint to resume from is of another training.
        """
        self.prepare_data(checked_data(data, checked_model(model)))
        check_labels(model, self.data, (True, False))
        self.prepare_model(model, key)
        model.board.reset(xlim=(0, self.max_epochs), display=self.progress is not False)
        self.history, self.should_stop = [], False
        self.epoch = self.train_batch_idx = self.val_batch_idx = 0
        last = [callback for callback in self.callbacks if isinstance(callback, Checkpoint)]  # when others have decided
        self._listeners = [*(c for c in self.callbacks if c not in last), *shown(self.progress), *last]
        if resume is not None:
            restore(self, resume)
        self._kept = self.backend.get_weights(model)
        try:
            self._call("on_fit_start")
            for epoch in range(len(self.history), self.max_epochs if not self.should_stop else 0):
                self.epoch = epoch
                self._call("on_epoch_start")
                self._fit_one_epoch()
                self._call("on_epoch_end")
                if self.should_stop:
                    break
        finally:
            with ExitStack() as ending:  # if one fails, the others are called all the same
                ending.callback(model.board.finish)
                for listener in self._listeners:
                    ending.callback(listener.on_fit_end, self)

    def prepare_model(self, model: Any, key: Any = None) -> None:
        """Put model, optimiser and data on the device, and start the streams of randomness."""
        self.model, model.trainer = checked_model(model), self
        self.backend = model.backend
        self.device = self._choose_device()
        self._streams = streams(self.backend.entropy() if self.seed is None else self.seed)
        self._resident = self._is_resident()
        with self.backend.isolated():
            inputs = self._example_inputs(train=True)
            check_size(model, inputs[0].shape)
            self.backend.build(
                model,
                inputs,
                self.device,
                seed=key if key is not None else integer(self._streams.weights),
                draw=partial(initial_weights, stream=self._streams.weights) if model.host_init else None,
            )
            self.state = self.backend.init_state(model, integer(self._streams.dropout))
        self._masks = np.random.Generator(np.random.Philox(self._streams.dropout)) if self.shared_masks else None
        model.input_shape = tuple(inputs[0].shape[1:])
        if self._resident:
            placed = on_device(self.data, self.backend, self.device, (True, False))
            self._train_data, self._val_data = placed[:2], placed[2:]

    @property
    def optim(self) -> Any:
        """The optimiser, as `configure_optimizers` returned it."""
        return self.state.optim

    def fit_epoch(self) -> None:
        """Train on every sample once, then validate."""
        for numbers, sizes in self._train():
            self.train_batch_idx += len(sizes)
            self._report("train_", numbers, sizes)
        self._trained_at = time.perf_counter()
        numbers, sizes = self._validate()
        self.val_batch_idx += len(sizes)
        self._report("val_", numbers, sizes)

    def clip_gradients(self, grad_clip_val: float, model: Any) -> Any:
        """Scale gradients to a common norm of at most `grad_clip_val`, for a `fit_epoch` of your own.

        `model` is where the framework keeps its gradients: the model or, where gradients are values (TensorFlow, JAX),
        those values; the scaled ones are returned.
        """
        return self.backend.clip_gradients(grad_clip_val, model)

    @property
    def entropy(self) -> int:
        """From which number all randomness of this training comes: the seed, or one that was drawn in place of it."""
        entropy: int = self._streams.order.entropy  # type: ignore[assignment]
        return entropy

    @entropy.setter
    def entropy(self, value: int) -> None:
        self._streams = streams(value)

    def _train(self) -> Iterator[tuple[Numbers, list[int]]]:
        """Take a step for each batch; a few times per epoch, yield the metrics and sizes of the batches since then."""
        parts = int(min(self.model.plot_train_per_epoch, self.num_train_batches))
        clip = self.gradient_clip_val
        if self._resident:
            batch_size = self.data.batch_size
            order = self._order().permutation(len(self._train_data[-1]))
            for part, sizes in parts_of(order, batch_size, parts):
                self.state, numbers = self.backend.train_epoch(self.state, self._train_data, part, batch_size, clip)
                yield numbers, sizes
            return
        steps, sizes = [], []
        for batch in map(self.prepare_batch, self.train_dataloader):
            self.state, metrics = self.backend.train_step(self.state, batch, clip)
            steps.append(metrics)
            sizes.append(len(batch[-1]))
            if len(steps) >= self.num_train_batches / parts:
                yield fetched(steps, self.backend), sizes
                steps, sizes = [], []
        if steps:
            self._count_batches(len(steps))
            yield fetched(steps, self.backend), sizes

    def _count_batches(self, count: int) -> None:
        """Take the number of batches of the first epoch, where the loader did not know it."""
        if self.num_train_batches == math.inf:
            self.num_train_batches = max(count, 1)

    def _order(self) -> np.random.Generator:
        """Return the generator of the order of the samples in this epoch."""
        return np.random.default_rng(of_epoch(self._streams.order, self.epoch))

    def _reseed(self) -> None:
        """Begin the masks of this epoch, whatever was drawn before it."""
        stream = of_epoch(self._streams.dropout, self.epoch)
        self.backend.reseed(self.state, integer(stream))
        if self._masks is not None:
            self._masks.bit_generator.state = np.random.Philox(stream).state

    # Metrics

    @property
    def progressed(self) -> float:
        """How many epochs of training are done, fractions included."""
        return self.train_batch_idx / self.num_train_batches

    def log(self, key: str, value: Array, train: bool) -> None:
        """Keep a metric of the current batch, for a `fit_epoch` of your own; it is fetched with others, later."""
        steps, sizes = self._pending.setdefault((key, train), ([], []))
        steps.append({key: value})
        sizes.append(self._batch_len)
        per_epoch = self.model.plot_train_per_epoch if train else self.model.plot_valid_per_epoch
        if len(steps) >= (self.num_train_batches if train else self.num_val_batches) / per_epoch:
            self._fetch_pending(key, train)

    def _fetch_pending(self, key: str, train: bool) -> None:
        """Fetch what `log` has kept of a metric."""
        steps, sizes = self._pending.pop((key, train))
        self._report("train_" if train else "val_", fetched(steps, self.backend), sizes)

    def _report(self, prefix: str, numbers: Numbers, sizes: list[int]) -> None:
        """Log the metrics of some batches, and show their means."""
        self.epoch_log.add(prefix, numbers, sizes)
        x = self.progressed if prefix == "train_" else self.epoch + 1
        for label, mean in self.epoch_log.recent().items():
            self.model.board.draw(x, mean, label)  # nan as well, so that one sees where training ended
        check_finite(prefix, numbers, self.train_batch_idx - len(sizes) - self._first_batch, self)
        if self._listeners:
            with sharing_masks(None), self.backend.isolated():  # what they draw must not change the masks
                self._call("on_refresh")

    def _fit_one_epoch(self) -> None:
        """Run `fit_epoch`, which readers may override, add a row to the history, and keep a copy of the weights."""
        self.epoch_log, self._batch_len = MetricLog(), 1
        self._pending: dict[tuple[str, bool], tuple[list[Metrics], list[int]]] = {}  # what `log` has not yet fetched
        if isinstance(self.train_dataloader, BatchLoader):
            self.train_dataloader.rng = self._order()  # where batches come from the loader, the seed decides as well
        self._trained_at = 0.0  # when the epoch's training ended, and validation began
        self._first_batch = self.train_batch_idx
        started = time.perf_counter()
        try:
            quiet = np.errstate(over="ignore", invalid="ignore")  # what is not finite is looked for below
            with sharing_masks(self._masks), self.backend.isolated(), quiet:
                self._reseed()
                self.fit_epoch()
                self._count_batches(self.train_batch_idx - self._first_batch)
                for key, train in list(self._pending):
                    self._fetch_pending(key, train)
            self.backend.finish_epoch(self.model, self.state)
            weights = self.backend.get_weights(self.model)
            if wrong := next((name for name, value in weights.items() if not np.isfinite(value).all()), None):
                diverged(self, "", f"{wrong} is no longer finite")
            else:
                self._kept = weights
        except BaseException as error:
            if self.history or isinstance(error, DivergedError):
                self.backend.assign(self.model, self._kept)
            raise
        ended = time.perf_counter()
        samples = len(self._train_data[-1]) if self._resident else self.num_train_batches * self.data.batch_size
        self.history.append(
            {
                "epoch": self.epoch + 1,
                **self.epoch_log.means(),
                "seconds": ended - started,
                "samples_per_second": samples / ((self._trained_at or ended) - started),
            }
        )

    def _call(self, hook: str) -> None:
        """Call a hook of all callbacks."""
        for listener in self._listeners:
            getattr(listener, hook)(self)

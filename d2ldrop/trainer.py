"""The one training loop: it knows epochs, batches and numbers, and leaves every array to the model's backend."""

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from d2ldrop.backend import Array, Backend, Metrics
from d2ldrop.board import in_notebook
from d2ldrop.callbacks import Callback
from d2ldrop.data import ArrayData, BatchLoader, DataModule, Split, as_floats
from d2ldrop.errors import ArgumentError, UsageError
from d2ldrop.hyperparameters import HyperParameters
from d2ldrop.module import BaseModule
from d2ldrop.progress import ProgressBar, in_terminal
from d2ldrop.randomness import initial_weights, integer, sharing_masks, streams

EVAL_BATCH = 2000
"""Samples per batch where no gradients are taken: large, but no burden on memory."""


class Trainer(HyperParameters):
    """Trains a model of any framework on a data module.

    Parameters
    ----------
    max_epochs
        How many times to go through the training samples.
    num_gpus
        1 to train on the first GPU, if the framework sees one; 0 for the CPU.
    gradient_clip_val
        If positive, gradients are scaled so that the norm of all of them together is at most this.
    seed
        Makes training repeatable: from it come the initial weights of a new model, the order of the samples, and the
        dropout masks, as three independent streams. None for fresh randomness.
    shared_masks
        Draw the masks of `dropout_layer` on the host, so that each framework drops the same elements. It is slower, and
        meant for comparing frameworks.
    callbacks
        Objects whose hooks are called, see `Callback`.
    progress
        False for silence. By default there is a bar in a terminal, and the animated board in a notebook.

    Attributes
    ----------
    history : list of dict
        A row per epoch: `epoch`, `train_loss`, `train_acc`, `val_loss`, `val_acc` (means over samples; training's are
        taken while the weights change and dropout is on), `seconds` and `samples_per_second` (of training alone).
    model, optim, state
        What is being trained, the optimiser, and all that training carries from step to step.
    epoch_log : dict of str to (list of float, list of int)
        Of the current or last epoch: each number's values by batch, and how many samples each batch has.
    epoch, train_batch_idx, val_batch_idx, num_train_batches, num_val_batches
        Where training is.
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

    def __init__(
        self,
        max_epochs: int,
        num_gpus: int = 0,
        gradient_clip_val: float = 0,
        *,
        seed: int | None = None,
        shared_masks: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ):
        self.save_hyperparameters()
        for name, value in (("max_epochs", max_epochs), ("num_gpus", num_gpus)):
            if not isinstance(value, (int, np.integer)) or value < (name == "max_epochs"):
                raise ArgumentError(f"Expected {name} to be a whole number of epochs or GPUs. Received: {value!r}")
        if not gradient_clip_val >= 0:
            raise ArgumentError(f"Expected gradient_clip_val to be 0 or more. Received: {gradient_clip_val!r}")
        streams(seed)  # a wrong seed is told now, not when training begins
        self.history: list[dict[str, float]] = []
        self.epoch_log: dict[str, tuple[list[float], list[int]]] = {}
        self._trained_at: float | None = None  # when the epoch's training ended, and validation began
        self._pending: dict[tuple[str, bool], tuple[list[Array], list[int]]] = {}  # like epoch_log, not yet fetched
        self.should_stop = False

    # Training

    def fit(self, model: Any, data: DataModule, key: Any = None) -> None:
        """Train a model; its parameters are changed in place.

        Parameters
        ----------
        model
            A `Module` of one of the adapters. Parameters that it has are trained on; what it lacks is initialised.
        data
            A data module, of whatever framework.
        key
            In place of a seed's stream, what the framework's initialisers start from (JAX: a key).

        Raises
        ------
        ArgumentError
            If `model` is not a `Module`.
        """
        self.prepare_data(data)
        self.prepare_model(model, key)
        model.board.reset(xlim=(0, self.max_epochs), display=self.progress is not False)
        self.history, self.should_stop = [], False
        self.epoch = self.train_batch_idx = self.val_batch_idx = 0
        bar = in_terminal() if self.progress is None else self.progress and not in_notebook()
        self._listeners = [*self.callbacks, *([ProgressBar()] if bar else [])]
        try:
            self._call("on_fit_start")
            for epoch in range(self.max_epochs):
                self.epoch = epoch
                self._call("on_epoch_start")
                with sharing_masks(self._masks):
                    self._fit_one_epoch()
                self._call("on_epoch_end")
                if self.should_stop:
                    break
        finally:
            self._call("on_fit_end")
            model.board.finish()

    def prepare_data(self, data: DataModule) -> None:
        """Take the loaders of a data module."""
        self.data = data
        self.train_dataloader = data.train_dataloader()
        self.val_dataloader = data.val_dataloader()
        self.num_train_batches = len(self.train_dataloader)
        self.num_val_batches = len(self.val_dataloader) if self.val_dataloader is not None else 0

    def prepare_model(self, model: Any, key: Any = None) -> None:
        """Bring model, optimiser and data to the device, and start the streams of randomness."""
        if not isinstance(model, BaseModule):
            raise ArgumentError(f"Expected model to be a Module of one of the adapters. Received: {model!r}")
        self.model, model.trainer = model, self
        self.backend: Backend = model.backend
        self.device = self.backend.try_all_gpus()[0] if self.num_gpus else self.backend.cpu()
        if self.num_gpus and self.device == self.backend.cpu():
            warnings.warn(f"{self.backend.name} sees no GPU here, so training runs on the CPU", stacklevel=3)
        weights, order, dropout = streams(self.seed)
        if self.seed is not None or key is not None:
            self.backend.seed(integer(weights) if key is None else key)
        self._resident = self._is_resident()
        new = self.backend.build(model, self._example(), self.device)
        if new and model.host_init and self.seed is not None:
            self.backend.set_weights(model, initial_weights(self.backend.get_weights(model), weights))
        self._order = np.random.default_rng(order)
        if self.seed is not None and isinstance(self.train_dataloader, BatchLoader):
            self.train_dataloader.rng = self._order  # where batches come from the loader, the seed decides as well
        self._masks = np.random.Generator(np.random.Philox(dropout)) if self.shared_masks else None
        self.optim = model.configure_optimizers()
        self.state = self.backend.init_state(model, self.optim, integer(dropout) if self.seed is not None else None)
        if self._resident:
            self._train_data, self._val_data = (self._place(train) for train in (True, False))

    def prepare_batch(self, batch: Sequence[Array]) -> tuple[Array, ...]:
        """Bring a batch of a loader to the device."""
        self._batch_len = len(batch[-1])
        return tuple(self.backend.array(array, self.device) for array in batch)

    def fit_epoch(self) -> None:
        """Train on every sample once, then validate."""
        for metrics, sizes in self._train():
            self.train_batch_idx += len(sizes)
            self._report(metrics, sizes, train=True)
        self._trained_at = time.perf_counter()
        for metrics, sizes in self._validate():
            self.val_batch_idx += len(sizes)
            self._keep(metrics, sizes, train=False)
        self._draw(self._means("val_"), self.epoch + 1)

    def clip_gradients(self, grad_clip_val: float, model: Any) -> Any:
        """Scale gradients to a common norm of at most `grad_clip_val`, for a `fit_epoch` of your own.

        `model` is where the framework keeps its gradients: the model or, where gradients are values (TensorFlow, JAX),
        those values; the scaled ones are returned.
        """
        return self.backend.clip_gradients(grad_clip_val, model)

    # Using what was trained

    def evaluate(self, model: Any = None, data: DataModule | None = None) -> dict[str, float]:
        """Return the means of what `validation_step` reports, such as `val_loss` and `val_acc`, without dropout.

        Parameters
        ----------
        model, data
            By default those that the trainer has seen last; these become so.
        """
        if data is not None:
            self.prepare_data(data)
        if not hasattr(self, "data") or (model is None and not hasattr(self, "model")):
            raise UsageError("Expected a model and data to evaluate. Call fit first, or give both.")
        if data is not None or model is not None:
            self.prepare_model(self.model if model is None else model)
        self.epoch_log = {}
        for metrics, sizes in self._validate():
            self._keep(metrics, sizes, train=False)
        return self._means()

    def predict(self, X: Array) -> np.ndarray:
        """Return the outputs of the model for inputs (N, ...), without dropout.

        Parameters
        ----------
        X
            An array of the host or of the model's framework; uint8 stands for pixels, as in `ArrayData`.

        Returns
        -------
        numpy.ndarray
            float32, (N, num_outputs): the logits of a classifier.
        """
        if not hasattr(self, "model"):
            raise UsageError("Expected a model to predict with. Call fit or evaluate first.")
        parts = (self.backend.array(X[i : i + EVAL_BATCH], self.device) for i in range(0, len(X), EVAL_BATCH))
        return np.concatenate([self.backend.numpy(self.backend.predict(self.model, part)) for part in parts])

    # Batches

    def _is_resident(self) -> bool:
        """Tell whether the data can lie on the device as a whole, because nobody wrote a loader of their own."""
        loaders = ("get_dataloader", "train_dataloader", "val_dataloader")
        own = any(is_overridden(self.data, name) for name in loaders) or is_overridden(self, "prepare_batch")
        return isinstance(self.data, ArrayData) and not own

    def _place(self, train: bool) -> tuple[Array, ...]:
        """Bring the training or validation samples to the device."""
        X, y = self._split(train)
        X = X if self.data.stores_bytes else as_floats(X)
        return self.backend.array(X, self.device), self.backend.array(y, self.device)

    def _split(self, train: bool) -> Split:
        assert isinstance(self.data, ArrayData)
        return self.data.split(train, self.backend.channels_last)

    def _example(self) -> tuple[Array, ...]:
        """Return inputs for the model to take its shapes from."""
        if self._resident:
            return (self.backend.array(as_floats(self._split(train=True).X[:2]), self.device),)
        return self.prepare_batch(next(iter(self.train_dataloader)))[:-1]

    def _train(self) -> Iterator[tuple[Metrics, list[int]]]:
        """Take a step for each batch; hand out metrics and sizes of batches, a few times per epoch."""
        parts = min(self.model.plot_train_per_epoch, self.num_train_batches)
        if not self._resident:
            yield from self._train_on(self.train_dataloader, -(-self.num_train_batches // parts))
            return
        batch_size = self.data.batch_size
        order = self._order.permutation(len(self._train_data[-1]))
        # whole batches are dealt out, and a shorter one goes with the last part, unless each part is but one batch
        whole = max(len(order) // batch_size, parts)
        cuts = [*(whole * k // parts * batch_size for k in range(parts)), len(order)]
        for start, stop in pairwise(cuts):
            part = order[start:stop]
            self.state, metrics = self.backend.train_epoch(
                self.state, self._train_data, part, batch_size, self.gradient_clip_val
            )
            yield metrics, [min(batch_size, len(part) - i) for i in range(0, len(part), batch_size)]

    def _train_on(self, loader: Iterable[Sequence[Array]], together: int) -> Iterator[tuple[Metrics, list[int]]]:
        """Take a step for each batch of a loader; hand out metrics of so many batches together."""
        steps, sizes = [], []
        for batch in loader:
            batch = self.prepare_batch(batch)
            self.state, metrics = self.backend.train_step(self.state, batch, self.gradient_clip_val)
            steps.append(metrics)
            sizes.append(len(batch[-1]))
            if len(steps) == together:
                yield _together(steps), sizes
                steps, sizes = [], []
        if steps:
            yield _together(steps), sizes

    def _validate(self) -> Iterator[tuple[Metrics, list[int]]]:
        """Hand out metrics and sizes of batches of the samples to validate on."""
        batches: Iterable[tuple[Array, ...]]
        if self._resident:
            X, y = self._val_data
            batches = ((X[i : i + EVAL_BATCH], y[i : i + EVAL_BATCH]) for i in range(0, len(y), EVAL_BATCH))
        else:
            batches = (self.prepare_batch(batch) for batch in self.val_dataloader or ())
        steps, sizes = [], []
        for batch in batches:
            steps.append(self.backend.eval_step(self.state, batch))
            sizes.append(len(batch[-1]))
        if steps:
            yield _together(steps), sizes

    # Numbers

    @property
    def progressed(self) -> float:
        """How many epochs of training are done, fractions included."""
        return self.train_batch_idx / self.num_train_batches

    def log(self, key: str, value: Array, train: bool) -> None:
        """Keep a number of the current batch, for a `fit_epoch` of your own; it is fetched with others, later."""
        values, sizes = self._pending.setdefault((key, train), ([], []))
        values.append(value)
        sizes.append(self._batch_len)
        per_epoch = self.model.plot_train_per_epoch if train else self.model.plot_valid_per_epoch
        if len(values) >= (self.num_train_batches if train else self.num_val_batches) / per_epoch:
            del self._pending[key, train]
            self._report({key: values}, sizes, train)

    def _fit_one_epoch(self) -> None:
        """Run `fit_epoch`, whoever wrote it, and add a row to the history."""
        self.epoch_log, self._pending, self._batch_len, self._trained_at = {}, {}, 1, None
        started = time.perf_counter()
        self.fit_epoch()
        for (key, train), (values, sizes) in self._pending.items():
            self._report({key: values}, sizes, train)
        ended = time.perf_counter()
        samples = self.num_train_batches * self.data.batch_size
        if self._resident:
            samples = len(self._train_data[-1])
        self.history.append(
            {
                "epoch": self.epoch + 1,
                **self._means(),
                "seconds": ended - started,
                "samples_per_second": samples / ((self._trained_at or ended) - started),
            }
        )

    def _report(self, metrics: Metrics, sizes: Sequence[int], train: bool) -> None:
        """Fetch metrics of some batches, and show them."""
        self._draw(self._keep(metrics, sizes, train), self.progressed if train else self.epoch + 1)

    def _keep(self, metrics: Metrics, sizes: Sequence[int], train: bool) -> dict[str, float]:
        """Log metrics of some batches, and return their means: here training waits for the device."""
        means = {}
        for key in sorted(metrics, key=lambda key: (key != "loss", key)):  # a compiler may have changed the order
            values = metrics[key]
            listed = isinstance(values, (list, tuple))
            host = [float(self.backend.numpy(v)) for v in values] if listed else self.backend.numpy(values).tolist()
            label = f"{'train' if train else 'val'}_{key}"
            logged = self.epoch_log.setdefault(label, ([], []))
            logged[0].extend(host)
            logged[1].extend(sizes)
            means[label] = float(np.average(host, weights=sizes))
        return means

    def _means(self, prefix: str = "") -> dict[str, float]:
        """Return the means over samples of what is in the epoch's log."""
        return {
            label: float(np.average(values, weights=sizes))
            for label, (values, sizes) in self.epoch_log.items()
            if label.startswith(prefix)
        }

    def _draw(self, numbers: dict[str, float], x: float) -> None:
        for label, value in numbers.items():
            self.model.board.draw(x, value, label)
        self._call("on_refresh")

    def _call(self, hook: str) -> None:
        for listener in self._listeners:
            getattr(listener, hook)(self)


def is_overridden(thing: Any, method: str) -> bool:
    """Tell whether a method of a class of ours was written by the user, in a subclass or by `add_to_class`."""
    return not getattr(type(thing), method).__module__.startswith("d2ldrop.")


def _together(steps: Sequence[Metrics]) -> Metrics:
    """Turn a list of dictionaries of scalars into a dictionary of lists."""
    return {key: [metrics[key] for metrics in steps] for key in steps[0]}

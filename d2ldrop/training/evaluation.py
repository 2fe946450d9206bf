"""What a trainer does without training: it takes data and models, evaluates, and predicts."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend, Array, Numbers
from d2ldrop.data import ArrayData, DataModule, as_floats, batches_in
from d2ldrop.errors import DataError, UsageError
from d2ldrop.hyperparameters import HyperParameters, is_overridden
from d2ldrop.training.batches import EVAL_BATCH, SHARE, fetched, memory_size, on_device, size_on_device
from d2ldrop.training.checks import check_batch, check_labels, check_size, checked_data, checked_model, inputs_of
from d2ldrop.training.metrics import MetricLog

__all__ = ["Evaluator", "predicted"]


class Evaluator(HyperParameters):
    """The part of a trainer that leaves training as it is: data, devices, evaluation and prediction."""

    model: Any
    data: Any
    backend: AnyBackend
    device: Any
    _resident: bool  # whether the data are on the device as a whole
    _val_data: Any  # the validation samples, on the device

    def prepare_data(self, data: DataModule) -> None:
        """Take the loaders of a data module."""
        self.data = data
        self.train_dataloader = data.train_dataloader()
        self.val_dataloader = data.val_dataloader()
        self.num_train_batches = batches_in(self.train_dataloader)
        self.num_val_batches = batches_in(self.val_dataloader) if self.val_dataloader is not None else 0

    def prepare_batch(self, batch: Sequence[Array]) -> tuple[Array, ...]:
        """Put a batch of a loader on the device."""
        self._batch_len = len(batch[-1])
        return self.backend.place(batch, self.device)

    def evaluate(self, model: Any = None, data: Any = None) -> dict[str, float]:
        """Return the means of what `validation_step` reports, such as `val_loss` and `val_acc`, without dropout.

        It changes nothing of a training that goes on, and draws from no generator, except to initialise a model that
        has no parameters yet.

        Parameters
        ----------
        model, data
            By default those of the last `fit`. The validation samples of `data`, which may be all that `fit` takes,
            are used; of a single loader, all samples.

        Raises
        ------
        UsageError
            If one is missing, and nothing was fitted.
        DataError
            If there are no validation samples.
        """
        view = self._view(model, data)
        view._resident = view._is_resident()
        view.val_dataloader = None if view._resident else view.data.val_dataloader()
        in_arrays = isinstance(view.data, ArrayData)
        empty = len(view.data.split(False).y) == 0 if in_arrays else view.val_dataloader is None
        if empty:
            raise DataError("Expected samples to validate on. Received none: pass evaluate(data=) others.")
        check_labels(view.model, view.data, (False,))
        own = view.data is getattr(self, "data", None) and view.backend is self.backend
        if view._resident and not own:
            view._val_data = on_device(view.data, view.backend, view.device, (False,))
        inputs = view._example_inputs(train=False)
        check_size(view.model, inputs[0].shape)
        view.backend.build(view.model, inputs, view.device)
        log = MetricLog()
        log.add("val_", *view._validate())
        return log.means()

    def predict(self, X: Array, model: Any = None) -> np.ndarray:
        """Return the outputs of the model for inputs (N, ...), without dropout.

        Parameters
        ----------
        X
            What `ArrayData` takes: an array of the host or of any framework, whose integers are pixels. None, and a
            single sample without the first axis, are taken as well.
        model
            A model that has its parameters; by default that of the last `fit`.

        Returns
        -------
        numpy.ndarray
            float32, (N, num_outputs): the logits of a classifier, the numbers that a regressor predicts.

        Raises
        ------
        DataError
            If `X` does not hold what the model was trained on.
        UsageError
            If `model` is missing, and nothing was fitted.
        """
        view = self._view(model, getattr(self, "data", None), needs_data=False)
        X = inputs_of(X, view.model, view.data)
        view.backend.build(view.model, (X[:1],), view.device)  # it has its parameters, and may be on another device
        return predicted(view.model, X, view.device)

    def _view(self, model: Any, data: Any, needs_data: bool = True) -> "Evaluator":
        """Return a copy of this trainer for another model or other data, so that its own training stays as it is."""
        view = object.__new__(type(self))  # a copy would leave out what copies and pickles do
        vars(view).update(vars(self))
        view.model = getattr(self, "model", None) if model is None else model
        data = getattr(self, "data", None) if data is None else data
        if view.model is None or (needs_data and data is None):
            raise UsageError("Expected a model and data. Call fit first, or pass them.")
        view.backend = checked_model(view.model).backend
        view.data = None if data is None else checked_data(data, view.model, evaluating=True)
        view.device = view._choose_device()
        return view

    # Devices and batches

    def _choose_device(self) -> Any:
        """Return the first GPU if one is asked for and there is one, else the CPU."""
        if not self.num_gpus:
            return self.backend.cpu()
        if not self.backend.num_gpus():
            warnings.warn(f"{self.backend.name} sees no GPU here, so training runs on the CPU", stacklevel=4)
        return self.backend.try_gpu()

    def _is_resident(self) -> bool:
        """Return True if the data are to be on the device as a whole.

        They are not if there is a loader of the reader's own, if they are in a file, or if the copy would be large.
        """
        loaders = ("get_dataloader", "train_dataloader", "val_dataloader")
        own = any(is_overridden(self.data, name) for name in loaders) or is_overridden(self, "prepare_batch")
        if own or not isinstance(self.data, ArrayData) or self.data.on_disk:
            return False
        return size_on_device(self.data, self.backend) <= SHARE * memory_size()

    def _example_inputs(self, train: bool) -> tuple[Array, ...]:
        """Return inputs from which the model can take the shapes of its parameters."""
        if self._resident:
            return (as_floats(self.data.split(train, self.backend.channels_last).X[:2]),)
        batch = check_batch(self.model, next(iter(self.train_dataloader if train else self.val_dataloader), None))
        return self.prepare_batch(batch)[:-1]

    def _validate(self) -> tuple[Numbers, list[int]]:
        """Return the metrics and sizes of the batches of the validation samples."""
        if self._resident:
            if not (count := len(self._val_data[-1])):
                return {}, []
            numbers = self.backend.eval_epoch(self.model, self._val_data, EVAL_BATCH)
            return numbers, [min(EVAL_BATCH, count - i) for i in range(0, count, EVAL_BATCH)]
        steps, sizes = [], []
        for batch in map(self.prepare_batch, () if self.val_dataloader is None else self.val_dataloader):
            steps.append(self.backend.eval_step(self.model, batch))
            sizes.append(len(batch[-1]))
        return fetched(steps, self.backend), sizes


def predicted(model: Any, X: np.ndarray, device: Any) -> np.ndarray:
    """Return the outputs of a model for inputs as `inputs_of` returns them, without dropout: float32 (N, ...)."""
    backend: AnyBackend = model.backend
    whole = X if len(X) else np.zeros((1, *X.shape[1:]), X.dtype)  # one sample tells how many outputs there are
    parts = [backend.array(whole[i : i + EVAL_BATCH], device) for i in range(0, len(whole), EVAL_BATCH)]
    outputs = [backend.numpy(backend.predict(model, part)) for part in parts]
    return np.concatenate(outputs)[: len(X)].astype(np.float32, copy=False)

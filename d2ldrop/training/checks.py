"""What a trainer is given, checked before the first step; each mistake is an error that says what to write."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend, Array, Numbers
from d2ldrop.data import ArrayData, DataModule, loader_data, on_host, samples
from d2ldrop.errors import ArgumentError, DataError, DivergedError, UsageError
from d2ldrop.hyperparameters import is_overridden
from d2ldrop.training.callbacks import Callback, LRSchedule
from d2ldrop.training.module import BaseClassifier, BaseModule

__all__ = [
    "check_batch",
    "check_finite",
    "check_labels",
    "check_size",
    "checked_callbacks",
    "checked_data",
    "checked_model",
    "diverged",
    "gpus",
    "inputs_of",
]


def checked_model(model: Any) -> BaseModule:
    """Return the model, if it is one."""
    if isinstance(model, type) and issubclass(model, BaseModule):
        raise ArgumentError(f"Expected a model. Received the class {model.__name__}: write {model.__name__}(...).")
    if not isinstance(model, BaseModule):
        raise ArgumentError(f"Expected model to be a Module of one of the adapters. Received: {model!r}")
    return model


def gpus(backend: AnyBackend, device: Any) -> int:
    """Return on how many GPUs to train, 0 or 1, for the device `"auto"`, `"cpu"` or `"gpu"`.

    Raises
    ------
    ArgumentError
        If it is none of these.
    UsageError
        If there is no GPU for `"gpu"`.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise ArgumentError(f'Expected device to be "auto", "cpu" or "gpu". Received: {device!r}')
    count = backend.num_gpus() if device != "cpu" else 0
    if device == "gpu" and not count:
        raise UsageError(f"Expected a GPU that {backend.name} can use. Received none: use the device cpu")
    return min(count, 1)


def checked_data(data: Any, model: BaseModule, evaluating: bool = False) -> DataModule:
    """Return the data module, or one that is made for a model, of arrays (X, y), of a loader, or of a pair of them."""
    if isinstance(data, DataModule):
        return data
    if (loaded := loader_data(data, model.backend_name, evaluating)) is not None:
        return loaded
    if isinstance(data, (tuple, list)) and len(data) == 2:
        X, y = data
        return ArrayData(X, y, regression=model.is_regression or None)
    if isinstance(data, type) and issubclass(data, DataModule):
        raise ArgumentError(f"Expected data. Received the class {data.__name__}: write {data.__name__}(...).")
    raise ArgumentError(
        "Expected data to be a DataModule, arrays (X, y), a loader of batches such as PyTorch's DataLoader, or two "
        f"loaders (training, validation). Received: {type(data).__name__}. For anything else, subclass DataModule, and "
        "let get_dataloader(train) return loaders."
    )


def checked_callbacks(callbacks: Any) -> list[Callback]:
    """Return the callbacks as a list."""
    if not isinstance(callbacks, Iterable):
        raise ArgumentError(f"Expected callbacks to be a list of callbacks. Received: {callbacks!r}")
    for callback in (listed := list(callbacks)):
        if isinstance(callback, type):
            raise ArgumentError(
                f"Expected callbacks to be instances. Received the class {callback.__name__}: "
                f"write {callback.__name__}()."
            )
        if not isinstance(callback, Callback):
            raise ArgumentError(f"Expected callbacks to be instances of Callback. Received: {callback!r}")
    return listed


def check_labels(model: Any, data: DataModule, parts: Iterable[bool]) -> None:
    """Check that the training (True) and validation (False) labels are what a model predicts.

    Raises
    ------
    DataError
        If a classifier is given targets of a regression, or has no output for a class; if a regressor is given classes,
        or another number of targets than it has outputs.
    """
    if isinstance(data, ArrayData):
        for train in parts:
            _check_outputs(model, data.split(train).y)


def _check_outputs(model: Any, y: np.ndarray) -> None:
    """Check labels on the host, see `check_labels`; what a model of the reader's own makes of them is not known."""
    outputs = getattr(model, "num_outputs", None)
    targets, name = y.dtype.kind == "f", type(model).__name__
    if model.is_regression:
        if not targets:
            raise DataError(
                f"Expected floating-point targets for the regressor {name}. Received classes, {y.dtype}: "
                "pass floats, or ArrayData(X, y, regression=True), or use a classifier."
            )
        count = y.shape[1] if y.ndim > 1 else 1
        if isinstance(outputs, int) and y.ndim < 3 and count != outputs:
            raise DataError(
                f"Expected {outputs} targets per sample, the number of the model's outputs. Received {count}: "
                f"make the model with num_outputs={count}."
            )
    elif isinstance(model, BaseClassifier):
        if targets and not is_overridden(model, "loss"):
            raise DataError(
                f"Expected classes for the classifier {name}, whole numbers from 0 on. Received targets of a "
                f"regression, {y.dtype} {y.shape}: use a regressor such as DropoutMLPRegressor, or pass classes, as "
                "y.astype(int), or y.argmax(axis=1) if they are one-hot."
            )
        if isinstance(outputs, int) and y.dtype.kind in "iu" and y.size and y.max() >= outputs:
            raise DataError(
                f"Expected labels below {outputs}, the number of the model's outputs. Received labels up to {y.max()}: "
                f"make the model with num_outputs={int(y.max()) + 1}."
            )


def inputs_of(given: Array, model: BaseModule, data: Any) -> np.ndarray:
    """Return inputs to predict from, on the host, in the shape that the model was trained on; one sample is taken, too.

    Raises
    ------
    DataError
        If they do not hold real numbers, or have another number of elements than one of the chapter's models needs.
    """
    X: np.ndarray = on_host(given)
    if isinstance(data, ArrayData) and data.split(True).X.dtype != np.uint8 and X.dtype.kind in "iu":
        X = X if X.dtype == np.uint8 else X.astype(np.float32)  # in training they were no pixels, either
    X, expected = samples(X), model.input_shape
    if expected is None:
        return X
    if X.shape == expected:
        X = X[np.newaxis]
    check_size(model, X.shape)
    return X.reshape(len(X), *expected) if math.prod(X.shape[1:]) == math.prod(expected) else X


def check_size(model: BaseModule, shape: tuple[int, ...]) -> None:
    """Raise a DataError if inputs of a shape (N, ...) are not of the size that a model of the chapter was made for."""
    expected = model.input_shape
    if model.host_init and expected is not None and math.prod(shape[1:]) != math.prod(expected):
        raise DataError(f"Expected X to hold samples {expected}, as in training. Received: {shape}")


def check_batch(model: Any, batch: Any) -> Any:
    """Return the first batch of a loader of the reader's own, if it can be trained on.

    Raises
    ------
    DataError
        If there is none, if something in it is nan or infinite, or if its labels are not what the model predicts.
    """
    if batch is None:
        raise DataError("Expected at least one batch from the data's loaders. Received none.")
    *inputs, labels = map(on_host, batch)
    if any(X.dtype.kind == "f" and not np.isfinite(X).all() for X in inputs):
        raise DataError("Expected inputs that are finite. Received nan or inf in the first batch.")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError("Expected labels that are finite. Received nan or inf in the first batch.")
    _check_outputs(model, labels)
    return batch


def check_finite(prefix: str, numbers: Numbers, done: int, trainer: Any) -> None:
    """Raise, or warn, if a loss among the numbers of some batches is nan or infinite; `done` batches came before.

    Raises
    ------
    DivergedError
        If it is, and the trainer does not only warn.
    """
    losses = np.asarray(numbers.get("loss", []), float)
    if not np.isfinite(losses).all():
        k = int(np.flatnonzero(~np.isfinite(losses))[0])
        step = f", step {done + k + 1}" if prefix == "train_" else ""
        diverged(trainer, step, f"{prefix}loss is {losses[k]}")


def diverged(trainer: Any, step: str, what: str) -> None:
    """Raise an error, or warn, that training has diverged."""
    rates = [callback.lr for callback in trainer.callbacks if isinstance(callback, LRSchedule)]
    rate = rates[-1] if rates else getattr(trainer.model, "lr", None)
    text = (
        f"Training diverged in epoch {trainer.epoch + 1}{step}: {what}"
        + (f", with the learning rate {rate:g}" if isinstance(rate, (int, float)) else "")
        + ". Try a smaller learning rate, gradient_clip_val=1, or inputs of a smaller scale."
    )
    if trainer.on_divergence == "raise":
        raise DivergedError(f"{text} The model has the weights from before that epoch.")
    warnings.warn(text, stacklevel=2)

"""What a trainer is given, checked before the first step; each mistake is an error that says what to write."""

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from d2ldrop.backend import Array, Numbers
from d2ldrop.data import ArrayData, DataModule, on_host, samples
from d2ldrop.errors import ArgumentError, DataError, DivergedError
from d2ldrop.training.callbacks import Callback, LRSchedule
from d2ldrop.training.module import BaseClassifier, BaseModule


def checked_model(model: Any) -> BaseModule:
    """Return the model, if it is one."""
    if isinstance(model, type) and issubclass(model, BaseModule):
        raise ArgumentError(f"Expected a model. Received the class {model.__name__}: write {model.__name__}(...).")
    if not isinstance(model, BaseModule):
        raise ArgumentError(f"Expected model to be a Module of one of the adapters. Received: {model!r}")
    return model


def checked_data(data: Any) -> DataModule:
    """Return the data module, or one that is made of a pair of arrays (X, y)."""
    if isinstance(data, DataModule):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return ArrayData(*data)
    if isinstance(data, type) and issubclass(data, DataModule):
        raise ArgumentError(f"Expected data. Received the class {data.__name__}: write {data.__name__}(...).")
    raise ArgumentError(
        f"Expected data to be a DataModule, or arrays (X, y). Received: {type(data).__name__}. "
        "For loaders of your own, subclass DataModule, and let get_dataloader(train) return them."
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
    """Check that a classifier has an output for each class in the training (True) and validation (False) labels.

    Raises
    ------
    DataError
        If it has not.
    """
    outputs = getattr(model, "num_outputs", None)
    if not isinstance(model, BaseClassifier) or not isinstance(data, ArrayData) or not isinstance(outputs, int):
        return
    largest = max(int(data.split(train).y.max()) for train in parts)
    if largest >= outputs:
        raise DataError(_too_few(outputs, largest))


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
    if math.prod(X.shape[1:]) == math.prod(expected):
        return X.reshape(len(X), *expected)
    if model.host_init:
        raise DataError(f"Expected X to hold samples {expected}, as in training. Received: {X.shape}")
    return X


def check_batch(model: Any, batch: Any) -> Any:
    """Return the first batch of a loader of the reader's own, if it can be trained on.

    Raises
    ------
    DataError
        If there is none, if something in it is nan or infinite, or if a classifier has no output for a label.
    """
    if batch is None:
        raise DataError("Expected at least one batch from the data's loaders. Received none.")
    *inputs, labels = map(on_host, batch)
    if any(X.dtype.kind == "f" and not np.isfinite(X).all() for X in inputs):
        raise DataError("Expected inputs that are finite. Received nan or inf in the first batch.")
    outputs = getattr(model, "num_outputs", None)
    integers = labels.dtype.kind in "iu" and labels.size
    if isinstance(model, BaseClassifier) and isinstance(outputs, int) and integers and labels.max() >= outputs:
        raise DataError(_too_few(outputs, int(labels.max())))
    return batch


def _too_few(outputs: int, largest: int) -> str:
    return (
        f"Expected labels below {outputs}, the number of the model's outputs. Received labels up to {largest}: "
        f"make the model with num_outputs={largest + 1}."
    )


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

"""Loaders of the frameworks as data: PyTorch's `DataLoader`, `tf.data.Dataset`, gluon's, or one of your own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend
from d2ldrop.data.modules import DataModule, as_labels, on_host
from d2ldrop.errors import ArgumentError, DataError
from d2ldrop.registry import get_backend

__all__ = ["HostBatches", "LoaderData", "batches_in", "is_loader", "loader_data"]


def is_loader(thing: Any) -> bool:
    """Return True for what yields batches, and is no array, table, or collection of Python's."""
    plain = (type, str, bytes, Sequence, Mapping)
    return hasattr(thing, "__iter__") and not isinstance(thing, plain) and not hasattr(thing, "shape")


def batches_in(loader: Any) -> float:
    """Return the number of batches of a loader; infinity if it is not known before they were all there.

    Raises
    ------
    DataError
        If it says that there is no end.
    """
    cardinality = getattr(loader, "cardinality", None)  # of tf.data, where -1 stands for infinitely many
    if callable(cardinality) and int(cardinality()) == -1:
        raise DataError("Expected a data set that ends. Received one without end: leave repeat() out, or add take(n).")
    try:
        return len(loader)
    except TypeError:
        return math.inf


class HostBatches:
    """The batches of a loader, as arrays on the host: so it does not matter from which framework it is.

    Floating-point numbers become float32, and labels that are integers get the type that the model's framework takes.
    """

    def __init__(self, loader: Any, backend: AnyBackend):
        self.loader, self.backend = loader, backend
        self.largest = 0  # the number of samples in the largest batch so far

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        for batch in self.loader:
            if not isinstance(batch, (tuple, list)) or len(batch) < 2:
                kind = f"{len(batch)} of them" if isinstance(batch, (tuple, list)) else type(batch).__name__
                raise DataError(f"Expected a loader of batches, each a tuple (X, y). Received: {kind}")
            *inputs, labels = map(on_host, batch)
            if labels.ndim == 0:
                raise DataError(
                    "Expected batches of samples. Received single ones: batch them, as by dataset.batch(32)."
                )
            if any(len(X) != len(labels) for X in inputs):
                shapes = ", ".join(str(X.shape) for X in (*inputs, labels))
                raise DataError(f"Expected as many labels as samples in a batch. Received: {shapes}")
            self.largest = max(self.largest, len(labels))
            floats = (X.astype(np.float32, copy=False) if X.dtype.kind == "f" else X for X in inputs)
            yield (*floats, as_labels(labels, self.backend))


class LoaderData(DataModule):
    """Data that loaders yield, batch by batch: (X, y), or (inputs, ..., y), in arrays of any framework.

    The trainer makes it of what `fit` and `evaluate` are given. The order of the samples is the loader's own.

    Parameters
    ----------
    train, val
        The loaders; without `val` nothing is validated.
    backend_name
        The backend of the model that is trained.

    Raises
    ------
    DataError
        If a loader has no end. One that does not know its length is counted in the first epoch.
    """

    def __init__(self, train: Any, val: Any = None, backend_name: str = "numpy"):
        self.backend_name = backend_name
        backend, self._batches = get_backend(backend_name), {}
        for part, loader in ((True, train), (False, val)):
            if loader is not None:
                batches_in(loader)  # an error if it has no end
                self._batches[part] = HostBatches(loader, backend)

    def get_dataloader(self, train: bool) -> HostBatches | None:
        """Return the batches of a loader, or None where there is none."""
        return self._batches.get(train)

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        """The number of samples in the largest batch so far."""
        return max(batches.largest for batches in self._batches.values())


def loader_data(data: Any, backend_name: str, evaluating: bool) -> LoaderData | None:
    """Return loaders, if `data` is one or a pair of them, as data for a model; None if it is something else.

    Parameters
    ----------
    data
        A loader, or (training loader, validation loader).
    backend_name
        The model's backend.
    evaluating
        Whether a single loader is to be validated on, rather than trained on.

    Raises
    ------
    ArgumentError
        If it is an iterator, which could be gone through but once.
    """
    pair = isinstance(data, (tuple, list)) and len(data) == 2
    loaders = [*data] if pair else [data]
    if any(isinstance(loader, Iterator) for loader in loaders):
        raise ArgumentError(
            "Expected data that can be gone through again in each epoch. Received an iterator: pass what it is made of."
        )
    if not all(map(is_loader, loaders)):
        return None
    train, val = loaders if pair else (data, data if evaluating else None)
    return LoaderData(train, val, backend_name)

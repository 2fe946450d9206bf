"""How the samples of an epoch reach the model: as indices of data on the device, or batch by batch from a loader."""

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from d2ldrop.backend import AnyBackend, Array, Metrics, Numbers
from d2ldrop.data import ArrayData, as_floats, as_labels

__all__ = ["EVAL_BATCH", "SHARE", "fetched", "memory_size", "on_device", "parts_of", "size_on_device"]

EVAL_BATCH = 2000
"""Samples per batch where no gradients are taken: many, but not so many that memory matters."""


SHARE = 0.25
"""The part of the machine's memory that a copy of the data on the device may take; larger data go there in batches."""


def memory_size() -> float:
    """Return the bytes of memory of this machine; infinity where the system does not tell."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else -1  # not on Windows
    return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else float("inf")


def size_on_device(data: ArrayData, backend: AnyBackend) -> int:
    """Return how many bytes the samples take on the device."""
    splits = [data.split(train).X for train in (True, False)]
    return sum(X.nbytes * (4 if X.dtype == np.uint8 and not backend.stores_bytes else 1) for X in splits)


def on_device(data: ArrayData, backend: AnyBackend, device: object, parts: Sequence[bool]) -> tuple[Array, ...]:
    """Return `X, y` of the training (True) or validation (False) samples on the device, one pair after the other."""
    arrays = []
    for train in parts:
        X, y = data.split(train, backend.channels_last)
        arrays += [X if backend.stores_bytes else as_floats(X), as_labels(y, backend)]
    return backend.place(arrays, device)


def parts_of(order: np.ndarray, batch_size: int, parts: int) -> list[tuple[np.ndarray, list[int]]]:
    """Divide an epoch's order of the samples into some parts of whole batches, with the sizes of the batches of each.

    A last batch that is shorter goes with the last part, unless each part is but one batch.

    Examples
    --------
    >>> [sizes for _, sizes in parts_of(np.arange(10), batch_size=3, parts=2)]
    [[3], [3, 3, 1]]
    """
    whole = max(len(order) // batch_size, parts)
    cuts = [*(whole * k // parts * batch_size for k in range(parts)), len(order)]
    divided = [order[start:stop] for start, stop in pairwise(cuts)]
    return [(part, [min(batch_size, len(part) - i) for i in range(0, len(part), batch_size)]) for part in divided]


def fetched(steps: Iterable[Metrics], backend: AnyBackend) -> Numbers:
    """Return the metrics of several steps as lists of numbers; this waits for the device."""
    numbers: Numbers = {}
    for metrics in steps:
        for key, value in metrics.items():
            numbers.setdefault(key, []).append(float(backend.numpy(value).item()))  # a loss may be of shape (1,)
    return numbers

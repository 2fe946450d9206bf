"""Samples that stay in a file: a memory-mapped array, of which each batch is read when it is asked for."""

from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["CHUNK", "OnDisk", "chosen", "chunks", "stays_on_disk"]

CHUNK = 2**24
"""How many bytes are looked at together where all samples are looked at."""


class OnDisk:
    """Samples of a memory-mapped array, in the order of the file or in another one.

    Indices, slices and arrays of indices give samples in memory: pixels as uint8, other numbers as float32.

    Parameters
    ----------
    array
        The memory-mapped array (N, ...), of uint8 or floating-point numbers.
    rows
        Which of its samples, in which order; None for all, in the order of the file.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray | None = None):
        self._array, self._rows = array, rows
        self.shape = (len(array) if rows is None else len(rows), *array.shape[1:])
        self.dtype = array.dtype if array.dtype == np.uint8 else np.dtype(np.float32)
        self.ndim = array.ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> np.ndarray:
        found = np.array(self._array[index if self._rows is None else self._rows[index]])
        with np.errstate(over="ignore"):  # what is too large becomes inf
            return found.astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def take(self, rows: np.ndarray) -> "OnDisk":
        """Return some of the samples, which stay in the file."""
        return OnDisk(self._array, rows if self._rows is None else self._rows[rows])


def stays_on_disk(X: Any) -> bool:
    """Return True for a memory-mapped array that need not be converted as a whole before it is used."""
    return isinstance(X, np.memmap) and X.ndim > 0 and (X.dtype == np.uint8 or X.dtype.kind == "f")


def chosen(X: Any, rows: np.ndarray) -> Any:
    """Return some of the samples: in memory, or in the file if they are there."""
    return X.take(rows) if isinstance(X, OnDisk) else X[rows]


def chunks(X: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Yield samples in memory, a few megabytes at a time, each time with the number of the first."""
    step = max(1, CHUNK // max(1, X[:1].nbytes))
    for start in range(0, len(X), step):
        yield start, np.ascontiguousarray(X[start : start + step])

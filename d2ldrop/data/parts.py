"""The training or the validation samples of a data set, one by one or as a whole, as the book's readers know them."""

from typing import Any, NamedTuple

import numpy as np

from d2ldrop.backend import AnyBackend, Array

__all__ = ["Pair", "Samples", "part"]


class Pair(NamedTuple):
    """All samples and their labels: what TensorFlow and JAX, whose data sets are pairs of arrays, have."""

    data: np.ndarray  # (N, ...): uint8 for pixels
    targets: np.ndarray  # (N,), or (N, k) in a regression


class Samples:
    """Samples and their labels, one by one: what data sets are in the other frameworks.

    Parameters
    ----------
    X, y
        Samples (N, ...) as they are stored, and labels (N,) or targets (N, k).
    inputs
        The samples as a model takes them, (N, ...); pixels still as uint8.
    backend
        Whose arrays samples are.

    Examples
    --------
    >>> from d2ldrop import numpy as d2l
    >>> train = d2l.Digits().train
    >>> len(train), train.data.shape, train.targets.shape
    (1437, (1437, 8, 8), (1437,))
    >>> image, label = train[0]
    >>> image.shape
    (1, 8, 8)
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, inputs: np.ndarray, backend: AnyBackend):
        self._X, self._y, self._inputs, self._backend = X, y, inputs, backend

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, index: Any) -> tuple[Array, Any]:
        X, y = self._inputs[index], self._y[index]
        floats = np.divide(X, 255, dtype=np.float32) if X.dtype == np.uint8 else X
        return self._backend.array(floats), y.item() if y.ndim == 0 else self._backend.array(y)

    @property
    def data(self) -> Array:
        """All samples as they are stored, pixels as uint8: a copy on the framework's default device."""
        return self._backend.array(np.asarray(self._X))

    @property
    def targets(self) -> Array:
        """All labels: a copy on the framework's default device."""
        return self._backend.array(self._y)


def part(X: np.ndarray, y: np.ndarray, inputs: np.ndarray, backend: AnyBackend) -> Pair | Samples:
    """Return samples in the form that the framework's readers know."""
    # Channels are last in TensorFlow and JAX, whose readers know a data set as a pair of arrays.
    return Pair(np.asarray(X), y) if backend.channels_last else Samples(X, y, inputs, backend)

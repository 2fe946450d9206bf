"""Samples of a linear model with noise, whose weights are known: what a regression is to find again."""

from contextlib import suppress
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.data.modules import ArrayData, Split, on_host
from d2ldrop.errors import ArgumentError
from d2ldrop.hyperparameters import number, positive, whole

__all__ = ["SyntheticRegressionData", "linear_samples"]


def linear_samples(w: Any, b: Any, noise: float, count: int, backend: AnyBackend) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs X (N, k), standard normal, and y = X w + b plus normal noise, (N, 1), float32 on the host.

    Parameters
    ----------
    w, b
        The k weights, and the bias: numbers, or arrays of any framework.
    noise
        The standard deviation of the noise.
    count
        N.
    backend
        Whose global generator the numbers come from.

    Raises
    ------
    ArgumentError
        If weights or bias are not finite numbers, or there is more than one bias.
    """

    def standard_normal(*shape: int) -> np.ndarray:
        return backend.numpy(backend.normal_like(backend.array(np.zeros(shape, np.float32))))

    weights = _real("w", w).reshape(-1, 1)
    bias = _real("b", b)
    if bias.size != 1:
        raise ArgumentError(f"Expected b to be a single number. Received: {bias.size} of them")
    X = standard_normal(count, len(weights))
    y = X @ weights + bias.reshape(()) + np.float32(noise) * standard_normal(count, 1)
    return X, y


def _real(name: str, values: Any) -> np.ndarray:
    """Return finite numbers, one or more, as float32."""
    with suppress(ValueError, TypeError), np.errstate(over="ignore"):  # text, and lists of different lengths
        found = on_host(values)
        if found.dtype.kind in "fiu" and found.size and np.isfinite(floats := found.astype(np.float32)).all():
            return floats
    raise ArgumentError(f"Expected {name} to be finite real numbers, at least one. Received: {values!r}")


class SyntheticRegressionData(ArrayData):
    """Samples of y = X w + b + noise, drawn when the data are made, from the framework's global generator.

    Parameters
    ----------
    w, b
        The true weights, of any shape with k elements, and the true bias: numbers, or arrays of any framework.
    noise
        The standard deviation of the noise.
    num_train, num_val
        How many samples to train, and to validate on.
    batch_size
        The number of samples in a batch.

    Attributes
    ----------
    X, y : array
        All samples, as the framework's arrays: (num_train + num_val, k) and (num_train + num_val, 1), float32. The
        first `num_train` are those to train on.

    Raises
    ------
    ArgumentError
        If a number is out of its range, or weights or bias are no finite numbers.

    Examples
    --------
    >>> data = SyntheticRegressionData(w=[2, -3.4], b=4.2, num_train=8, num_val=4, batch_size=4)
    >>> [tuple(y.shape) for X, y in data.train_dataloader()]
    [(4, 1), (4, 1)]
    """

    def __init__(
        self,
        w: Any,
        b: Any,
        noise: float = 0.01,
        num_train: int = 1000,
        num_val: int = 1000,
        batch_size: int = 32,
    ):
        self.save_hyperparameters()
        cut = positive("num_train", num_train)
        count = cut + whole("num_val", num_val)
        X, y = linear_samples(w, b, number("noise", noise), count, self.backend)
        self.X: Array = self.backend.array(X)
        self.y: Array = self.backend.array(y)
        self._fill(Split(X[:cut], y[:cut]), Split(X[cut:], y[cut:]), batch_size)

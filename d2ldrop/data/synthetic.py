"""Samples of a linear model with noise, whose weights are known: what a regression is to find again."""

from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.data.modules import ArrayData, Split, on_host
from d2ldrop.hyperparameters import number, positive

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
    """

    def standard_normal(*shape: int) -> np.ndarray:
        return backend.numpy(backend.normal_like(backend.array(np.zeros(shape, np.float32))))

    weights = on_host(w).reshape(-1, 1).astype(np.float32)
    X = standard_normal(count, len(weights))
    y = X @ weights + on_host(b).astype(np.float32).reshape(()) + np.float32(noise) * standard_normal(count, 1)
    return X, y


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
        If a number is out of its range.

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
        count = cut + int(number("num_val", num_val))
        X, y = linear_samples(w, b, number("noise", noise), count, self.backend)
        self.X: Array = self.backend.array(X)
        self.y: Array = self.backend.array(y)
        self._fill(Split(X[:cut], y[:cut]), Split(X[cut:], y[cut:]), batch_size)

"""Linear regression in the function edition: its samples, its batches, the model and the loss, for all frameworks."""

from collections.abc import Sequence

from d2ldrop.backend import Array
from d2ldrop.data import BatchLoader, linear_samples
from d2ldrop.errors import DataError
from d2ldrop.hyperparameters import whole
from d2ldrop.registry import backend as adapter
from d2ldrop.registry import backend_of

__all__ = ["linreg", "load_array", "squared_loss", "synthetic_data"]


def synthetic_data(w: Array, b: float, num_examples: int) -> tuple[Array, Array]:
    """Return samples of a linear model: X (N, k), standard normal, and y = X w + b plus noise of 0.01, (N, 1).

    Parameters
    ----------
    w, b
        The k weights, an array of the framework whose arrays are wanted, and the bias.
    num_examples
        N.

    Raises
    ------
    ArgumentError
        If weights or bias are not finite numbers, or N is no integer of at least 0.
    """
    backend = backend_of(w)
    X, y = linear_samples(w, b, 0.01, whole("num_examples", num_examples), backend)
    return backend.array(X), backend.array(y)


def load_array(data_arrays: Sequence[Array], batch_size: int, is_train: bool = True) -> BatchLoader:
    """Return batches of arrays of equal length, reshuffled at each pass if `is_train`; errors as of `BatchLoader`."""
    if not len(data_arrays):
        raise DataError("Expected arrays (N, ...), one or more, of equal length. Received none.")
    backend = backend_of(data_arrays[0])
    return BatchLoader(tuple(backend.numpy(each) for each in data_arrays), batch_size, is_train, backend)


def linreg(X: Array, w: Array, b: Array) -> Array:
    """Return the outputs of a linear model: X (N, k) times w (k, 1), plus b."""
    return X @ w + b


def squared_loss(y_hat: Array, y: Array) -> Array:
    """Return (y_hat - y)^2 / 2 per sample; `y` may have another shape with as many elements."""
    return (y_hat - adapter(backend_of(y_hat).name).reshape(y, y_hat.shape)) ** 2 / 2

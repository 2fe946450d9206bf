"""What the function edition of the book has by a name of its own in MXNet."""

from collections.abc import Iterable

from mxnet import np


def sgd(params: Iterable[np.ndarray], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place: w <- w - lr dw / batch_size."""
    for param in params:
        param[:] = param - lr * param.grad / batch_size

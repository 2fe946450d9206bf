"""The function edition in MXNet's words."""

from collections.abc import Iterable
from typing import Any

from mxnet import autograd, np


def outputs(net: Any, X: np.ndarray) -> np.ndarray:
    """Return what a block or function makes of a batch, without dropout and gradients."""
    with autograd.pause(train_mode=False):
        return net(X)


def total_loss(loss: Any, y_hat: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sum of a batch's losses, whether `loss` averages them or gives one per sample, as gluon's do."""
    value = loss(y_hat, y)
    return value.sum() if value.ndim else value * len(y)


def learn(net: Any, X: np.ndarray, y: np.ndarray, loss: Any, updater: Any) -> tuple[np.ndarray, np.ndarray]:
    """Take a step; return the sum of the losses, and the outputs, under dropout.

    A function that asks `autograd.is_training()` hears yes, as in a block, because gradients are recorded.
    """
    with autograd.record():
        y_hat = net(X)
        total = total_loss(loss, y_hat, y)
    total.backward()
    step = updater.step if hasattr(updater, "step") else updater  # a gluon Trainer, or a function
    step(len(y))
    return total.detach(), y_hat.detach()


def sgd(params: Iterable[np.ndarray], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place."""
    for param in params:
        param[:] = param - lr * param.grad / batch_size

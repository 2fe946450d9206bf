"""The function edition by hand: nets and losses know their own backward passes."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from d2ldrop.errors import UsageError
from d2ldrop.numpy.layers import Layer, cross_entropy, cross_entropy_backward


class CrossEntropyLoss:
    """The cross-entropy of logits (N, K) with labels (N,): per sample, or the mean if `averaged`.

    Like a layer, it remembers what its backward pass needs.
    """

    def __init__(self, averaged: bool = False):
        self.averaged = averaged

    def __call__(self, Y_hat: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return -log softmax(Y_hat) at the labels."""
        self.Y_hat, self.y = Y_hat, y
        losses = cross_entropy(Y_hat, y)
        return losses.mean() if self.averaged else losses

    def backward(self) -> np.ndarray:
        """Return the gradient with respect to the logits, of the mean, or else of the sum over samples."""
        dY = cross_entropy_backward(self.Y_hat, self.y)
        return dY if self.averaged else dY * len(self.y)


def outputs(net: Any, X: np.ndarray) -> np.ndarray:
    """Return what a layer or function makes of a batch, without dropout."""
    if isinstance(net, Layer):
        net.train(False)
    return net(X)


def total_loss(loss: Any, y_hat: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sum of a batch's losses, whether `loss` averages them or gives one per sample."""
    value = loss(y_hat, y)
    return value.sum() if value.ndim else value * len(y)


def learn(net: Any, X: np.ndarray, y: np.ndarray, loss: Any, updater: Any) -> tuple[np.ndarray, np.ndarray]:
    """Take a step; return the sum of the losses, and the outputs, under dropout.

    The backward passes, first that of `loss` and then that of `net`, leave the gradients where the updater finds them.
    """
    for part in (net, loss):
        if not hasattr(part, "backward"):
            raise UsageError(f"Expected a net and a loss with a backward pass. Received one without: {part!r}")
    if isinstance(net, Layer):
        net.train()
    y_hat = net(X)
    value = loss(y_hat, y)
    dY = loss.backward()
    total, dtotal = (value.sum(), dY) if value.ndim else (value * len(y), dY * len(y))
    if hasattr(updater, "step"):
        net.backward(dtotal / len(y))
        updater.step()
    else:  # divides by the batch size itself
        net.backward(dtotal)
        updater(len(y))
    return total, y_hat


def sgd(params: Iterable[np.ndarray], grads: Iterable[np.ndarray], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place."""
    for param, grad in zip(params, grads, strict=True):
        param -= lr * grad / batch_size

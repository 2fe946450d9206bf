"""The function edition by hand: a loss that knows its own backward pass, and the optimiser as a function."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from d2ldrop.numpy.layers import cross_entropy, cross_entropy_backward


class CrossEntropyLoss:
    """The cross-entropy of logits (N, K) with labels (N,): per sample, or the mean if `averaged`.

    Like a layer, it remembers what its backward pass needs.
    """

    def __init__(self, averaged: bool = False):
        self.averaged = averaged

    def __call__(self, Y_hat: np.ndarray, y: np.ndarray) -> Any:
        """Return -log softmax(Y_hat) at the labels."""
        self.Y_hat, self.y = Y_hat, y
        losses = cross_entropy(Y_hat, y)
        return losses.mean() if self.averaged else losses

    def backward(self) -> np.ndarray:
        """Return the gradient with respect to the logits, of the mean, or else of the sum over samples."""
        dY = cross_entropy_backward(self.Y_hat, self.y)
        return dY if self.averaged else dY * len(self.y)


def sgd(params: Iterable[np.ndarray], grads: Iterable[np.ndarray], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place."""
    for param, grad in zip(params, grads, strict=True):
        param -= lr * grad / batch_size

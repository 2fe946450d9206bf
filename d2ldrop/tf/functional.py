"""The function edition in TensorFlow: the optimiser as a function."""

from collections.abc import Iterable

import tensorflow as tf


def sgd(params: Iterable[tf.Variable], grads: Iterable[tf.Tensor], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place."""
    for param, grad in zip(params, grads, strict=True):
        param.assign_sub(lr * grad / batch_size)

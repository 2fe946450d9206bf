"""The function edition in TensorFlow: what it has by names of its own, with TensorFlow's arguments."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from d2ldrop.hyperparameters import number
from d2ldrop.tf import arrays


def sgd(params: Iterable[tf.Variable], grads: Iterable[tf.Tensor], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place."""
    for param, grad in zip(params, grads, strict=True):
        param.assign_sub(lr * grad / batch_size)


def grad_clipping(grads: Sequence[Any], theta: float) -> list[Any]:
    """Return gradients scaled to a common norm of at most `theta`; None, where there is no gradient, stays."""
    factor = tf.minimum(1.0, number("theta", theta) / tf.linalg.global_norm(grads))
    return [None if grad is None else tf.convert_to_tensor(grad) * factor for grad in grads]


def for_ch6(net_fn: Callable[[], Any], lr: float, device: str | None) -> tuple[Any, Any, Any]:
    """Return the net that a function makes on a device, and the loss and the optimiser of `train_ch6`.

    Keras initialises by Glorot's rule itself.
    """
    with tf.device(device or arrays.cpu()):
        net = net_fn()
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return net, loss, tf.keras.optimizers.SGD(learning_rate=lr)

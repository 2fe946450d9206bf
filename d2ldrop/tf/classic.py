"""The function edition in TensorFlow's words."""

import inspect
from collections.abc import Iterable
from typing import Any

import tensorflow as tf


def outputs(net: Any, X: tf.Tensor) -> tf.Tensor:
    """Return what a model or function makes of a batch, without dropout."""
    return _call(net, X, training=False)


def total_loss(loss: Any, y_hat: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Return the sum of a batch's losses, whether `loss` averages them or gives one per sample.

    A loss of Keras takes the labels first, a function of the reader's takes them last.
    """
    value = loss(y, y_hat) if isinstance(loss, tf.keras.losses.Loss) else loss(y_hat, y)
    return tf.reduce_sum(value) if value.shape.rank else value * len(y)


def learn(net: Any, X: tf.Tensor, y: tf.Tensor, loss: Any, updater: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Take a step; return the sum of the losses, and the outputs, under dropout.

    An updater that is no optimiser of Keras is called with the batch size and the gradients of its `params`.
    """
    keras = isinstance(updater, tf.keras.optimizers.Optimizer)
    with tf.GradientTape() as tape:
        y_hat = _call(net, X, training=True)
        total = total_loss(loss, y_hat, y)
        objective = total / len(y) if keras else total
    if keras:
        params = net.trainable_variables
        updater.apply_gradients(zip(tape.gradient(objective, params), params, strict=True))
    else:
        updater(len(y), tape.gradient(objective, updater.params))
    return total, y_hat


def sgd(params: Iterable[tf.Variable], grads: Iterable[tf.Tensor], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place."""
    for param, grad in zip(params, grads, strict=True):
        param.assign_sub(lr * grad / batch_size)


def _call(net: Any, X: tf.Tensor, training: bool) -> tf.Tensor:
    """Call a model, which must be told whether it trains, or a function that may not want to know."""
    told = isinstance(net, tf.keras.layers.Layer) or "training" in inspect.signature(net).parameters
    return net(X, training=training) if told else net(X)

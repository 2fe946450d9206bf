"""Baselines of the benchmark: the same training as users of TensorFlow write it."""

from collections.abc import Callable
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

import tensorflow as tf

from d2ldrop.data import Split, as_floats
from d2ldrop.tf.arrays import num_gpus
from d2ldrop.tf.lesson import dropout_layer


def plain_loop(train: Split, val: Split, batch_size: int, lr: float, dropout: float) -> Callable[[], float]:
    """Return a function that runs an epoch with validation: Keras' own `fit`, on arrays in memory."""
    X, X_val = as_floats(train.X), as_floats(val.X)
    layers = tf.keras.layers
    net = tf.keras.Sequential([
        layers.Flatten(),
        layers.Dense(256, activation="relu"), layers.Dropout(dropout),
        layers.Dense(256, activation="relu"), layers.Dropout(dropout),
        layers.Dense(10),
    ])  # fmt: skip
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(tf.keras.optimizers.SGD(lr), loss, metrics=["accuracy"])

    def epoch() -> float:
        history = net.fit(X, train.y, batch_size, validation_data=(X_val, val.y), verbose=0)
        return float(history.history["val_accuracy"][-1])

    return epoch


def matrix_products(sizes: tuple[int, ...], batch_size: int, steps: int, validated: int) -> Callable[[], None]:
    """Return a function that multiplies the matrices of an epoch, and does next to nothing else.

    The weights change a little in each step, or TensorFlow would see that all steps are the same.
    """
    X, X_val = tf.ones((batch_size, sizes[0])), tf.ones((validated, sizes[0]))
    Ws = [tf.fill(pair, 1e-3) for pair in pairwise(sizes)]

    @tf.function(autograph=False)
    def training() -> list[tf.Tensor]:
        def step(i: tf.Tensor, *Ws: tf.Tensor) -> tuple[tf.Tensor, ...]:
            Hs = list(accumulate(Ws, tf.matmul, initial=X))
            dH, changed = Hs.pop(), []
            for k, (H, W) in reversed(list(enumerate(zip(Hs, Ws, strict=True)))):
                changed.append(W - 1e-9 * tf.matmul(H, dH, transpose_a=True))
                dH = tf.matmul(dH, W, transpose_b=True) if k else dH
            return (i + 1, *reversed(changed))

        return list(tf.while_loop(lambda i, *_: i < steps, step, (0, *Ws), parallel_iterations=1)[1:])

    def epoch() -> None:
        Ws = training()
        for start in range(0, validated, 2000):
            reduce(tf.matmul, Ws, X_val[start : start + 2000]).numpy()

    return epoch


def dropout_calls(shape: tuple[int, ...], p: float) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return, by name, what calls our layer, TensorFlow's own, and a product with a ready mask.

    Each is compiled: forward, and forward and backward.
    """
    X, dY = tf.random.uniform(shape), tf.ones(shape)

    def calls(layer: Callable[[tf.Tensor, float], tf.Tensor]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        @tf.function(autograph=False)
        def forward(X: tf.Tensor) -> tf.Tensor:
            return layer(X, p)

        @tf.function(autograph=False)
        def both(X: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(X)
                Y = layer(X, p)
            return Y, tape.gradient(Y, X, dY)  # without Y, TensorFlow would leave out the forward pass

        return lambda: _finished(forward(X)), lambda: _finished(both(X))

    mask = dropout_layer(dY, p)
    return {"dropout_layer": calls(dropout_layer), "own": calls(tf.nn.dropout), "product": calls(lambda X, p: X * mask)}


def _finished(result: Any) -> Any:
    """Return a result when it is ready; only a GPU works on after the call has returned."""
    if num_gpus():
        tf.test.experimental.sync_devices()
    return result

"""What our speed is measured against: the same training as users of TensorFlow write it."""

from collections.abc import Callable

import tensorflow as tf

from d2ldrop.data import Split, as_floats


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

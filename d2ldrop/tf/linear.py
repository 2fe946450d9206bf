"""Linear regression in TensorFlow, with which the book's chapters begin: from scratch, and from Keras' layer."""

from typing import Any

import numpy as np
import tensorflow as tf

from d2ldrop.tf.lesson import SGD, Regressor
from d2ldrop.tf.optimizers import saved_by_keras

nn_Module = tf.keras.Model  # noqa: N816 - the book's name


@saved_by_keras
class LinearRegressionScratch(Regressor):
    """Linear regression whose parameters are plain variables: `w` (num_inputs, 1) and `b` (1,).

    Parameters
    ----------
    num_inputs
        The number of features.
    lr
        Learning rate.
    sigma
        Standard deviation of the normal distribution from which the weights begin; the bias begins at 0.
    """

    def __init__(self, num_inputs: int, lr: float, sigma: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.w = tf.Variable(tf.random.normal((num_inputs, 1), 0, sigma))
        self.b = tf.Variable(tf.zeros(1))

    def forward(self, X: tf.Tensor) -> tf.Tensor:
        """Return X w + b, (N, 1), for inputs (N, num_inputs)."""
        return tf.matmul(X, self.w) + self.b

    def configure_optimizers(self) -> Any:
        """Return stochastic gradient descent by hand."""
        return SGD(self.lr)


@saved_by_keras
class LinearRegression(Regressor):
    """Linear regression from Keras' own layer, which takes the number of features from the first batch.

    As in the book, its loss is Keras', without the factor 1/2 of the scratch model: equal `lr` are larger steps.

    Parameters
    ----------
    lr
        Learning rate.
    """

    def __init__(self, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = tf.keras.layers.Dense(1, kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.01))

    def loss(self, Y_hat: tf.Tensor, Y: tf.Tensor, averaged: bool = True) -> tf.Tensor:
        """Return (Y_hat - Y)^2: its mean, or the mean over outputs per sample."""
        return 2 * super().loss(Y_hat, Y, averaged)

    def get_w_b(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (num_inputs, 1) and the bias (1,)."""
        w, b = self.net.get_weights()
        return w, b

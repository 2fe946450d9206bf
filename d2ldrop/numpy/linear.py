"""Linear regression by hand in NumPy: the chapter before classification, with its gradients written out."""

import numpy as np

from d2ldrop.numpy import layers as nn
from d2ldrop.numpy.arrays import normal
from d2ldrop.numpy.lesson import Regressor
from d2ldrop.numpy.optimizers import SGD

nn_Module = nn.Layer  # noqa: N816 - the book's name


class LinearRegressionScratch(Regressor):
    """Linear regression whose parameters are plain arrays: `w` (num_inputs, 1) and `b` (1,).

    Parameters
    ----------
    num_inputs
        The number of features.
    lr
        Learning rate.
    sigma
        Standard deviation of the normal distribution from which the weights begin.
    """

    parameter_names = ("w", "b")
    transient = (*Regressor.transient, "X", "dw", "db")

    def __init__(self, num_inputs: int, lr: float, sigma: float = 0.01):
        self.save_hyperparameters()
        self.w = normal(0, sigma, (num_inputs, 1))
        self.b = np.zeros(1, np.float32)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return X w + b, (N, 1), for inputs (N, num_inputs)."""
        self.X = X
        return X @ self.w + self.b

    def backward(self, dY: np.ndarray) -> None:
        """Leave the gradients of w and b, given that of the loss with respect to the outputs, (N, 1)."""
        self.dw = self.X.T @ dY
        self.db = dY.sum(axis=0)

    def configure_optimizers(self) -> SGD:
        """Return stochastic gradient descent by hand."""
        return SGD(self.parameters(), self.lr)


class LinearRegression(Regressor):
    """Linear regression from a layer, which takes the number of features from the first batch.

    Parameters
    ----------
    lr
        Learning rate.
    """

    host_init = True

    def __init__(self, lr: float):
        self.save_hyperparameters()
        self.net = nn.Linear(1)

    def get_w_b(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (num_inputs, 1) and the bias (1,)."""
        return self.backend.affine(self.net)

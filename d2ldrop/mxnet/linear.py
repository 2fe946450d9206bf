"""Linear regression, with which the book's chapters begin: by hand from plain arrays, and from gluon's layer."""

from mxnet import np
from mxnet.gluon import nn

from d2ldrop.mxnet.lesson import SGD, Regressor

nn_Module = nn.Block  # noqa: N816 - the book's name


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

    def __init__(self, num_inputs: int, lr: float, sigma: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.w = np.random.normal(0, sigma, (num_inputs, 1))
        self.b = np.zeros(1)
        self.w.attach_grad()  # from here on, `backward()` leaves the gradient in `w.grad`
        self.b.attach_grad()

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return predictions (N, 1) for inputs (N, num_inputs)."""
        return np.dot(X, self.w) + self.b

    def configure_optimizers(self) -> SGD:
        """Return stochastic gradient descent by hand."""
        return SGD([self.w, self.b], self.lr)


class LinearRegression(Regressor):
    """Linear regression from a layer of gluon, which takes the number of features from the first batch.

    Parameters
    ----------
    lr
        Learning rate.
    """

    host_init = True

    def __init__(self, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Dense(1)
        self.net.initialize()

    def get_w_b(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (1, num_inputs) and the bias (1,) of a model that was trained or called."""
        return self.net.weight.data(), self.net.bias.data()

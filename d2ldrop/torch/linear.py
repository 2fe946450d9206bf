"""Linear regression in PyTorch, from scratch and from the framework's layers: the chapter before classification."""

import torch
from torch import Tensor, nn

from d2ldrop.torch.lesson import SGD, Regressor

nn_Module = nn.Module  # noqa: N816 - the book's name


class LinearRegressionScratch(Regressor):
    """Linear regression whose parameters are plain tensors: `w` (num_inputs, 1) and `b` (1,).

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
        self.w = torch.normal(0, sigma, (num_inputs, 1), requires_grad=True)
        self.b = torch.zeros(1, requires_grad=True)

    def forward(self, X: Tensor) -> Tensor:
        """Return X w + b, (N, 1), for inputs (N, num_inputs)."""
        return X @ self.w + self.b

    def configure_optimizers(self) -> SGD:  # type: ignore[override]
        """Return stochastic gradient descent by hand."""
        return SGD([self.w, self.b], self.lr)


class LinearRegression(Regressor):
    """Linear regression from PyTorch's own layer, which takes the number of features from the first batch.

    As in the book, its loss is PyTorch's, without the factor 1/2 of the scratch model: equal `lr` are larger steps.

    Parameters
    ----------
    lr
        Learning rate.
    """

    host_init = True

    def __init__(self, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.LazyLinear(1)

    def loss(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """Return (Y_hat - Y)^2: its mean, or the mean over outputs per sample."""
        return 2 * super().loss(Y_hat, Y, averaged)

    def get_w_b(self) -> tuple[Tensor, Tensor]:
        """Return the weights (1, num_inputs) and the bias (1,)."""
        return self.net.weight.data, self.net.bias.data

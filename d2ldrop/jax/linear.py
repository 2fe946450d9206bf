"""Linear regression, from the chapters that lead to dropout: from scratch, and with Flax's own layer."""

from typing import Any, cast

from flax import linen as nn
from jax import Array
from jax import numpy as jnp

from d2ldrop.jax.lesson import SGD, Module
from d2ldrop.jax.modules import State
from d2ldrop.jax.optimizers import Optimizer, optimizer_for
from d2ldrop.training.module import BaseRegressor

nn_Module = nn.Module  # noqa: N816 - the book's name for the framework's own base class


class _Linear(Module, BaseRegressor):
    """What both models share: half the squared error."""

    def loss(self, params: Any, X: tuple[Array, ...], y: Array, state: State) -> Array:  # type: ignore[override]
        """Return the mean of (outputs - y)^2 / 2, for a tuple of inputs."""
        y_hat = state.apply_fn({"params": params}, *X)
        return ((y_hat - y.reshape(y_hat.shape)) ** 2 / 2).mean()


class LinearRegressionScratch(_Linear):
    """A weight for each input, and a bias, as plain parameters.

    Parameters
    ----------
    num_inputs
        The number of inputs.
    lr
        Learning rate.
    sigma
        Standard deviation of the initial weights.
    """

    num_inputs: int
    lr: float
    sigma: float = 0.01

    def setup(self) -> None:
        """Make the parameters; Flax calls it."""
        self.w = self.param("w", nn.initializers.normal(self.sigma), (self.num_inputs, 1))
        self.b = self.param("b", nn.initializers.zeros, (1,))

    def forward(self, X: Array) -> Array:
        """Return outputs (N, 1) for inputs (N, num_inputs)."""
        return jnp.matmul(X, self.w) + self.b

    def configure_optimizers(self) -> SGD:
        """Return stochastic gradient descent by hand."""
        return SGD(self.lr)


class LinearRegression(_Linear):
    """The same with a layer of Flax, for any number of inputs; `lr` is the learning rate."""

    lr: float

    def setup(self) -> None:
        """Make the layer; Flax calls it."""
        self.net = nn.Dense(1, kernel_init=nn.initializers.normal(0.01))

    def configure_optimizers(self) -> Optimizer:
        """Return Optax's stochastic gradient descent."""
        return optimizer_for(self)

    def get_w_b(self, state: State | None = None) -> tuple[Array, Array]:
        """Return weights (inputs, 1) and bias (1,): those in a trainer's `state`, or the model's own."""
        params = cast("Any", self.learned)["params"] if state is None else state.params
        return params["net"]["kernel"], params["net"]["bias"]

"""Optimisers by hand: SGD with momentum, Adam, and AdamW."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from d2ldrop.hyperparameters import HyperParameters
from d2ldrop.numpy.layers import Parameter
from d2ldrop.training.optimizers import chosen


class Optimizer(HyperParameters):
    """Base of optimisers: for each parameter with a gradient, `step` calls `update`."""

    def __init__(self, params: Iterable[Parameter]):
        self.params = list(params)

    def step(self) -> None:
        """Change the parameters in place."""
        for k, param in enumerate(self.params):
            if param.grad is not None:
                self.update(k, param.value, param.grad)

    def update(self, k: int, value: np.ndarray, grad: np.ndarray) -> None:
        """Change the parameter number `k` in place, given its gradient."""

    def zero_grad(self) -> None:
        """Do nothing: each backward pass replaces the gradients."""


class SGD(Optimizer):
    """Stochastic gradient descent: each parameter minus `lr` times its gradient.

    Parameters
    ----------
    params
        What to train.
    lr
        Learning rate.
    momentum
        With momentum, a velocity takes the place of the gradient: it is the sum of all gradients so far, of which each
        counts `momentum` times as much as the next.
    weight_decay
        This times the parameter is added to its gradient. It is the gradient of weight_decay / 2 times the sum of
        squares of all parameters, so that large ones have to be worth it.
    """

    def __init__(self, params: Iterable[Parameter], lr: float, momentum: float = 0.0, weight_decay: float = 0.0):
        super().__init__(params)
        self.save_hyperparameters(ignore=["params"])
        self.velocities: list[Any] = [0.0] * len(self.params)

    def update(self, k: int, value: np.ndarray, grad: np.ndarray) -> None:
        """Take a step against the gradient, or along the velocity."""
        if self.weight_decay:
            grad = grad + self.weight_decay * value
        if self.momentum:
            grad = self.velocities[k] = self.momentum * self.velocities[k] + grad
        np.subtract(value, self.lr * grad, out=value)


class Adam(Optimizer):
    """Adam: each step is about as long as `lr`, however large the gradients of a parameter usually are.

    Parameters
    ----------
    params, lr, weight_decay
        As for `SGD`.
    beta1, beta2
        How much of the mean of the gradients, and of the mean of their squares, is kept in each step.
    eps
        Keeps the step finite where gradients are zero.

    Notes
    -----
    Source: Kingma and Ba, Adam: a method for stochastic optimization (2015), Algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 0.001,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ):
        super().__init__(params)
        self.save_hyperparameters(ignore=["params"])
        self.steps = 0
        self.means: list[Any] = [0.0] * len(self.params)
        self.squares: list[Any] = [0.0] * len(self.params)

    def step(self) -> None:
        """Change the parameters in place."""
        self.steps += 1
        super().step()

    def update(self, k: int, value: np.ndarray, grad: np.ndarray) -> None:
        """Take a step against the mean gradient, divided by the root of the mean square."""
        grad = self.decayed(value, grad)
        self.means[k] = mean = self.beta1 * self.means[k] + (1 - self.beta1) * grad
        self.squares[k] = square = self.beta2 * self.squares[k] + (1 - self.beta2) * grad**2
        mean = mean / (1 - self.beta1**self.steps)  # both means began at 0: this makes up for it
        square = square / (1 - self.beta2**self.steps)
        np.subtract(value, self.lr * mean / (np.sqrt(square) + self.eps), out=value)

    def decayed(self, value: np.ndarray, grad: np.ndarray) -> np.ndarray:
        """Return the gradient with the weight decay in it."""
        return grad + self.weight_decay * value if self.weight_decay else grad


class AdamW(Adam):
    """Adam with decoupled weight decay: each step multiplies the parameters by 1 - lr weight_decay.

    As a part of the gradient, the decay would be divided by the root of the mean square, like the rest of it, and so be
    weak where gradients are large.

    Notes
    -----
    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019), Algorithm 2.
    """

    def decayed(self, value: np.ndarray, grad: np.ndarray) -> np.ndarray:
        """Let the parameter itself decay, and return the gradient as it is."""
        value *= 1 - self.lr * self.weight_decay
        return grad


def optimizer_for(model: Any) -> SGD | Adam:
    """Return the optimiser that a model asks for, see `d2ldrop.training.optimizers.chosen`."""
    name, lr, decay, momentum = chosen(model)
    if name == "sgd":
        return SGD(model.parameters(), lr, momentum, decay)
    return {"adam": Adam, "adamw": AdamW}[name](model.parameters(), lr, decay)

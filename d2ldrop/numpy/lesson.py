"""The chapter by hand in NumPy: forward and backward are written out, without automatic differentiation."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from d2ldrop.numpy.layers import (
    Dropout,
    Flatten,
    Layer,
    Linear,
    ReLU,
    Sequential,
    cross_entropy,
    cross_entropy_backward,
    relu,
    relu_backward,
)
from d2ldrop.numpy.masks import draw_mask, dropout_mask, masked, real_floats
from d2ldrop.numpy.optimizers import SGD, Adam, optimizer_for
from d2ldrop.randomness import odds
from d2ldrop.training.module import BaseClassifier, BaseModule

# Dropout


def dropout_layer(X: np.ndarray, dropout: float, *, axes: Iterable[int] = ()) -> np.ndarray:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for NumPy's arrays.

    Parameters
    ----------
    X
        Any shape and dtype; integers are promoted to float64, NumPy's default.
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    axes
        Axes along which all elements share one draw, such as (2, 3) to drop whole channels of images (N, C, H, W).

    Returns
    -------
    numpy.ndarray
        Same shape and dtype as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is no array of real numbers, `dropout` is not a real number in [0, 1], or `X` has no such axes.

    Examples
    --------
    >>> X = np.arange(3.0)
    >>> dropout_layer(X, 0) is X
    True
    >>> dropout_layer(X, 1)
    array([0., 0., 0.])
    """
    X, p = real_floats(X), odds(dropout)
    if p.threshold == 0:
        return X
    mask = draw_mask(X, p, axes)  # True with probability 1 - p
    return masked(X, mask, p.scale)  # X / (1 - p) where it is True, else 0


# Models


class Module(BaseModule, Layer):
    """Base of models.

    Subclasses define `configure_optimizers()`, and `forward(X)` with `backward(dY)`, or a network `self.net`. A `loss`
    of your own leaves its gradient with respect to the outputs in `self.dloss`.
    """

    backend_name = "numpy"
    transient = (*BaseModule.transient, "dloss", "H1", "H2", "mask1", "mask2")

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def backward(self, dY: np.ndarray) -> None:
        """Leave the gradients of all parameters, given that of the loss with respect to the outputs."""
        self.net.gradients(dY)

    def apply_init(self, inputs: tuple[np.ndarray, ...], init: Any = None) -> None:
        """Create parameters with the shapes that `inputs` need, then apply the function `init` to each layer."""
        self(*inputs)
        for layer in self.layers() if init is not None else ():
            init(layer)


class Classifier(Module, BaseClassifier):
    """Base of classification models: cross-entropy, accuracy, and an optimiser, SGD if no other is asked for."""

    def loss(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> Any:
        """Return the cross-entropy of logits (N, K) with labels (N,): its mean, or per sample if not `averaged`."""
        if self.training:
            self.dloss = cross_entropy_backward(Y_hat, Y)
        losses = cross_entropy(Y_hat, Y)
        return losses.mean() if averaged else losses

    def accuracy(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> Any:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        hits = (Y_hat.argmax(axis=1) == Y).astype(np.float32)
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> SGD | Adam:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return optimizer_for(self)


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float):
        self.save_hyperparameters(check=True)
        self.net = Sequential(Flatten(), Linear(num_outputs))


class DropoutMLPScratch(Classifier):
    """Two hidden layers, with dropout after each activation while training, and the backward pass written out.

    Parameters
    ----------
    num_outputs, num_hiddens_1, num_hiddens_2
        Widths of the layers.
    dropout_1, dropout_2
        Probabilities of dropping an activation.
    lr
        Learning rate.
    """

    host_init = True

    def __init__(
        self, num_outputs: int, num_hiddens_1: int, num_hiddens_2: int, dropout_1: float, dropout_2: float, lr: float
    ):
        self.save_hyperparameters(check=True)
        self.lin1, self.lin2, self.lin3 = Linear(num_hiddens_1), Linear(num_hiddens_2), Linear(num_outputs)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        self.H1 = H1 = relu(self.lin1(X.reshape(len(X), -1)))
        if self.training:
            self.mask1 = dropout_mask(H1.shape, self.dropout_1)
            H1 = masked(H1, *self.mask1)
        self.H2 = H2 = relu(self.lin2(H1))
        if self.training:
            self.mask2 = dropout_mask(H2.shape, self.dropout_2)
            H2 = masked(H2, *self.mask2)
        return self.lin3(H2)

    def backward(self, dY: np.ndarray) -> None:
        """Go back through the same steps, last one first."""
        dH2 = self.lin3.backward(dY)
        if self.training:
            dH2 = masked(dH2, *self.mask2)
        dH1 = self.lin2.backward(relu_backward(dH2, self.H2))
        if self.training:
            dH1 = masked(dH1, *self.mask1)
        self.lin1.gradients(relu_backward(dH1, self.H1))


class DropoutMLP(Classifier):
    """The same network from layers that know their own backward pass; parameters as in `DropoutMLPScratch`."""

    host_init = True

    def __init__(
        self, num_outputs: int, num_hiddens_1: int, num_hiddens_2: int, dropout_1: float, dropout_2: float, lr: float
    ):
        self.save_hyperparameters(check=True)
        self.net = Sequential(
            Flatten(), Linear(num_hiddens_1), ReLU(), Dropout(dropout_1),
            Linear(num_hiddens_2), ReLU(), Dropout(dropout_2),
            Linear(num_outputs),
        )  # fmt: skip

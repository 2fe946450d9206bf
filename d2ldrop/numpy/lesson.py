"""The chapter by hand in NumPy: forward and backward are written out, without automatic differentiation."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from d2ldrop.hyperparameters import call_of
from d2ldrop.numpy import layers as nn
from d2ldrop.numpy.masks import draw_mask, dropout_mask, masked, real_floats
from d2ldrop.numpy.optimizers import SGD, Adam, optimizer_for
from d2ldrop.randomness import odds
from d2ldrop.training.module import BaseClassifier, BaseMLP, BaseModule, BaseRegressor

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


class Module(BaseModule, nn.Layer):
    """Base of models.

    Subclasses define `configure_optimizers()`, and `forward(X)` with `backward(dY)`, or a network `self.net`. A `loss`
    of your own leaves its gradient with respect to the outputs in `self.dloss`.
    """

    backend_name = "numpy"
    transient = (*BaseModule.transient, "dloss", "H", "masks")

    def __repr__(self) -> str:
        return call_of(self)

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
            weights = self.backend.entries(self.class_weights, Y, Y_hat) if self.class_weights is not None else None
            self.dloss = nn.cross_entropy_backward(Y_hat, Y, weights)
        losses = nn.cross_entropy(Y_hat, Y)
        if self.class_weights is not None:
            return self.weighted(losses, Y, averaged)
        return losses.mean() if averaged else losses

    def accuracy(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> Any:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        hits = (Y_hat.argmax(axis=1) == Y).astype(np.float32)
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> SGD | Adam:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return optimizer_for(self)


class Regressor(Module, BaseRegressor):
    """Base of regression models: half the squared error, and an optimiser as classifiers have it."""

    configure_optimizers = Classifier.configure_optimizers

    def loss(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> Any:
        """Return (Y_hat - Y)^2 / 2 for outputs (N, K): its mean, or the mean over outputs per sample."""
        errors = Y_hat - Y.reshape(Y_hat.shape)
        if self.training:
            self.dloss = errors / errors.size
        losses = (errors**2 / 2).mean(axis=1)
        return losses.mean() if averaged else losses


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float, **options: Any):
        self.save_hyperparameters(check=True)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(num_outputs))


class DropoutMLPScratch(BaseMLP, Classifier):
    """Hidden layers, with dropout after each activation while training, and the backward pass written out.

    Parameters are those of `BaseMLP`: the chapter's for two layers, or `num_hiddens, dropouts` for any number.
    """

    def setup(self) -> None:
        """Name the layers `lin1`, `lin2`, ...; the constructor calls it."""
        for k, width in enumerate((*self.hidden_widths, self.num_outputs), start=1):
            setattr(self, f"lin{k}", nn.Linear(width))

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        self.H, self.masks = [], []
        H = X.reshape(len(X), -1)
        for layer, dropout in self.hidden_layers:
            H = nn.relu(layer(H))
            self.H.append(H)
            if self.training:
                self.masks.append(dropout_mask(H.shape, dropout))
                H = masked(H, *self.masks[-1])
        return self.output_layer(H)

    def backward(self, dY: np.ndarray) -> None:
        """Go back through the same steps, last one first."""
        layer = self.output_layer
        for k, (below, _) in reversed([*enumerate(self.hidden_layers)]):
            dH = layer.backward(dY)
            if self.training:
                dH = masked(dH, *self.masks[k])
            dY, layer = nn.relu_backward(dH, self.H[k]), below
        layer.gradients(dY)


class DropoutMLP(BaseMLP, Classifier):
    """The same network from layers that know their own backward pass; parameters as in `DropoutMLPScratch`."""

    def setup(self) -> None:
        """Put the layers together; the constructor calls it."""
        layers: list[nn.Layer] = [nn.Flatten()]
        for width, dropout in zip(self.hidden_widths, self.hidden_dropouts, strict=True):
            layers += [nn.Linear(width), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(self.num_outputs))


class DropoutMLPRegressor(BaseMLP, Regressor):
    """The network of `DropoutMLP`, with `num_outputs` real numbers per sample to learn, and the squared loss."""

    setup = DropoutMLP.setup

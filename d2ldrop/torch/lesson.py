"""The chapter in PyTorch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from d2ldrop.hyperparameters import HyperParameters
from d2ldrop.randomness import no_axes, odds
from d2ldrop.torch.masks import (
    by_rows,
    draw_mask,
    drawn_eagerly,
    drop,
    drop_on_gpu,
    has_own_kernel,
    masked,
    real_floats,
)
from d2ldrop.torch.optimizers import optimizer_for
from d2ldrop.torch.plain import WithPlainTensors
from d2ldrop.training.module import BaseClassifier, BaseMLP, BaseModule, BaseRegressor

# Dropout


def dropout_layer(X: Tensor, dropout: float, *, axes: Iterable[int] = ()) -> Tensor:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for tensors; randomness comes from PyTorch's generator of the tensor's device.

    Parameters
    ----------
    X
        Any shape, dtype and device; integers are promoted to the default float.
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    axes
        Axes along which all elements share one draw, such as (2, 3) to drop whole channels of images (N, C, H, W).

    Returns
    -------
    Tensor
        Same shape, dtype and device as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not a tensor of real numbers, `dropout` not a real number in [0, 1], or `X` has no such axis.

    Notes
    -----
    What PyTorch compiles or exports draws masks of its own, also where frameworks share theirs. `torch.vmap` has to be
    told whether masks differ: `randomness="different"` or `"same"`. `torch.jit`, which is deprecated, cannot read it.
    """
    X, p = real_floats(X), odds(dropout)
    if p.threshold == 0:
        return X
    if X.is_nested:
        no_axes(axes)
        return by_rows(X, dropout_layer(X.values(), dropout))
    if has_own_kernel(X, axes):
        return drop_on_gpu(X, p)
    if drawn_eagerly(X):
        return drop(X, p, axes)  # the same as below, faster
    mask = draw_mask(X, p, axes)  # keeps with probability 1 - p
    return masked(X, mask, p.scale)  # X / (1 - p) where it is kept, else 0


# Models


class Module(BaseModule, WithPlainTensors):
    """Base of models: an `nn.Module` that a trainer can train; its parameters may be plain tensors, too.

    Subclasses define `loss(y_hat, y)`, `configure_optimizers()`, and `forward(X)` or a network `self.net`. Schedules of
    the learning rate, as in `return [optimizer], [scheduler]`, take a step after each epoch.
    """

    backend_name = "torch"

    def forward(self, X: Tensor) -> Tensor:
        """Return the outputs of the network for inputs (N, ...)."""
        Y: Tensor = self.net(X)
        return Y

    def apply_init(self, inputs: tuple[Tensor, ...], init: Any = None) -> None:
        """Create lazy parameters with the shapes that `inputs` need, then apply the function `init` to each layer."""
        self(*inputs)
        if init is not None:
            self.net.apply(init)


class Classifier(Module, BaseClassifier):
    """Base of classification models: cross-entropy, accuracy, and an optimiser, SGD if no other is asked for."""

    def loss(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """Return the cross-entropy of logits (N, K) with labels (N,): its mean, or per sample if not `averaged`."""
        Y_hat, Y = Y_hat.reshape(-1, Y_hat.shape[-1]), Y.reshape(-1)
        if self.class_weights is not None:
            weighted: Tensor = self.weighted(nn.functional.cross_entropy(Y_hat, Y, reduction="none"), Y, averaged)
            return weighted
        return nn.functional.cross_entropy(Y_hat, Y, reduction="mean" if averaged else "none")

    def accuracy(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        hits = (Y_hat.reshape(-1, Y_hat.shape[-1]).argmax(dim=1) == Y.reshape(-1)).float()
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return optimizer_for(self)


class Regressor(Module, BaseRegressor):
    """Base of regression models: half the squared error, and an optimiser as classifiers have it."""

    configure_optimizers = Classifier.configure_optimizers

    def loss(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """Return (Y_hat - Y)^2 / 2 for outputs (N, K): its mean, or the mean over outputs per sample."""
        losses = ((Y_hat - Y.reshape(Y_hat.shape)) ** 2 / 2).mean(dim=1)
        return losses.mean() if averaged else losses


class SGD(HyperParameters):
    """Stochastic gradient descent by hand: each parameter minus `lr` times its gradient."""

    def __init__(self, params: Any, lr: float):
        self.save_hyperparameters()
        self.params = list(params)

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters in place."""
        for param in self.params:
            if param.grad is not None:
                param -= self.lr * param.grad

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for param in self.params:
            param.grad = None


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float, **options: Any):
        super().__init__()
        self.save_hyperparameters(check=True)
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_outputs))


class DropoutMLPScratch(BaseMLP, Classifier):
    """Hidden layers, with `dropout_layer` after each activation while training.

    Parameters are those of `BaseMLP`: the chapter's for two layers, or `num_hiddens, dropouts` for any number.
    """

    def setup(self) -> None:
        """Name the layers `lin1`, `lin2`, ...; the constructor calls it."""
        for k, width in enumerate((*self.hidden_widths, self.num_outputs), start=1):
            setattr(self, f"lin{k}", nn.LazyLinear(width))
        self.relu = nn.ReLU()

    def forward(self, X: Tensor) -> Tensor:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H = X.flatten(start_dim=1)
        for layer, dropout in self.hidden_layers:
            H = self.relu(layer(H))
            if self.training:
                H = dropout_layer(H, dropout)
        Y: Tensor = self.output_layer(H)
        return Y


class DropoutMLP(BaseMLP, Classifier):
    """The same network from PyTorch's own layers; parameters as in `DropoutMLPScratch`."""

    def setup(self) -> None:
        """Put the layers together; the constructor calls it."""
        layers: list[nn.Module] = [nn.Flatten()]
        for width, dropout in zip(self.hidden_widths, self.hidden_dropouts, strict=True):
            layers += [nn.LazyLinear(width), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.LazyLinear(self.num_outputs))


class DropoutMLPRegressor(BaseMLP, Regressor):
    """The network of `DropoutMLP`, with `num_outputs` real numbers per sample to learn, and the squared loss."""

    setup = DropoutMLP.setup

"""The chapter in JAX, with Flax and Optax.

A model of Flax is only a description. What training changes (the parameters, the optimiser's memory, the key of the
dropout masks) is in a `state` beside it, and each step returns a new one.
"""

from collections.abc import Iterable
from typing import Any

import jax
import optax
from flax import linen as nn
from jax import Array
from jax import numpy as jnp

from d2ldrop.errors import UsageError
from d2ldrop.hyperparameters import HyperParameters
from d2ldrop.jax.masks import draw_mask, masked, real_floats
from d2ldrop.jax.modules import FlaxClassifier, FlaxMLP, FlaxModule, Options, State, of_outputs_or_state, outputs
from d2ldrop.jax.optimizers import optimizer_for
from d2ldrop.randomness import odds
from d2ldrop.training.module import BaseRegressor

# Dropout


def dropout_layer(X: Array, dropout: float, key: Array | None = None, *, axes: Iterable[int] = ()) -> Array:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for arrays of JAX.

    Parameters
    ----------
    X
        Any shape, dtype and device; integers are promoted to the default float.
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    key
        Decides which elements are dropped: the same key, the same mask. By default a new one at each call: in a Flax
        module from the module's stream `dropout`, or else `params`; elsewhere from `get_key`.
    axes
        Axes along which all elements share one draw, such as (1, 2) to drop whole channels of images (N, H, W, C).

    Returns
    -------
    Array
        Same shape, dtype and device as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not real, `dropout` not a real number in [0, 1], `key` not one key, or `X` has no such axes.
    UsageError
        If `key` is missing where JAX traces outside of a module: compiled code would have one constant mask.
    """
    X, p = real_floats(X), odds(dropout)
    if p.threshold == 0:
        return X
    mask = draw_mask(X, p, key, axes)  # keeps with probability 1 - p
    return masked(X, mask, p.scale)  # X / (1 - p) where it is kept, else 0


# Models


class Module(FlaxModule):
    """Base of models: a module of Flax that a trainer can train.

    Subclasses declare hyperparameters as fields, and define `loss`, `configure_optimizers()` and the network: by
    `setup` and `forward(X)`, or as `self.net`, or in a compact `__call__`. A subclass that defines `__init__` is one of
    `flax.nnx` instead, see `d2ldrop.jax.nnx`.
    """

    backend_name = "jax"

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Return the outputs for inputs (N, ...)."""
        return self.forward(*inputs, **options)

    def forward(self, X: Array) -> Array:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def loss(self, *args: Any) -> Any:
        """Return the loss of outputs, given (params, X, y, state): a scalar, or (scalar, dictionary)."""
        raise UsageError(f"Expected {type(self).__name__} to define loss(params, X, y, state). It does not.")


class Classifier(Module, FlaxClassifier):  # type: ignore[misc]
    """Base of classification models: cross-entropy, accuracy, and an optimiser, SGD if no other is asked for."""

    def loss(  # type: ignore[override]
        self, params: Any, X: tuple[Array, ...], Y: Array, state: State, averaged: bool = True
    ) -> tuple[Array, dict[str, Any]]:
        """Return the cross-entropy of logits with labels (N,), its mean or per sample, and a dictionary of the rest.

        X is a tuple of inputs (N, ...); `state` holds how to apply the model, batch statistics, and the masks' key.
        """
        Y_hat, changed = outputs(params, X, state)
        losses = optax.softmax_cross_entropy_with_integer_labels(Y_hat.reshape(-1, Y_hat.shape[-1]), Y.reshape(-1))
        if self.class_weights is not None:
            losses = self.weighted(losses, Y.reshape(-1), averaged)
        return (losses.mean() if averaged else losses), {"logits": Y_hat, **changed}

    @of_outputs_or_state
    def accuracy(self, Y_hat: Array, Y: Array, averaged: bool = True) -> Array:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        hits = (Y_hat.reshape(-1, Y_hat.shape[-1]).argmax(axis=1) == Y.reshape(-1)).astype(jnp.float32)
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> optax.GradientTransformation:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return optimizer_for(self)


class Regressor(Module, BaseRegressor):
    """Base of regression models: half the squared error, and an optimiser as classifiers have it."""

    configure_optimizers = Classifier.configure_optimizers

    def loss(  # type: ignore[override]
        self, params: Any, X: tuple[Array, ...], Y: Array, state: State, averaged: bool = True
    ) -> tuple[Array, dict[str, Any]]:
        """Return (outputs - Y)^2 / 2, its mean, or the mean over outputs per sample, and a dictionary of the rest."""
        Y_hat, changed = outputs(params, X, state)
        losses = ((Y_hat - Y.reshape(Y_hat.shape)) ** 2 / 2).mean(axis=1)
        return (losses.mean() if averaged else losses), changed


class SGD(HyperParameters):
    """Stochastic gradient descent by hand, in the form of Optax, which adds to each parameter what `update` returns."""

    def __init__(self, lr: float):
        self.save_hyperparameters()

    def init(self, params: Any) -> Any:
        """Return the optimiser's memory: nothing."""
        return optax.EmptyState()

    def update(self, grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """Return the change of each parameter, minus `lr` times its gradient, and the memory."""
        return jax.tree.map(lambda grad: -self.lr * grad, grads), state


class SoftmaxRegression(Options, Classifier):  # type: ignore[misc]
    """The linear baseline: one affine layer."""

    num_outputs: int
    lr: float
    host_init = True

    @nn.compact
    def __call__(self, X: Array) -> Array:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        return nn.Dense(self.num_outputs)(X.reshape(X.shape[0], -1))


class DropoutMLPScratch(FlaxMLP, Classifier):  # type: ignore[misc]
    """Hidden layers, with `dropout_layer` after each activation while training.

    Parameters are those of `FlaxMLP`: the chapter's for two layers, or `num_hiddens, dropouts` for any number.
    """

    def setup(self) -> None:
        """Name the layers `lin1`, `lin2`, ...; Flax calls it."""
        for k, width in enumerate((*self.hidden_widths, self.num_outputs), start=1):
            setattr(self, f"lin{k}", nn.Dense(width))

    def forward(self, X: Array) -> Array:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H = X.reshape(X.shape[0], -1)
        for layer, dropout in self.hidden_layers:
            H = nn.relu(layer(H))
            if self.training:
                H = dropout_layer(H, dropout)
        return self.output_layer(H)


class DropoutMLP(FlaxMLP, Classifier):  # type: ignore[misc]
    """The same network from Flax's own layers; parameters as in `DropoutMLPScratch`."""

    @nn.compact
    def __call__(self, X: Array) -> Array:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        X = X.reshape(X.shape[0], -1)
        for width, dropout in zip(self.hidden_widths, self.hidden_dropouts, strict=True):
            X = nn.relu(nn.Dense(width)(X))
            X = nn.Dropout(dropout, deterministic=not self.training)(X)
        return nn.Dense(self.num_outputs)(X)


class DropoutMLPRegressor(FlaxMLP, Regressor):
    """The network of `DropoutMLP`, with `num_outputs` real numbers per sample to learn, and the squared loss."""

    __call__ = DropoutMLP.__call__

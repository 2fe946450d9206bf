"""The chapter in TensorFlow."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from d2ldrop.hyperparameters import HyperParameters
from d2ldrop.randomness import odds
from d2ldrop.tf.keras_model import Model
from d2ldrop.tf.masks import draw_mask, masked, real_floats
from d2ldrop.tf.optimizers import optimizer_for, saved_by_keras
from d2ldrop.training.module import BaseClassifier, BaseMLP, BaseModule, BaseRegressor, by_weights

# Dropout


@tf.autograph.experimental.do_not_convert
def dropout_layer(X: tf.Tensor, dropout: float, *, axes: Iterable[int] = ()) -> tf.Tensor:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for tensors.

    Parameters
    ----------
    X
        Any shape, dtype and device, a RaggedTensor too; integers are promoted to float32.
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    axes
        Axes along which all elements share one draw, such as (1, 2) to drop whole channels of images (N, H, W, C).

    Returns
    -------
    tf.Tensor
        Same shape, dtype and device as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is no tensor of real numbers, `dropout` is not a real number in [0, 1], or `X` has no such axes.
    """
    X, p = real_floats(X), odds(dropout)
    if p.threshold == 0:
        return X
    mask = draw_mask(X, p, axes)  # true with probability 1 - p
    return masked(X, mask, p.scale)  # X / (1 - p) where it is true, else 0


# Models


class Module(BaseModule, Model):
    """Base of models: a `tf.keras.Model` that a trainer can train.

    Subclasses define `loss(y_hat, y)`, `configure_optimizers()`, and `forward(X)` or a network `self.net`.
    """

    backend_name = "tf"
    __reduce__ = by_weights

    def forward(self, X: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def apply_init(self, inputs: tuple[tf.Tensor, ...], init: Any = None) -> None:
        """Create variables with the shapes that `inputs` need, then apply the function `init` to each layer."""
        self(*inputs)
        if init is not None:
            for layer in self._flatten_layers(include_self=False):
                init(layer)


class Classifier(Module, BaseClassifier):
    """Base of classification models: cross-entropy, accuracy, and an optimiser, SGD if no other is asked for."""

    def loss(self, Y_hat: tf.Tensor, Y: tf.Tensor, averaged: bool = True) -> tf.Tensor:
        """Return the cross-entropy of logits (N, K) with labels (N,): its mean, or per sample if not `averaged`."""
        Y_hat, Y = tf.reshape(Y_hat, (-1, Y_hat.shape[-1])), tf.reshape(Y, (-1,))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(Y, Y_hat)
        if self.class_weights is not None:
            return self.weighted(losses, Y, averaged)
        return tf.reduce_mean(losses) if averaged else losses

    def accuracy(self, Y_hat: tf.Tensor, Y: tf.Tensor, averaged: bool = True) -> tf.Tensor:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        guesses = tf.argmax(tf.reshape(Y_hat, (-1, Y_hat.shape[-1])), axis=1)
        hits = tf.cast(guesses == tf.cast(tf.reshape(Y, (-1,)), guesses.dtype), tf.float32)
        return tf.reduce_mean(hits) if averaged else hits

    def configure_optimizers(self) -> Any:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return optimizer_for(self)


class Regressor(Module, BaseRegressor):
    """Base of regression models: half the squared error, and an optimiser as classifiers have it."""

    configure_optimizers = Classifier.configure_optimizers

    def loss(self, Y_hat: tf.Tensor, Y: tf.Tensor, averaged: bool = True) -> tf.Tensor:
        """Return (Y_hat - Y)^2 / 2 for outputs (N, K): its mean, or the mean over outputs per sample."""
        losses = tf.reduce_mean((Y_hat - tf.reshape(Y, tf.shape(Y_hat))) ** 2 / 2, axis=1)
        return tf.reduce_mean(losses) if averaged else losses


class SGD(HyperParameters):
    """Stochastic gradient descent by hand: each parameter minus `lr` times its gradient."""

    def __init__(self, lr: float):
        self.save_hyperparameters()

    def apply_gradients(self, grads_and_vars: Any) -> None:
        """Change the parameters in place."""
        for grad, param in grads_and_vars:
            param.assign_sub(self.lr * tf.convert_to_tensor(grad))


@saved_by_keras
class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float, **options: Any):
        super().__init__()
        self.save_hyperparameters(check=True)
        self.net = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(self.num_outputs)])


@saved_by_keras
class DropoutMLPScratch(BaseMLP, Classifier):
    """Hidden layers, with `dropout_layer` after each activation while training.

    Parameters are those of `BaseMLP`: the chapter's for two layers, or `num_hiddens, dropouts` for any number.
    """

    def setup(self) -> None:
        """Name the layers `lin1`, `lin2`, ...; the constructor calls it."""
        self.flatten = tf.keras.layers.Flatten()
        for k, width in enumerate(self.hidden_widths, start=1):
            setattr(self, f"lin{k}", tf.keras.layers.Dense(width, activation="relu"))
        setattr(self, f"lin{len(self.hidden_widths) + 1}", tf.keras.layers.Dense(self.num_outputs))

    def forward(self, X: tf.Tensor) -> tf.Tensor:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H = self.flatten(X)  # the number of samples may be unknown
        for layer, dropout in self.hidden_layers:
            H = layer(H)
            if self.training:
                H = dropout_layer(H, dropout)
        return self.output_layer(H)


@saved_by_keras
class DropoutMLP(BaseMLP, Classifier):
    """The same network from Keras' own layers; parameters as in `DropoutMLPScratch`."""

    def setup(self) -> None:
        """Put the layers together; the constructor calls it."""
        layers = [tf.keras.layers.Flatten()]
        for width, dropout in zip(self.hidden_widths, self.hidden_dropouts, strict=True):
            layers += [tf.keras.layers.Dense(width, activation="relu"), tf.keras.layers.Dropout(dropout)]
        self.net = tf.keras.Sequential([*layers, tf.keras.layers.Dense(self.num_outputs)])


@saved_by_keras
class DropoutMLPRegressor(BaseMLP, Regressor):
    """The network of `DropoutMLP`, with `num_outputs` real numbers per sample to learn, and the squared loss."""

    setup = DropoutMLP.setup

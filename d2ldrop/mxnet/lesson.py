"""The chapter in MXNet: dropout by hand, the base classes of models, and the chapter's models."""

from collections.abc import Iterable
from typing import Any

from mxnet import autograd, np, npx
from mxnet.gluon import nn

from d2ldrop.hyperparameters import HyperParameters
from d2ldrop.mxnet.layers import GluonDropout, not_hybridized
from d2ldrop.mxnet.masks import draw_mask, masked, real_floats
from d2ldrop.mxnet.optimizers import optimizer_for
from d2ldrop.mxnet.plain import get_scratch_params, parameters, set_scratch_params_device
from d2ldrop.randomness import odds
from d2ldrop.training.module import BaseClassifier, BaseMLP, BaseModule, BaseRegressor, by_weights

# Dropout


def dropout_layer(X: np.ndarray, dropout: float, *, axes: Iterable[int] = ()) -> np.ndarray:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for MXNet's arrays. In a hybridized block it becomes part of the graph, and
    draws a new mask each time the graph runs. Masks come from MXNet's generator of the array's device, but for arrays
    on a CPU from NumPy's SFC64. `d2ldrop.mxnet.seed` seeds both, `mx.random.seed` only MXNet's own: to ask that one
    for a word in each call would stop the queue of its engine.

    Parameters
    ----------
    X
        Any shape, dtype and device; integers are promoted to float32, MXNet's default.
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    axes
        Axes along which all elements share one draw, such as (2, 3) to drop whole channels of images (N, C, H, W).

    Returns
    -------
    mxnet.np.ndarray
        Same shape, dtype and device as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is no array of MXNet, `dropout` is not a real number in [0, 1], or `X` has no such axes. (In a graph,
        where shapes are not known yet, MXNet says the last.)
    """
    X, p = real_floats(X), odds(dropout)
    if p.threshold == 0:
        return X
    mask = draw_mask(X, p, axes)  # true with probability 1 - p
    return masked(X, mask, p.scale)  # X / (1 - p) where it is true, else 0


# Models


class Module(BaseModule, nn.Block):
    """Base of models: a gluon `Block` that a trainer can train.

    Subclasses define `loss(y_hat, y)`, `configure_optimizers()`, and `forward(X)` or a network `self.net`. They may
    call `initialize()` with an initialiser of their choice; otherwise the trainer does so with the default one. What
    is trained are the parameters of gluon's layers, and arrays among the attributes that have `attach_grad()`.
    """

    backend_name = "mxnet"
    __reduce__ = by_weights
    parameters, get_scratch_params = parameters, get_scratch_params
    set_scratch_params_device = set_scratch_params_device

    def __init__(self, **kwargs: Any):
        npx.set_np()  # it holds for a thread, and this may be another one than at import
        super().__init__(**kwargs)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def summary(self, *inputs: np.ndarray) -> None:
        """Print the layers with the shapes of their outputs, as gluon does for what is not hybridized."""
        with not_hybridized(self):
            self(*inputs)  # creates parameters that are missing, for which gluon runs layers more than once
            super().summary(*inputs)

    def apply_init(self, inputs: tuple[np.ndarray, ...], init: Any = None) -> None:
        """Create parameters with the shapes that `inputs` need, then apply the function `init` to each layer."""
        self.backend.build(self, inputs, inputs[0].ctx)
        if init is not None:
            self.apply(init)


class Classifier(Module, BaseClassifier):
    """Base of classification models: cross-entropy, accuracy, and an optimiser, SGD if no other is asked for."""

    def loss(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> np.ndarray:
        """Return the cross-entropy of logits (N, K) with labels (N,): its mean, or per sample if not `averaged`."""
        Y_hat, Y = Y_hat.reshape(-1, Y_hat.shape[-1]), Y.reshape(-1)
        losses = -npx.pick(npx.log_softmax(Y_hat, axis=-1), Y, axis=-1)
        if self.class_weights is not None:
            return self.weighted(losses, Y, averaged)
        return losses.mean() if averaged else losses

    def accuracy(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> np.ndarray:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        preds = Y_hat.reshape(-1, Y_hat.shape[-1]).argmax(axis=-1).astype(Y.dtype)
        hits = (preds == Y.reshape(-1)).astype("float32")
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> Any:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return optimizer_for(self)


class Regressor(Module, BaseRegressor):
    """Base of regression models: half the squared error, and an optimiser as classifiers have it."""

    configure_optimizers = Classifier.configure_optimizers

    def loss(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> np.ndarray:
        """Return (Y_hat - Y)^2 / 2 for outputs (N, K): its mean, or the mean over outputs per sample."""
        losses = ((Y_hat - Y.reshape(Y_hat.shape)) ** 2 / 2).mean(axis=1)
        return losses.mean() if averaged else losses


class SGD(HyperParameters):
    """Stochastic gradient descent by hand: each parameter, of gluon or a plain array, minus `lr` times its gradient."""

    def __init__(self, params: Any, lr: float):
        self.save_hyperparameters()
        listed = params.values() if hasattr(params, "values") else params
        self.params = [param if isinstance(param, np.ndarray) else param.data() for param in listed]

    def step(self, batch_size: int = 1) -> None:
        """Change the parameters in place; `batch_size`, by which gluon's Trainer divides, has no effect on a mean."""
        for param in self.params:
            param -= self.lr * param.grad


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float, **options: Any):
        super().__init__()
        self.save_hyperparameters(check=True)
        self.net = nn.HybridSequential()
        self.net.add(nn.Dense(num_outputs))  # which flattens its input
        self.net.initialize()
        self.net.hybridize()


class DropoutMLPScratch(BaseMLP, Classifier):
    """Hidden layers, with `dropout_layer` after each activation while training.

    Parameters are those of `BaseMLP`: the chapter's for two layers, or `num_hiddens, dropouts` for any number.
    """

    def setup(self) -> None:
        """Name the layers `lin1`, `lin2`, ...; the constructor calls it."""
        for k, width in enumerate(self.hidden_widths, start=1):
            setattr(self, f"lin{k}", nn.Dense(width, activation="relu"))
        setattr(self, f"lin{len(self.hidden_widths) + 1}", nn.Dense(self.num_outputs))
        self.initialize()

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H = X
        for layer, dropout in self.hidden_layers:
            H = layer(H)
            if autograd.is_training():
                H = dropout_layer(H, dropout)
        return self.output_layer(H)


class DropoutMLP(BaseMLP, Classifier):
    """The same network from gluon's own layers, compiled to a graph; parameters as in `DropoutMLPScratch`."""

    def setup(self) -> None:
        """Put the layers together; the constructor calls it."""
        self.net = nn.HybridSequential()
        for width, dropout in zip(self.hidden_widths, self.hidden_dropouts, strict=True):
            self.net.add(nn.Dense(width, activation="relu"), GluonDropout(dropout))
        self.net.add(nn.Dense(self.num_outputs))
        self.net.initialize()
        self.net.hybridize()


class DropoutMLPRegressor(BaseMLP, Regressor):
    """The network of `DropoutMLP`, with `num_outputs` real numbers per sample to learn, and the squared loss."""

    setup = DropoutMLP.setup

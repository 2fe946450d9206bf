"""The chapter in MXNet: dropout by hand, the base classes of models, and the chapter's models."""

from collections.abc import Iterable
from typing import Any

from mxnet import autograd, np, npx
from mxnet.gluon import nn

from d2ldrop.hyperparameters import HyperParameters
from d2ldrop.mxnet.layers import GluonDropout, not_hybridized
from d2ldrop.mxnet.masks import draw_mask, masked, real_floats
from d2ldrop.mxnet.optimizers import optimizer_for
from d2ldrop.randomness import odds
from d2ldrop.training.module import BaseClassifier, BaseModule, by_weights

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
    call `initialize()` with an initialiser of their choice; otherwise the trainer does so with the default one.
    """

    backend_name = "mxnet"
    __reduce__ = by_weights
    parameters = nn.Block.collect_params

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
        log_probs = npx.log_softmax(Y_hat.reshape(-1, Y_hat.shape[-1]), axis=-1)
        losses = -npx.pick(log_probs, Y.reshape(-1), axis=-1)
        return losses.mean() if averaged else losses

    def accuracy(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> np.ndarray:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        preds = Y_hat.reshape(-1, Y_hat.shape[-1]).argmax(axis=-1).astype(Y.dtype)
        hits = (preds == Y.reshape(-1)).astype("float32")
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> Any:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return optimizer_for(self)


class SGD(HyperParameters):
    """Stochastic gradient descent by hand: each parameter minus `lr` times its gradient."""

    def __init__(self, params: Any, lr: float):
        self.save_hyperparameters()
        self.params = [param.data() for param in params.values()] if hasattr(params, "values") else list(params)

    def step(self, batch_size: int = 1) -> None:
        """Change the parameters in place; `batch_size`, by which gluon's Trainer divides, has no effect on a mean."""
        for param in self.params:
            param -= self.lr * param.grad


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float):
        super().__init__()
        self.save_hyperparameters(check=True)
        self.net = nn.HybridSequential()
        self.net.add(nn.Dense(num_outputs))  # which flattens its input
        self.net.initialize()
        self.net.hybridize()


class DropoutMLPScratch(Classifier):
    """Two hidden layers, with `dropout_layer` after each activation while training.

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
        super().__init__()
        self.save_hyperparameters(check=True)
        self.lin1 = nn.Dense(num_hiddens_1, activation="relu")
        self.lin2 = nn.Dense(num_hiddens_2, activation="relu")
        self.lin3 = nn.Dense(num_outputs)
        self.initialize()

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H1 = self.lin1(X)
        if autograd.is_training():
            H1 = dropout_layer(H1, self.dropout_1)
        H2 = self.lin2(H1)
        if autograd.is_training():
            H2 = dropout_layer(H2, self.dropout_2)
        return self.lin3(H2)


class DropoutMLP(Classifier):
    """The same network from gluon's own layers, compiled to a graph; parameters as in `DropoutMLPScratch`."""

    host_init = True

    def __init__(
        self, num_outputs: int, num_hiddens_1: int, num_hiddens_2: int, dropout_1: float, dropout_2: float, lr: float
    ):
        super().__init__()
        self.save_hyperparameters(check=True)
        self.net = nn.HybridSequential()
        self.net.add(
            nn.Dense(num_hiddens_1, activation="relu"), GluonDropout(dropout_1),
            nn.Dense(num_hiddens_2, activation="relu"), GluonDropout(dropout_2),
            nn.Dense(num_outputs),
        )  # fmt: skip
        self.net.initialize()
        self.net.hybridize()

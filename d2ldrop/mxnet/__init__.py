"""The chapter in MXNet, in its NumPy-like dialect: `from d2ldrop import mxnet as d2l`."""

import sys
import warnings
from typing import Any
from unittest.mock import patch

import numpy as onp  # noqa: ICN001 - here, as in the book, `np` is MXNet's

from d2ldrop import data as _data
from d2ldrop.backend import device_choice
from d2ldrop.board import ProgressBoard
from d2ldrop.classic import (
    Accumulator,
    Animator,
    Timer,
    accuracy,
    evaluate_accuracy,
    evaluate_loss,
    get_fashion_mnist_labels,
    loading,
    predict_ch3,
    train_ch3,
    train_epoch_ch3,
)
from d2ldrop.errors import ArgumentTypeError, UsageError
from d2ldrop.figures import draw_network, show_confusion, show_mistakes
from d2ldrop.hyperparameters import HyperParameters, add_to_class
from d2ldrop.module import BaseClassifier, BaseModule
from d2ldrop.pictures import plot, plt, set_figsize, show_images, use_svg_display
from d2ldrop.randomness import lanes, odds, shared_generator
from d2ldrop.trainer import Trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # at what has become old since MXNet 1.9.1, its last release
    with patch.object(onp, "bool", bool, create=True):  # MXNet asks for it while it is imported; NumPy 1.24 removed it
        import mxnet as mx
        from mxnet import autograd, gluon, np, npx
        from mxnet.gluon import nn

from d2ldrop.mxnet.classic import learn, outputs, sgd, total_loss

# In this thread, from now on, arrays may have shape () or no elements, and gluon's layers make and take `np` arrays. It
# changes how all MXNet code in the thread behaves, and is what the book's readers call at the top of their notebooks.
npx.set_np()

name = "mxnet"
channels_last = False

# Devices


def cpu() -> mx.Context:
    """Return the CPU."""
    return mx.cpu()


def gpu(i: int = 0) -> mx.Context:
    """Return the GPU number `i`, without looking whether it is there."""
    return mx.gpu(i)


def num_gpus() -> int:
    """Count the GPUs that MXNet can use."""
    return mx.context.num_gpus()


try_gpu, try_all_gpus = device_choice(cpu, gpu, num_gpus)

# Arrays: the words in which the book's shared cells are written

float32, float64, int32, int64 = np.float32, np.float64, np.int32, np.int64
arange, linspace, meshgrid, tensor = np.arange, np.linspace, np.meshgrid, np.array
zeros, ones, eye, zeros_like, ones_like = np.zeros, np.ones, np.eye, np.zeros_like, np.ones_like
rand, randn, normal = np.random.rand, np.random.randn, np.random.normal
exp, log, abs, sin, cos, sinh, cosh, tanh = np.exp, np.log, np.abs, np.sin, np.cos, np.sinh, np.cosh, np.tanh
matmul, batch_matmul, concat, stack, sigmoid = np.matmul, npx.batch_dot, np.concatenate, np.stack, npx.sigmoid
reshape, transpose, expand_dims, repeat = np.reshape, np.transpose, np.expand_dims, np.repeat
reduce_sum, reduce_mean, argmax = np.sum, np.mean, np.argmax
numpy, to, astype = np.ndarray.asnumpy, np.ndarray.as_in_ctx, np.ndarray.astype

_WIDER = {"int16": "int32", "uint16": "int32", "uint32": "int64", "uint64": "int64", "float128": "float64"}


def is_array(X: Any) -> bool:
    """Tell whether `X` is an array of MXNet, or a symbol that stands for one while a block is hybridized."""
    return isinstance(X, (mx.nd.NDArray, mx.sym.Symbol))


def array(X: Any, device: mx.Context | None = None) -> np.ndarray:
    """Bring an array of the host, or of MXNet, to the device; integers of a width that MXNet lacks become wider."""
    if isinstance(X, mx.nd.NDArray):
        return X.as_np_ndarray().as_in_ctx(device or X.ctx)
    X = onp.asarray(X)
    if X.dtype.kind not in "fiub":
        raise ArgumentTypeError(f"Expected X to hold real numbers. Received: {X.dtype}")
    return np.array(X, dtype=_WIDER.get(X.dtype.name, X.dtype.name), ctx=device)


def size(X: np.ndarray) -> int:
    """Count the elements."""
    return X.size


# Dropout


_rng = onp.random.Generator(onp.random.SFC64())


def seed(seed: int) -> None:
    """Start MXNet's generators afresh, on all devices, and that of the masks on a CPU."""
    mx.random.seed(seed)
    _rng.bit_generator.state = onp.random.SFC64(seed).state


def dropout_layer(X: np.ndarray, dropout: float) -> np.ndarray:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for MXNet's arrays. In a hybridized block it becomes part of the graph, and
    draws anew each time the graph runs. Randomness comes from MXNet's generator of the array's device, but on a CPU,
    outside of a graph, from NumPy's SFC64: `seed` starts both.

    Parameters
    ----------
    X
        Any shape, dtype and device; integers are promoted to float32, MXNet's default.
    dropout
        The probability p of dropping an element, a real number in [0, 1].

    Returns
    -------
    mxnet.np.ndarray
        Same shape, dtype and device as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not an array of MXNet, or `dropout` is not a real number in [0, 1].
    """
    threshold, scale, bits = odds(dropout)
    if not is_array(X):
        raise ArgumentTypeError(f"Expected X to be an array of MXNet. Received: {X!r}")
    F = mx.sym if isinstance(X, mx.sym.Symbol) else mx.nd
    if F is mx.nd and onp.dtype(X.dtype).kind != "f":
        X = X.astype("float32")
    if threshold == 0:
        return X
    H = X.as_nd_ndarray()  # `mx.nd` is MXNet's older dialect, with the fastest words for all this
    with autograd.pause():
        S = random_factors(F, H, threshold, scale, bits)
    Y = H * S
    # `where` takes as long as all the rest if its condition is as random as a mask, so the mask is a product. It makes
    # nan of a dropped inf or nan; only there is 1 > S, as S is 0. That is rare: a `where` for it is fast.
    with autograd.pause():
        undefined = Y != Y
        if F is mx.nd:  # mended in place, it is left out of the gradient, which is dY * S; and new memory takes time
            F.broadcast_greater(undefined, S, out=undefined)
            F.where(undefined, S, Y, out=Y)
    if F is mx.sym:
        Y = F.where(undefined > S, S, Y)
    return Y if type(X) in (mx.nd.NDArray, mx.sym.Symbol) else Y.as_np_ndarray()


def random_factors(F: Any, X: Any, threshold: int, scale: float, bits: int) -> Any:
    """Draw 0 or `scale` for each element of X; F is `mx.nd`, or `mx.sym` while a graph is made.

    On a CPU, NumPy draws the lanes, five times as fast as MXNet, while MXNet's engine is busy with what came before. In
    a graph, and on a GPU, a lane is a float32 from [0, 1].
    """
    rng = shared_generator()
    if F is mx.sym and rng is not None:
        raise UsageError("Expected a model that is not hybridized, where masks are shared. It is hybridized.")
    if F is mx.nd and (rng is not None or X.ctx == cpu()):
        factor = X.dtype(min(scale, float(onp.finfo(X.dtype).max)))  # float16 ends before 65536
        keep = lanes(X.shape, rng or _rng, bits) >= threshold
        factors = onp.multiply(keep, factor, out=onp.empty(X.shape, X.dtype))
        return mx.nd.from_numpy(factors).as_in_context(X.ctx)
    half = F is mx.nd and X.dtype == onp.float16  # too coarse to draw in
    S = (F.random.uniform_like(X.astype("float32") if half else X) >= threshold / 2**bits) * scale
    return S.astype("float16") if half else S


# Data


class DataModule(_data.DataModule):
    """Base of data sets whose batches are MXNet's arrays, with int32 for labels."""

    backend_name = name
    label_dtype = onp.int32
    stores_bytes = False  # to make floats of a batch of bytes would take MXNet a tenth of a step


class ArrayData(DataModule, _data.ArrayData):
    """Your own arrays as a data set whose batches are MXNet's."""


class Digits(DataModule, _data.Digits):
    """scikit-learn's digits, with batches of arrays (N, 1, 8, 8)."""


class FashionMNIST(DataModule, _data.FashionMNIST):
    """Fashion-MNIST, with batches of arrays (N, 1, H, W)."""


load_data_fashion_mnist = loading(FashionMNIST)

# Models


class Module(BaseModule, nn.Block):
    """Base of models: a gluon `Block` that a trainer can train.

    Subclasses define `loss(y_hat, y)`, `configure_optimizers()`, and `forward(X)` or a network `self.net`. Whoever
    calls `initialize()` chooses how parameters start; otherwise the trainer does.
    """

    backend = sys.modules[__name__]
    parameters = nn.Block.collect_params

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def apply_init(self, inputs: tuple[np.ndarray, ...], init: Any = None) -> None:
        """Create parameters with the shapes that `inputs` need, then apply the function `init` to each layer."""
        build(self, inputs, inputs[0].ctx)
        if init is not None:
            self.apply(init)


class Classifier(Module, BaseClassifier):
    """Base of models that tell classes apart: cross-entropy, accuracy, and SGD with `self.lr`."""

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

    def configure_optimizers(self) -> gluon.Trainer:
        """Return stochastic gradient descent with the learning rate `self.lr`."""
        optimizer = mx.optimizer.SGD(learning_rate=self.lr)
        optimizer.aggregate_num = 1  # on a CPU, four parameters at once take twice as long as one by one
        return gluon.Trainer(self.parameters(), optimizer)

    def layer_summary(self, X_shape: tuple[int, ...]) -> None:
        """Print the shape of each layer's output for random inputs of a shape."""
        X = np.random.randn(*X_shape)
        for layer in self.net:
            X = layer(X)
            print(f"{layer.__class__.__name__:<12} output shape: {X.shape}")


class SGD(HyperParameters):
    """Stochastic gradient descent by hand: each parameter minus `lr` times its gradient."""

    def __init__(self, params: Any, lr: float):
        self.save_hyperparameters()
        self.params = [param.data() for param in params.values()] if hasattr(params, "values") else list(params)

    def step(self, batch_size: int = 1) -> None:
        """Change the parameters in place; `batch_size`, by which gluon's Trainer divides, has no effect on a mean."""
        for param in self.params:
            param -= self.lr * param.grad


class Dropout(nn.Dropout):
    """gluon's layer, which makes nan of everything at p = 1, where it scales by 1 / 0: here it becomes zero."""

    def hybrid_forward(self, F: Any, X: Any) -> Any:
        """Return what MXNet's own dropout makes of X; F is `mx.nd`, or `mx.sym` while a graph is made."""
        if odds(self._rate).scale > 0:
            return super().hybrid_forward(F, X)
        trains = F.npx.dropout(F.np.ones_like(X), p=0.5) != 1  # 0 or 2 in training, 1 otherwise: a graph cannot ask
        return F.np.where(trains, F.np.zeros_like(X), X)


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.HybridSequential()
        self.net.add(nn.Dense(num_outputs))  # which flattens its input by itself
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
        self.save_hyperparameters()
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
        self.save_hyperparameters()
        self.net = nn.HybridSequential()
        self.net.add(
            nn.Dense(num_hiddens_1, activation="relu"), Dropout(dropout_1),
            nn.Dense(num_hiddens_2, activation="relu"), Dropout(dropout_2),
            nn.Dense(num_outputs),
        )  # fmt: skip
        self.net.initialize()
        self.net.hybridize()


# Training, and weights in files: the seam's other half is in a room of its own

from d2ldrop.mxnet.training import (
    State,
    build,
    clip_gradients,
    eval_step,
    get_weights,
    init_state,
    predict,
    set_weights,
    train_epoch,
    train_step,
)

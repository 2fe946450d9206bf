"""The chapter by hand in NumPy: `from d2ldrop import numpy as d2l`.

Forward and backward are written out, without automatic differentiation. It is the reference that every other adapter
is tested against.
"""

import sys
from typing import Any

import numpy as np

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
from d2ldrop.errors import ArgumentTypeError
from d2ldrop.figures import draw_network, show_confusion, show_mistakes
from d2ldrop.hyperparameters import HyperParameters, add_to_class
from d2ldrop.module import BaseClassifier, BaseModule
from d2ldrop.pictures import plot, plt, set_figsize, show_images, use_svg_display
from d2ldrop.randomness import lanes, odds, shared_generator
from d2ldrop.trainer import Trainer

name = "numpy"
channels_last = False

# Devices


def cpu() -> str:
    """Return the CPU."""
    return "cpu"


def gpu(i: int = 0) -> str:
    """Return a name for the GPU number `i`, none of which NumPy can use."""
    return f"gpu:{i}"


def num_gpus() -> int:
    """Count the GPUs that NumPy can use: none."""
    return 0


try_gpu, try_all_gpus = device_choice(cpu, gpu, num_gpus)

# Arrays: the words in which the book's shared cells are written

float32, float64, int32, int64 = np.float32, np.float64, np.int32, np.int64
arange, linspace, meshgrid, tensor = np.arange, np.linspace, np.meshgrid, np.array
zeros, ones, eye, zeros_like, ones_like = np.zeros, np.ones, np.eye, np.zeros_like, np.ones_like
exp, log, abs, sin, cos, sinh, cosh, tanh = np.exp, np.log, np.abs, np.sin, np.cos, np.sinh, np.cosh, np.tanh
matmul, batch_matmul, concat, stack = np.matmul, np.matmul, np.concatenate, np.stack
reshape, transpose, expand_dims, repeat = np.reshape, np.transpose, np.expand_dims, np.repeat
reduce_sum, reduce_mean, argmax, size = np.sum, np.mean, np.argmax, np.size


def is_array(X: Any) -> bool:
    """Tell whether `X` is an array or a scalar of NumPy."""
    return isinstance(X, (np.ndarray, np.generic))


def array(X: Any, device: str | None = None) -> np.ndarray:
    """Return `X` as an array: there is only one device."""
    return np.asarray(X)


def numpy(X: Any) -> np.ndarray:
    """Return `X` as an array."""
    return np.asarray(X)


def to(X: np.ndarray, device: str) -> np.ndarray:
    """Return `X`: there is only one device."""
    return X


def astype(X: np.ndarray, dtype: Any) -> np.ndarray:
    """Convert the elements to another type."""
    return X.astype(dtype)


def rand(*shape: int) -> np.ndarray:
    """Draw float32 uniformly from [0, 1)."""
    return _rng.random(shape, dtype=np.float32)


def randn(*shape: int) -> np.ndarray:
    """Draw float32 from the standard normal distribution."""
    return _rng.standard_normal(shape, dtype=np.float32)


def normal(mean: float, std: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 from a normal distribution."""
    return _rng.normal(mean, std, shape).astype(np.float32)


# Dropout

_rng = np.random.Generator(np.random.SFC64())


def seed(seed: int) -> None:
    """Start this module's generator afresh."""
    _rng.bit_generator.state = np.random.SFC64(seed).state


def dropout_layer(X: np.ndarray, dropout: float) -> np.ndarray:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for NumPy's arrays.

    Parameters
    ----------
    X
        Any shape and dtype; integers are promoted to float64, NumPy's default.
    dropout
        The probability p of dropping an element, a real number in [0, 1].

    Returns
    -------
    numpy.ndarray
        Same shape and dtype as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not real, or `dropout` is not a real number in [0, 1].

    Examples
    --------
    >>> X = np.arange(6.0).reshape(2, 3)
    >>> dropout_layer(X, 0) is X
    True
    >>> dropout_layer(X, 1)
    array([[0., 0., 0.],
           [0., 0., 0.]])
    """
    X = np.asarray(X)
    if X.dtype.kind in "iub":
        X = X.astype(np.float64)
    if X.dtype not in (np.float16, np.float32, np.float64):
        raise ArgumentTypeError(f"Expected X to hold real numbers of at most 64 bits. Received: {X.dtype}")
    if odds(dropout).threshold == 0:
        return X
    return masked(X, *dropout_mask(X.shape, dropout))


def dropout_mask(shape: tuple[int, ...], dropout: float) -> tuple[np.ndarray, float]:
    """Draw which elements stay, and return with it the factor by which these are scaled."""
    threshold, scale, bits = odds(dropout)
    if threshold == 0:
        return np.ones(shape, bool), scale
    return lanes(shape, shared_generator() or _rng, bits) >= threshold, scale


def masked(X: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
    """Scale what stays, and put 0 elsewhere. It is its own backward pass: the gradient is the same mask, scaled.

    A product with the mask would make nan of a dropped inf, and `np.where` takes ten times as long. So the mask is laid
    over the bits of the numbers: all ones (the integer -1) leave a number as it is, all zeros make it 0.
    """
    bits = f"i{X.dtype.itemsize}"
    Y: np.ndarray = (-keep.view(np.int8)).astype(bits)
    Y &= X.view(bits)
    Y = Y.view(X.dtype)
    Y *= X.dtype.type(min(scale, float(np.finfo(X.dtype).max)))  # float16 ends before 65536
    return Y


# Data


class DataModule(_data.DataModule):
    """Base of data sets whose batches are NumPy's arrays."""

    backend_name = name


class ArrayData(DataModule, _data.ArrayData):
    """Your own arrays as a data set whose batches are NumPy's."""


class Digits(DataModule, _data.Digits):
    """scikit-learn's digits, with batches of arrays (N, 1, 8, 8)."""


class FashionMNIST(DataModule, _data.FashionMNIST):
    """Fashion-MNIST, with batches of arrays (N, 1, H, W)."""


load_data_fashion_mnist = loading(FashionMNIST)

# The mathematics, each function followed by its gradient, and the layers, are in a room of their own

from d2ldrop.numpy.layers import (
    Dropout,
    Flatten,
    Layer,
    Linear,
    ReLU,
    Sequential,
    affine,
    affine_backward,
    cross_entropy,
    cross_entropy_backward,
    relu,
    relu_backward,
    softmax,
)

# Models


class Module(BaseModule, Layer):
    """Base of models.

    Subclasses define `configure_optimizers()`, and `forward(X)` with `backward(dY)`, or a network `self.net`. A `loss`
    of your own leaves its gradient with respect to the outputs in `self.dloss`.
    """

    backend = sys.modules[__name__]

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def backward(self, dY: np.ndarray) -> np.ndarray | None:
        """Leave gradients in all layers, given that of the loss with respect to the outputs."""
        return self.net.backward(dY)

    def parameters(self) -> list[Linear]:
        """Return the layers that have parameters."""
        return [layer for layer in self.layers() if isinstance(layer, Linear)]

    def apply_init(self, inputs: tuple[np.ndarray, ...], init: Any = None) -> None:
        """Create parameters with the shapes that `inputs` need, then apply the function `init` to each layer."""
        self(*inputs)
        if init is not None:
            for layer in self.layers():
                init(layer)


class Classifier(Module, BaseClassifier):
    """Base of models that tell classes apart: cross-entropy, accuracy, and SGD with `self.lr`."""

    def loss(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> np.ndarray:
        """Return the cross-entropy of logits (N, K) with labels (N,): its mean, or per sample if not `averaged`."""
        if self.training:
            self.dloss = cross_entropy_backward(Y_hat, Y)
        losses = cross_entropy(Y_hat, Y)
        return losses.mean() if averaged else losses

    def accuracy(self, Y_hat: np.ndarray, Y: np.ndarray, averaged: bool = True) -> np.ndarray:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        hits = (Y_hat.argmax(axis=1) == Y).astype(np.float32)
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> "SGD":
        """Return stochastic gradient descent with the learning rate `self.lr`."""
        return SGD(self.parameters(), lr=self.lr)

    def layer_summary(self, X_shape: tuple[int, ...]) -> None:
        """Print the shape of each layer's output for random inputs of a shape."""
        X = randn(*X_shape)
        for layer in self.net.sequence:
            X = layer(X)
            print(f"{layer.__class__.__name__:<12} output shape: {X.shape}")


class SGD(HyperParameters):
    """Stochastic gradient descent: each parameter minus `lr` times its gradient."""

    def __init__(self, params: list[Linear], lr: float):
        self.save_hyperparameters()

    def step(self) -> None:
        """Change the parameters in place."""
        for layer in self.params:
            layer.W -= self.lr * layer.dW
            layer.b -= self.lr * layer.db

    def zero_grad(self) -> None:
        """Do nothing: each backward pass replaces the gradients."""


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float):
        self.save_hyperparameters()
        self.net = Sequential(Flatten(), Linear(num_outputs, first=True))


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
        self.save_hyperparameters()
        self.lin1, self.lin2, self.lin3 = Linear(num_hiddens_1, first=True), Linear(num_hiddens_2), Linear(num_outputs)

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

    def backward(self, dY: np.ndarray) -> np.ndarray | None:
        """Go back through the same steps, last one first."""
        dH2 = self.lin3.backward(dY)
        if self.training:
            dH2 = masked(dH2, *self.mask2)
        dH1 = self.lin2.backward(relu_backward(dH2, self.H2))
        if self.training:
            dH1 = masked(dH1, *self.mask1)
        return self.lin1.backward(relu_backward(dH1, self.H1))


class DropoutMLP(Classifier):
    """The same network from layers that know their own backward pass; parameters as in `DropoutMLPScratch`."""

    host_init = True

    def __init__(
        self, num_outputs: int, num_hiddens_1: int, num_hiddens_2: int, dropout_1: float, dropout_2: float, lr: float
    ):
        self.save_hyperparameters()
        self.net = Sequential(
            Flatten(),
            Linear(num_hiddens_1, first=True), ReLU(), Dropout(dropout_1),
            Linear(num_hiddens_2), ReLU(), Dropout(dropout_2),
            Linear(num_outputs),
        )  # fmt: skip


# The function edition, training, and weights in files: the seam's other half is in a room of its own

from d2ldrop.numpy.classic import CrossEntropyLoss, learn, outputs, sgd, total_loss
from d2ldrop.numpy.training import (
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

"""The chapter by hand in NumPy: `from d2ldrop import numpy as d2l`.

Forward and backward are written out, without automatic differentiation. It is the reference that every other adapter
is tested against.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2ldrop import data as _data
from d2ldrop.backend import Metrics
from d2ldrop.board import ProgressBoard
from d2ldrop.classic import Accumulator, Animator, Timer, accuracy, get_fashion_mnist_labels, loaders
from d2ldrop.errors import ArgumentTypeError
from d2ldrop.hyperparameters import HyperParameters, add_to_class
from d2ldrop.module import BaseClassifier, BaseModule, recording
from d2ldrop.pictures import plot, plt, set_figsize, show_images, use_svg_display
from d2ldrop.randomness import initial_weights, lanes, odds, shared_generator
from d2ldrop.trainer import Trainer
from d2ldrop.weights import checked

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


def try_gpu(i: int = 0) -> str:
    """Return the CPU, as there is no GPU that NumPy can use."""
    return cpu()


def try_all_gpus() -> list[str]:
    """Return the CPU, as there are no GPUs that NumPy can use."""
    return [cpu()]


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
    global _rng
    _rng = np.random.Generator(np.random.SFC64(seed))


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
    threshold, scale = odds(dropout)
    if threshold == 0:
        return np.ones(shape, bool), scale
    return lanes(shape, shared_generator() or _rng) >= threshold, scale


def masked(X: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
    """Scale what stays, and put 0 elsewhere. It is its own backward pass: the gradient is the same mask, scaled.

    A product with the mask would make nan of a dropped inf, and `np.where` takes ten times as long. So the mask is laid
    over the bits of the numbers: all ones (the integer -1) leave a number as it is, all zeros make it 0.
    """
    bits = f"i{X.dtype.itemsize}"
    kept: np.ndarray = (X.view(bits) & -keep.astype(bits)).view(X.dtype)
    return kept * X.dtype.type(min(scale, np.finfo(X.dtype).max))


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


def load_data_fashion_mnist(batch_size: int, resize: int | tuple[int, int] | None = None) -> tuple[Any, Any]:
    """Return batches of Fashion-MNIST to train on, reshuffled at each pass, and batches to test on."""
    return loaders(FashionMNIST(batch_size, resize or (28, 28)))


# The mathematics, each function followed by its gradient


def affine(X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return X W + b for X (N, inputs), W (inputs, outputs), b (outputs,)."""
    return X @ W + b


def affine_backward(dY: np.ndarray, X: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients with respect to X, W and b, given dY with respect to X W + b."""
    return dY @ W.T, X.T @ dY, dY.sum(axis=0)


def relu(X: np.ndarray) -> np.ndarray:
    """Return the positive part of each element."""
    return np.maximum(X, 0)


def relu_backward(dY: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return the gradient with respect to the input, given dY with respect to the output Y."""
    return dY * (Y > 0)


def softmax(Z: np.ndarray) -> np.ndarray:
    """Return probabilities (N, K) for logits (N, K); subtracting the largest keeps exp in range."""
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


def cross_entropy(Z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return -log softmax(Z) at the labels y (N,), per sample."""
    Z = Z - Z.max(axis=1, keepdims=True)
    return np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(len(y)), y]


def cross_entropy_backward(Z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the gradient of the mean cross-entropy with respect to the logits: (softmax - one-hot) / N."""
    dZ = softmax(Z)
    dZ[np.arange(len(y)), y] -= 1
    return dZ / len(y)


# Models


class Layer:
    """Base of layers: `forward` remembers what `backward` needs."""

    training = False

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the output for an input."""
        return self.forward(X)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the output for an input (N, ...)."""
        return X

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Return the gradient with respect to the input, given that with respect to the output."""
        return dY

    def layers(self) -> list["Layer"]:
        """Return the layers inside of this one, in order of definition."""
        inside = [value for value in vars(self).values() if isinstance(value, Layer)]
        return [layer for direct in inside for layer in (direct, *direct.layers())]

    def train(self, mode: bool = True) -> None:
        """Turn dropout on or off, here and in all layers inside."""
        for layer in (self, *self.layers()):
            layer.training = mode


class Linear(Layer):
    """An affine layer; its parameters W (inputs, outputs) and b (outputs,) are created at the first input."""

    W: np.ndarray | None = None

    def __init__(self, num_outputs: int):
        self.num_outputs = num_outputs

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return X W + b."""
        if self.W is None:
            stream = np.random.SeedSequence(int(_rng.integers(2**63)))
            shapes = {"weight": np.empty((self.num_outputs, X.shape[1])), "bias": np.empty(self.num_outputs)}
            drawn = initial_weights({f"lin.{kind}": shape for kind, shape in shapes.items()}, stream)
            self.W, self.b = np.ascontiguousarray(drawn["lin.weight"].T), drawn["lin.bias"]
        self.X = X
        return affine(X, self.W, self.b)

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Leave the gradients in dW and db, and return that with respect to the input."""
        dX, self.dW, self.db = affine_backward(dY, self.X, self.W)
        return dX


class Flatten(Layer):
    """Inputs (N, ...) as rows."""

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return X as (N, -1)."""
        self.shape = X.shape
        return X.reshape(len(X), -1)

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Return the gradient in the shape of the input."""
        return dY.reshape(self.shape)


class ReLU(Layer):
    """The positive part."""

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the positive part of each element."""
        self.Y = relu(X)
        return self.Y

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Let the gradient pass where the output is positive."""
        return relu_backward(dY, self.Y)


class Dropout(Layer):
    """`dropout_layer` while training, nothing otherwise."""

    def __init__(self, dropout: float):
        odds(dropout)
        self.dropout = dropout

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Draw a new mask, and apply it."""
        if not self.training:
            return X
        self.keep, self.scale = dropout_mask(X.shape, self.dropout)
        return masked(X, self.keep, self.scale)

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Apply the same mask, and the same factor, to the gradient."""
        return masked(dY, self.keep, self.scale) if self.training else dY


class Sequential(Layer):
    """Layers one after the other."""

    def __init__(self, *layers: Layer):
        self.sequence = layers

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Pass the input through all layers."""
        for layer in self.sequence:
            X = layer(X)
        return X

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Pass the gradient back through all layers."""
        for layer in reversed(self.sequence):
            dY = layer.backward(dY)
        return dY

    def layers(self) -> list[Layer]:
        """Return the layers inside of this one."""
        return [layer for direct in self.sequence for layer in (direct, *direct.layers())]


class Module(BaseModule, Layer):
    """Base of models.

    Subclasses define `configure_optimizers()`, and `forward(X)` with `backward(dY)`, or a network `self.net`. A `loss`
    of your own leaves its gradient with respect to the outputs in `self.dloss`.
    """

    backend = sys.modules[__name__]

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def backward(self, dY: np.ndarray) -> np.ndarray:
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
        self.save_hyperparameters()
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

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Go back through the same steps, last one first; return the gradient with respect to the inputs, as rows."""
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
            Linear(num_hiddens_1), ReLU(), Dropout(dropout_1),
            Linear(num_hiddens_2), ReLU(), Dropout(dropout_2),
            Linear(num_outputs),
        )  # fmt: skip


# Training: how the one Trainer drives this framework


@dataclass
class State:
    """What training carries from step to step; it is changed in place."""

    model: Module
    optim: Any


def build(model: Module, inputs: tuple[np.ndarray, ...], device: str) -> bool:
    """Create the parameters; return whether there were any to create."""
    new = any(layer.W is None for layer in model.parameters())
    if new:
        model.train(False)
        model(*inputs)
    return new


def init_state(model: Module, optim: Any, seed: int | None) -> State:
    """Pair the model with its optimiser, and start dropout's stream."""
    if seed is not None:
        globals()["seed"](seed)
    return State(model, optim)


def train_step(state: State, batch: tuple[np.ndarray, ...], clip: float) -> tuple[State, Metrics]:
    """Take one step of the optimiser."""
    state.model.train()
    with recording() as metrics:
        state.model.training_step(_inputs(batch))
    state.model.backward(state.model.dloss)
    if clip > 0:
        clip_gradients(clip, state.model)
    state.optim.step()
    return state, metrics


def train_epoch(
    state: State, data: tuple[np.ndarray, ...], order: np.ndarray, batch_size: int, clip: float
) -> tuple[State, Metrics]:
    """Take a step for each `batch_size` entries of `order`; return a vector of each metric."""
    steps = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        state, metrics = train_step(state, tuple(samples[chosen] for samples in data), clip)
        steps.append(metrics)
    return state, {key: np.array([metrics[key] for metrics in steps]) for key in steps[0]}


def eval_step(state: State, batch: tuple[np.ndarray, ...]) -> Metrics:
    """Return the metrics of one batch, without dropout."""
    state.model.train(False)
    with recording() as metrics:
        state.model.validation_step(_inputs(batch))
    return metrics


def predict(model: Module, X: np.ndarray) -> np.ndarray:
    """Return the outputs of the model, without dropout."""
    model.train(False)
    return model(*_inputs((X, X))[:-1])


def clip_gradients(grad_clip_val: float, model: Module) -> Module:
    """Scale the gradients, so that their common norm is at most `grad_clip_val`."""
    norm = np.sqrt(sum(np.vdot(grad, grad) for layer in model.parameters() for grad in (layer.dW, layer.db)))
    if norm > grad_clip_val:
        for layer in model.parameters():
            layer.dW *= grad_clip_val / norm
            layer.db *= grad_clip_val / norm
    return model


def _inputs(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Turn stored pixels, uint8, into float32 in [0, 1]."""
    return (*map(_data.as_floats, batch[:-1]), batch[-1])


# Weights: their names and layouts in files


def get_weights(model: Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters, as lin1.weight (outputs, inputs), lin1.bias (outputs,), lin2.weight, ..."""
    weights: dict[str, np.ndarray] = {}
    for k, layer in enumerate(model.parameters(), start=1):
        weights |= {f"lin{k}.weight": layer.W.T.copy(), f"lin{k}.bias": layer.b.copy()}
    return weights


def set_weights(model: Module, weights: dict[str, np.ndarray]) -> None:
    """Assign all parameters."""
    own = get_weights(model)
    weights = checked(weights, {name: value.shape for name, value in own.items()})
    for k, layer in enumerate(model.parameters(), start=1):
        layer.W[...] = weights[f"lin{k}.weight"].T
        layer.b[...] = weights[f"lin{k}.bias"]

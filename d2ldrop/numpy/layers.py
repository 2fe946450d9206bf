"""What networks are made of: functions with their gradients, and layers that remember what their gradients need."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.hyperparameters import TINY
from d2ldrop.numpy.arrays import entropy
from d2ldrop.numpy.masks import dropout_mask, masked, real_floats
from d2ldrop.randomness import axes_of, initial_weights, odds


def affine(X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return X W + b for X (N, inputs), W (inputs, outputs), b (outputs,)."""
    return X @ W + b


def affine_backward(dY: np.ndarray, X: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients with respect to X, W and b, given dY, that with respect to X W + b."""
    return dY @ W.T, *affine_gradients(dY, X)


def affine_gradients(dY: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients with respect to W and b alone."""
    return X.T @ dY, dY.sum(axis=0)


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


def cross_entropy_backward(Z: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the gradient of the mean cross-entropy with respect to the logits: (softmax - one-hot) / N.

    In a mean that is weighted by sample, `weights` (N,) over their sum take the place of 1 / N.
    """
    dZ = softmax(Z)
    dZ[np.arange(len(y)), y] -= 1
    return dZ / len(y) if weights is None else dZ * (weights / (weights.sum() + TINY))[:, np.newaxis]


class Parameter(NamedTuple):
    """A parameter of a layer: `W`, say, whose gradient is in the attribute `dW`."""

    layer: "Layer"
    name: str

    @property
    def value(self) -> np.ndarray:
        """The array that optimisers change in place; None before a lazy layer has seen its first input."""
        value: np.ndarray = getattr(self.layer, self.name)
        return value

    @property
    def grad(self) -> np.ndarray | None:
        """The gradient that the last backward pass left, if there was one."""
        grad: np.ndarray | None = getattr(self.layer, f"d{self.name}", None)
        return grad


class Layer:
    """Base of layers: `forward` remembers what `backward` needs.

    Layers inside this one are found in its attributes, and in lists, tuples and dictionaries among these. Parameters
    are the floating-point arrays that a layer has before its first input. For a parameter `W`, `backward` leaves the
    gradient in `dW`; without one it is saved with the others, but not trained.
    """

    training = False
    parameter_names: tuple[str, ...] | None = None
    """The attributes that are parameters; a class that creates them at the first input names them here."""

    transient: tuple[str, ...] = ()
    """What `forward` and `backward` leave in attributes, which copies and pickles leave out."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles of the layer hold."""
        return {name: value for name, value in vars(self).items() if name not in self.transient}

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the output for an input."""
        if self.parameter_names is None:
            self.parameter_names = self._arrays()
        return self.forward(X)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the output for an input (N, ...)."""
        return X

    def backward(self, dY: np.ndarray) -> Any:
        """Leave the gradients of the parameters; return the one with respect to the input, given that of the output."""
        return dY

    def gradients(self, dY: np.ndarray) -> None:
        """Leave the gradients of the parameters, where the one with respect to the input is not needed."""
        self.backward(dY)

    def layers(self) -> list["Layer"]:
        """Return the layers inside this one, in order of definition; one that is used twice, once."""
        inside = [layer for value in vars(self).values() for layer in _layers_in(value)]
        return list(dict.fromkeys(layer for direct in inside for layer in (direct, *direct.layers())))

    def parameters(self) -> list[Parameter]:
        """Return the parameters of this layer and of those inside."""
        return [
            Parameter(layer, name)
            for layer in (self, *self.layers())
            for name in (layer._arrays() if layer.parameter_names is None else layer.parameter_names)
        ]

    def train(self, mode: bool = True) -> None:
        """Turn dropout on or off, here and in all layers inside."""
        for layer in (self, *self.layers()):
            layer.training = mode

    def _arrays(self) -> tuple[str, ...]:
        """Return the names of the attributes that are arrays of floating-point numbers."""
        return tuple(
            name for name, value in vars(self).items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"
        )


def _layers_in(value: Any) -> Iterator[Layer]:
    """Yield a layer, or the layers in a container."""
    if isinstance(value, Layer):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _layers_in(item)


class Linear(Layer):
    """An affine layer; its parameters W (inputs, outputs) and b (outputs,) are created at the first input."""

    W: np.ndarray | None = None
    b: np.ndarray | None = None
    parameter_names = ("W", "b")
    transient = ("X", "dW", "db")

    def __init__(self, num_outputs: int):
        self.num_outputs = num_outputs

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return X W + b."""
        if self.W is None or self.b is None:
            stream = np.random.SeedSequence(entropy())
            shapes = {"lin.weight": (self.num_outputs, X.shape[1]), "lin.bias": (self.num_outputs,)}
            drawn = initial_weights(shapes, stream)
            self.W, self.b = np.ascontiguousarray(drawn["lin.weight"].T), drawn["lin.bias"]
        self.X = X
        return affine(X, self.W, self.b)

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Leave the gradients in dW and db, and return that with respect to the input."""
        assert self.W is not None
        dX, self.dW, self.db = affine_backward(dY, self.X, self.W)
        return dX

    def gradients(self, dY: np.ndarray) -> None:
        """Leave the gradients in dW and db: in the first layer, that of the input would take a third of the time."""
        self.dW, self.db = affine_gradients(dY, self.X)


class Flatten(Layer):
    """Inputs (N, ...) as rows."""

    transient = ("shape",)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return X as (N, -1)."""
        self.shape = X.shape
        return X.reshape(len(X), -1)

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Return the gradient in the shape of the input."""
        return dY.reshape(self.shape)


class ReLU(Layer):
    """The positive part."""

    transient = ("Y",)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the positive part of each element."""
        self.Y = relu(X)
        return self.Y

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Let the gradient pass where the output is positive."""
        return relu_backward(dY, self.Y)


class Dropout(Layer):
    """`dropout_layer` while training, the identity otherwise.

    Parameters
    ----------
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    axes
        Axes along which all elements share one draw, such as (2, 3) to drop whole channels of images (N, C, H, W).

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `dropout` is not a real number in [0, 1]; when the layer is called, if the input has no such axes.
    """

    transient = ("mask",)

    def __init__(self, dropout: float, *, axes: Iterable[int] = ()):
        odds(dropout)  # checks it
        self.dropout, self.axes = dropout, axes_of(axes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dropout}" + (f", axes={self.axes})" if self.axes else ")")

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Draw a new mask, and apply it."""
        if not self.training:
            return X
        X = real_floats(X)
        self.mask = dropout_mask(X.shape, self.dropout, self.axes)
        return masked(X, *self.mask)

    def backward(self, dY: np.ndarray) -> np.ndarray:
        """Apply the same mask, and the same factor, to the gradient."""
        return masked(real_floats(dY), *self.mask) if self.training else dY


class Sequential(Layer):
    """Layers one after the other."""

    def __init__(self, *layers: Layer):
        self.sequence = layers

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.sequence)

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

    def gradients(self, dY: np.ndarray) -> None:
        """Pass the gradient back to the first layer that has parameters."""
        first = next((k for k, layer in enumerate(self.sequence) if layer.parameters()), len(self.sequence) - 1)
        for layer in reversed(self.sequence[first + 1 :]):
            dY = layer.backward(dY)
        self.sequence[first].gradients(dY)

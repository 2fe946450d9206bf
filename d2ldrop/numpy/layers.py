"""What networks are made of: functions with their gradients, and the layers that remember what these need."""

import numpy as np

from d2ldrop.numpy import _rng, dropout_mask, masked
from d2ldrop.randomness import initial_weights, odds


def affine(X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return X W + b for X (N, inputs), W (inputs, outputs), b (outputs,)."""
    return X @ W + b


def affine_backward(
    dY: np.ndarray, X: np.ndarray, W: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Return the gradients with respect to X (None without a W), W and b, given dY with respect to X W + b."""
    return None if W is None else dY @ W.T, X.T @ dY, dY.sum(axis=0)


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


class Layer:
    """Base of layers: `forward` remembers what `backward` needs."""

    training = False

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the output for an input."""
        return self.forward(X)

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return the output for an input (N, ...)."""
        return X

    def backward(self, dY: np.ndarray) -> np.ndarray | None:
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
    """An affine layer; its parameters W (inputs, outputs) and b (outputs,) are created at the first input.

    The first layer of a network spends a third of its time on the gradient with respect to the data, which nobody
    needs: with `first`, `backward` leaves it out, and returns None.
    """

    W: np.ndarray | None = None

    def __init__(self, num_outputs: int, first: bool = False):
        self.num_outputs, self.first = num_outputs, first

    def forward(self, X: np.ndarray) -> np.ndarray:
        """Return X W + b."""
        if self.W is None:
            stream = np.random.SeedSequence(int(_rng.integers(2**63)))
            shapes = {"weight": np.empty((self.num_outputs, X.shape[1])), "bias": np.empty(self.num_outputs)}
            drawn = initial_weights({f"lin.{kind}": shape for kind, shape in shapes.items()}, stream)
            self.W, self.b = np.ascontiguousarray(drawn["lin.weight"].T), drawn["lin.bias"]
        self.X = X
        return affine(X, self.W, self.b)

    def backward(self, dY: np.ndarray) -> np.ndarray | None:
        """Leave the gradients in dW and db, and return that with respect to the input."""
        dX, self.dW, self.db = affine_backward(dY, self.X, None if self.first else self.W)
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

    def backward(self, dY: np.ndarray) -> np.ndarray | None:
        """Pass the gradient back through all layers, or as far as it is needed."""
        for layer in reversed(self.sequence):
            if (dX := layer.backward(dY)) is None:
                return None
            dY = dX
        return dY

    def layers(self) -> list[Layer]:
        """Return the layers inside of this one."""
        return [layer for direct in self.sequence for layer in (direct, *direct.layers())]

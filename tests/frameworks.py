"""What tests need to say in each framework's own words, and the library does not."""

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

FLOATS = {
    "jax": ["float16", "bfloat16", "float32"],
    "mxnet": ["float16", "float32", "float64"],
    "numpy": ["float16", "float32", "float64"],
    "tf": ["float16", "bfloat16", "float32", "float64"],
    "torch": ["float16", "bfloat16", "float32", "float64"],
}


def as_dtype(d2l: Any, X: np.ndarray, dtype: str) -> Any:
    """Return a host array as an array of the framework, with elements of a type that NumPy may not have."""
    if d2l.name == "torch":
        torch = importlib.import_module("torch")
        return torch.tensor(X).to(getattr(torch, dtype))
    if d2l.name == "tf":
        return d2l.astype(d2l.array(X), dtype)
    if d2l.name == "tf":
        return d2l.astype(d2l.array(X), dtype)
    if d2l.name in ("jax", "mxnet"):
        return d2l.array(X).astype(dtype)
    return X.astype(dtype)


def dtype_of(X: Any) -> str:
    """Return the name of the type of an array's elements."""
    if isinstance(X.dtype, type):
        return X.dtype.__name__
    return getattr(X.dtype, "name", str(X.dtype)).rpartition(".")[2]


def with_gradient(d2l: Any, function: Callable[[Any], Any], X: Any) -> tuple[Any, Any]:
    """Return `function(X)`, and the gradient of its sum with respect to X."""
    if d2l.name == "torch":
        X = X.clone().requires_grad_()
        Y = function(X)
        Y.sum().backward()
        return Y, X.grad
    if d2l.name == "tf":
        tf = importlib.import_module("tensorflow")
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = function(X)
        return Y, tape.gradient(Y, X)
    if d2l.name == "jax":
        Y, pull_back = importlib.import_module("jax").vjp(function, X)
        return Y, *pull_back(d2l.ones_like(Y))
    if d2l.name == "mxnet":
        autograd = importlib.import_module("mxnet").autograd
        X = X.copy()
        X.attach_grad()
        with autograd.record():
            Y = function(X)
        Y.backward()
        return Y, X.grad
    raise NotImplementedError(f"{d2l.name} has no automatic differentiation")


def drop(d2l: Any, X: Any, p: float) -> Any:
    """Return dropout of X where a gradient is taken: in JAX, what is traced needs a key."""
    return d2l.dropout_layer(X, p, key=d2l.get_key()) if d2l.name == "jax" else d2l.dropout_layer(X, p)


def mode(model: Any, training: bool) -> None:
    """Turn dropout of a model on or off."""
    if model.backend.name == "mxnet":  # it is a state of the thread
        importlib.import_module("mxnet").autograd.set_training(training)
    elif model.backend.name in ("jax", "tf"):
        model.training = training
    else:
        model.train(training)


def concise_net(d2l: Any, rate: float, lr: float = 0.5) -> Any:
    """Return a net of the framework's own layers for digits, losses averaged and per sample, and an optimiser.

    Dropout comes after the last layer, so that at rate 1 all outputs are zero while it is on.
    """
    if d2l.name == "torch":
        torch = importlib.import_module("torch")
        nn = torch.nn
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(rate))
        losses = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none")
        return SimpleNamespace(net=net, losses=losses, updater=torch.optim.SGD(net.parameters(), lr))
    if d2l.name == "tf":
        keras = importlib.import_module("tensorflow").keras
        layers, cross_entropy = keras.layers, keras.losses.SparseCategoricalCrossentropy
        net = keras.Sequential([layers.Flatten(), layers.Dense(10), layers.Dropout(rate)])
        losses = cross_entropy(from_logits=True), cross_entropy(from_logits=True, reduction="none")
        return SimpleNamespace(net=net, losses=losses, updater=keras.optimizers.SGD(lr))
    if d2l.name == "jax":
        nn, optax = importlib.import_module("flax.linen"), importlib.import_module("optax")
        dense, dropout = nn.Dense(10), nn.Dropout(rate)

        def function(params, X, key=None):
            Y = dense.apply(params, X.reshape(len(X), -1))
            return Y if key is None else dropout.apply({}, Y, deterministic=False, rngs={"dropout": key})

        each = optax.softmax_cross_entropy_with_integer_labels
        losses = (lambda y_hat, y: each(y_hat, y).mean()), each
        net = d2l.Net(function, dense.init(d2l.get_key(), d2l.zeros((1, 64))))
        return SimpleNamespace(net=net, losses=losses, updater=optax.sgd(lr))
    if d2l.name == "numpy":
        linear = d2l.Linear(10)
        net = d2l.Sequential(d2l.Flatten(), linear, d2l.Dropout(rate))
        losses = d2l.CrossEntropyLoss(averaged=True), d2l.CrossEntropyLoss()
        return SimpleNamespace(net=net, losses=losses, updater=d2l.SGD([linear], lr))
    gluon = importlib.import_module("mxnet").gluon
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(10), d2l.Dropout(rate))
    net.initialize()
    each = gluon.loss.SoftmaxCrossEntropyLoss()
    losses = (lambda y_hat, y: each(y_hat, y).mean()), each
    return SimpleNamespace(
        net=net, losses=losses, updater=gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    )


def scratch_net(d2l: Any, rate: float, lr: float = 0.5) -> Any:
    """Return the same as a function of the inputs, which drops while it trains, with an updater by hand."""
    rng = np.random.default_rng(0)
    W = (rng.standard_normal((64, 10)) / 8).astype(np.float32)
    if d2l.name == "torch":
        W = d2l.tensor(W, requires_grad=True)

        class Net(importlib.import_module("torch").nn.Module):
            def forward(self, X):
                Y = X.reshape(len(X), -1) @ W
                return d2l.dropout_layer(Y, rate) if self.training else Y

        return SimpleNamespace(net=Net(), updater=lambda batch_size: d2l.sgd([W], lr, batch_size))
    if d2l.name == "tf":
        W = importlib.import_module("tensorflow").Variable(W)

        def net(X, training=False):
            Y = d2l.reshape(X, (len(X), -1)) @ W
            return d2l.dropout_layer(Y, rate) if training else Y

        def updater(batch_size, grads):
            d2l.sgd([W], grads, lr, batch_size)

        updater.params = [W]
        return SimpleNamespace(net=net, updater=updater)
    if d2l.name == "jax":

        def function(W, X, key=None):
            Y = X.reshape(len(X), -1) @ W
            return Y if key is None else d2l.dropout_layer(Y, rate, key=key)

        def updater(batch_size, grads):
            net.params = d2l.sgd(net.params, grads, lr, batch_size)

        net = d2l.Net(function, d2l.array(W))
        return SimpleNamespace(net=net, updater=updater)
    if d2l.name == "numpy":

        class ByHand(d2l.Layer):
            def forward(self, X):
                self.X = X.reshape(len(X), -1)
                self.keep, self.scale = d2l.dropout_mask((len(X), 10), rate if self.training else 0)
                return d2l.masked(self.X @ W, self.keep, self.scale)

            def backward(self, dY):
                self.grads = [self.X.T @ d2l.masked(dY, self.keep, self.scale)]

        net = ByHand()
        return SimpleNamespace(net=net, updater=lambda batch_size: d2l.sgd([W], net.grads, lr, batch_size))
    W = d2l.array(W)
    W.attach_grad()
    autograd = importlib.import_module("mxnet").autograd

    def plain(X):
        Y = d2l.matmul(X.reshape(len(X), -1), W)
        return d2l.dropout_layer(Y, rate) if autograd.is_training() else Y

    return SimpleNamespace(net=plain, updater=lambda batch_size: d2l.sgd([W], lr, batch_size))


class SpyingLoss:
    """A loss that notes the share of zeros in each batch of outputs."""

    def __init__(self, d2l: Any, loss: Any):
        self.d2l, self.loss, self.noted = d2l, loss, []

    def __call__(self, y_hat: Any, y: Any) -> Any:
        """Note, and return the loss."""
        if self.d2l.name == "jax":  # outputs have no values yet where a gradient is taken
            importlib.import_module("jax").debug.callback(self.note, y_hat)
        else:
            self.note(self.d2l.numpy(y_hat))
        return self.loss(y, y_hat) if self.d2l.name == "tf" else self.loss(y_hat, y)

    def note(self, outputs: Any) -> None:
        """Note the share of zeros."""
        self.noted.append(float((np.asarray(outputs) == 0).mean()))

    def backward(self) -> np.ndarray:
        """Return the gradient, where the loss knows it by itself."""
        return self.loss.backward()

    def zeros(self) -> list[float]:
        """Return what was noted since this was last asked."""
        if self.d2l.name == "jax":
            importlib.import_module("jax").effects_barrier()
        noted, self.noted = self.noted, []
        return noted

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
    W = d2l.array(W)
    W.attach_grad()
    autograd = importlib.import_module("mxnet").autograd

    def plain(X):
        Y = d2l.matmul(X.reshape(len(X), -1), W)
        return d2l.dropout_layer(Y, rate) if autograd.is_training() else Y

    return SimpleNamespace(net=plain, updater=lambda batch_size: d2l.sgd([W], lr, batch_size))

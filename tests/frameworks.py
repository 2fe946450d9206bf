"""What tests need to say in each framework's own words, and the library does not."""

import importlib
from collections.abc import Callable
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

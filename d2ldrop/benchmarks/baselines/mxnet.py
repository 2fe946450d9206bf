"""Baselines for speed: the same training as users of gluon write it."""

from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as onp  # noqa: ICN001 - as in the book, `np` is MXNet's

from d2ldrop.data import Split, as_floats
from d2ldrop.mxnet import dropout_layer, try_gpu

# isort: split
# MXNet comes last, as it can be imported only with the adapter's help: it needs `numpy.bool`, which is gone.
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn


def plain_loop(train: Split, val: Split, batch_size: int, lr: float, dropout: float) -> Callable[[], float]:
    """Return a function that runs an epoch with validation: a loop over arrays in memory, with a hybridized net."""
    net = nn.HybridSequential()
    net.add(nn.Dense(256, activation="relu"), nn.Dropout(dropout))
    net.add(nn.Dense(256, activation="relu"), nn.Dropout(dropout), nn.Dense(10))
    device = try_gpu()
    net.initialize(ctx=device)
    net.hybridize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    X, X_val = (np.array(as_floats(split.X), ctx=device) for split in (train, val))
    y, y_val = (np.array(split.y.astype(onp.int32), ctx=device) for split in (train, val))
    rng = onp.random.default_rng()

    def epoch() -> float:
        order = np.array(rng.permutation(len(y)), ctx=device)
        for start in range(0, len(y), batch_size):
            chosen = order[start : start + batch_size]
            with autograd.record():
                batch_loss = loss(net(np.take(X, chosen, axis=0)), np.take(y, chosen))
            batch_loss.backward()
            trainer.step(len(chosen))
        correct = sum(
            (net(X_val[i : i + batch_size]).argmax(axis=1).astype("int32") == y_val[i : i + batch_size]).sum()
            for i in range(0, len(y_val), batch_size)
        )
        return float(correct) / len(y_val)

    return epoch


def matrix_products(sizes: tuple[int, ...], batch_size: int, steps: int, validated: int) -> Callable[[], None]:
    """Return a function that computes the matrix products of an epoch, and nothing else.

    They are those of fully connected layers without bias, which on a CPU MXNet leaves to oneDNN; `np.dot` is slower.
    """
    device = try_gpu()
    X, X_val = (np.ones((count, sizes[0]), ctx=device) for count in (batch_size, validated))
    Ws = [np.full((outputs, inputs), 1e-3, ctx=device) for inputs, outputs in pairwise(sizes)]
    for W in Ws:
        W.attach_grad()

    def affine(X: np.ndarray, W: np.ndarray) -> np.ndarray:
        return npx.fully_connected(X, W, num_hidden=len(W), no_bias=True)

    def epoch() -> None:
        for _ in range(steps):
            with autograd.record():
                Y = reduce(affine, Ws, X)
            Y.backward()
        for start in range(0, validated, 2000):
            reduce(affine, Ws, X_val[start : start + 2000])
        npx.waitall()

    return epoch


def dropout_calls(shape: tuple[int, ...], p: float) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return, by name, functions that call our layer, MXNet's own, and a product with a mask that exists already.

    Each is a pair: forward alone, and forward and backward.
    """
    device = try_gpu()
    X, dY = np.ones(shape, ctx=device), np.ones(shape, ctx=device)
    X.attach_grad()

    def calls(layer: Callable[[np.ndarray, float], np.ndarray]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        def forward() -> None:
            with autograd.record():
                layer(X, p)
            npx.waitall()

        def both() -> None:
            with autograd.record():
                Y = layer(X, p)
            Y.backward(dY)
            npx.waitall()

        return forward, both

    mask = dropout_layer(dY, p)
    return {"dropout_layer": calls(dropout_layer), "own": calls(npx.dropout), "product": calls(lambda X, p: X * mask)}

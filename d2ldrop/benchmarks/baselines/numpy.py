"""Baselines of the benchmark: dropout as most people write it in NumPy, and bare matrix products."""

from collections.abc import Callable
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from d2ldrop.numpy.masks import dropout_mask, masked


def matrix_products(sizes: tuple[int, ...], batch_size: int, steps: int, validated: int) -> Callable[[], None]:
    """Return a function that multiplies the matrices of an epoch, and does nothing else."""
    rng = np.random.default_rng(0)
    X, X_val = rng.random((batch_size, sizes[0]), np.float32), rng.random((validated, sizes[0]), np.float32)
    Ws = [rng.random(pair, np.float32) for pair in pairwise(sizes)]

    def epoch() -> None:
        for _ in range(steps):
            Hs = list(accumulate(Ws, np.matmul, initial=X))
            dH = Hs.pop()
            for k, (H, W) in reversed(list(enumerate(zip(Hs, Ws, strict=True)))):
                H.T @ dH
                dH = dH @ W.T if k else dH
        for start in range(0, validated, 2000):
            reduce(np.matmul, Ws, X_val[start : start + 2000])

    return epoch


def dropout_calls(shape: tuple[int, ...], p: float) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return, by name, what calls our layer, the usual one, and a product with a ready mask.

    Each forward, and forward and backward.
    """
    X, dY = np.ones(shape, np.float32), np.ones(shape, np.float32)
    rng = np.random.default_rng(0)
    ready = masked(X, *dropout_mask(shape, p))

    def ours(backward: bool) -> None:
        mask = dropout_mask(shape, p)
        masked(X, *mask)
        if backward:
            masked(dY, *mask)

    def own(backward: bool) -> None:
        mask = rng.random(shape, np.float32) > p
        mask * X / (1 - p)
        if backward:
            mask * dY / (1 - p)

    return {
        "dropout_layer": (lambda: ours(backward=False), lambda: ours(backward=True)),
        "own": (lambda: own(backward=False), lambda: own(backward=True)),
        "product": (lambda: X * ready, lambda: (X * ready, dY * ready)),
    }

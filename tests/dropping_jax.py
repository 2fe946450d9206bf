"""What the tests of dropout in JAX share."""

import importlib
import math

import numpy as np
import pytest

import d2ldrop

jax = pytest.importorskip("jax")
nn, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
jnp, lax, adapter = jax.numpy, jax.lax, d2ldrop.backend("jax")
masks = importlib.import_module("d2ldrop.jax.masks")
NNXDropout = importlib.import_module("d2ldrop.jax.nnx").Dropout
P = 0.25
SCALE = 1 / (1 - P)
X = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (40, 50)).astype(np.float32))
KEY, OTHER = jax.random.key(0), jax.random.key(1)
LAYER = adapter.Dropout(P, deterministic=False)
# The forms of dropout that the transforms are tried on: functions of (X, key).
FORMS = {
    "dropout_layer": lambda X, key: adapter.dropout_layer(X, P, key=key),
    "Dropout": lambda X, key: LAYER.apply({}, X, rngs={"dropout": key}),
}


def check(Y, X=X, p=P):
    """Assert that each element of Y is 0 or x / (1 - p), at about the right rate; return what is kept."""
    Y, X = (
        np.asarray(Y, np.float64),
        np.broadcast_to(X[: Y.shape[-2]], Y.shape),
    )
    kept = Y != 0
    np.testing.assert_allclose(Y[kept], X[kept] / (1 - p), rtol=1e-6)
    assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / kept.size)
    return kept


def differ(a, b):
    """Assert that two masks are independent: they agree as often as two such masks do."""
    q = 1 - P
    agree = q**2 + P**2
    assert abs((a == b).mean() - agree) < 5 * math.sqrt(agree * (1 - agree) / a.size)


def small_mlp(kind="DropoutMLPScratch", **options):
    return getattr(adapter, kind)(10, 16, 16, 0.5, 0.5, 0.1, **options)


MODELS = ["DropoutMLPScratch", "DropoutMLP"]

"""What the tests of dropout in MXNet share."""

import math

import numpy as np
import pytest

mx = pytest.importorskip("d2ldrop.mxnet.arrays", exc_type=ImportError).mx
autograd, gluon, nn, npx = mx.autograd, mx.gluon, mx.gluon.nn, mx.npx
DTYPES = ["float16", "float32", "float64"]
KINDS = ["dropout_layer", "Dropout"]
GRAPHS = {
    "eager": None,
    "hybridized": {},
    "static_alloc": {"static_alloc": True},
    "static_shape": {"static_alloc": True, "static_shape": True},
}


class Applied(nn.HybridBlock):
    """A function of F and an input as a block."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def hybrid_forward(self, F, X):
        return self.function(F, X)


def dropping(d2l, kind, p, axes=(), graph="eager"):
    """Return a block that drops in training."""
    layer = d2l.Dropout(p, axes) if kind == "Dropout" else Applied(lambda F, X: d2l.dropout_layer(X, p, axes=axes))
    if GRAPHS[graph] is not None:
        layer.hybridize(**GRAPHS[graph])
    return layer


def trained(layer, X):
    """Return the outputs and the gradient of their sum, in training."""
    X = X.copy()
    X.attach_grad()
    with autograd.record():
        Y = layer(X)
    Y.backward()
    return Y.asnumpy(), X.grad.asnumpy()


def check(*results, p=0.5, draws=None):
    """Check that arrays are 0 or 1 / (1 - p), about as often as they should be, and differ from one another."""
    for Y in results:
        np.testing.assert_allclose(Y[Y != 0], 1 / (1 - p), rtol=2e-3 if Y.dtype == np.float16 else 1e-4)
        assert abs((Y != 0).mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / (draws or Y.size))
    assert len({Y.tobytes() for Y in results}) == len(results)

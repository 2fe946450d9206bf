"""What the tests of dropout in TensorFlow share."""

import math

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
KINDS = ["dropout_layer", "Dropout"]
MODELS = ["DropoutMLPScratch", "DropoutMLP"]


def dropping(d2l, kind, p):
    """Return dropout as a function of a tensor: the function, or the layer while it trains."""
    if kind == "dropout_layer":
        return lambda X: d2l.dropout_layer(X, p)
    layer = d2l.Dropout(p)
    return lambda X: layer(X, training=True)


def check(*results, p=0.5, unit=1.0):
    """Check that arrays are 0 or unit / (1 - p), about as often as they should be, and differ from one another."""
    arrays = [np.asarray(tf.cast(Y, tf.float32)) for Y in results]
    for Y in arrays:
        np.testing.assert_allclose(Y[Y != 0], unit / (1 - p), rtol=1e-2 if results[0].dtype.size == 2 else 1e-4)
        assert abs((Y != 0).mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / Y.size)
    assert len({Y.tobytes() for Y in arrays}) == len(arrays)

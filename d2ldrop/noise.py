"""Other kinds of noise that regularise a network, for arrays of any framework.

Each is written once, from two draws that the backend of the array makes: which elements are kept, and normal numbers.
As with dropout, the noise is for training; leave it out when the network is evaluated.

For all of them: `X` has any shape; its framework, dtype and device are those of the result, and integers are promoted
to the framework's default float. `dropout` is a real number in [0, 1], and with 0 the result is `X` itself. The noise
is new at each call, and `key`, for JAX alone, decides it. Errors are those of `d2ldrop.dropout_layer`.
"""

import math
from typing import Any

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.errors import ArgumentError, UsageError
from d2ldrop.hyperparameters import number
from d2ldrop.randomness import odds, probability
from d2ldrop.registry import backend_for, dropout_layer, keyword_of, left_alone

__all__ = [
    "ALPHA",
    "alpha_dropout_layer",
    "channel_dropout_layer",
    "dropconnect_layer",
    "gaussian_dropout_layer",
    "input_noise",
]

ALPHA = -1.7580993408473766
"""What SELU tends to for x -> -infinity: -lambda alpha, with lambda and alpha of Klambauer et al."""


@left_alone
def gaussian_dropout_layer(X: Array, dropout: float, *, key: Any = None) -> Array:
    """Multiply each element of `X` by a normal number of mean 1 and variance p / (1 - p).

    Mean and variance of the result are those of `dropout_layer` with the same p; nothing becomes exactly 0. p = 1 is
    refused: the variance would be infinite.

    Notes
    -----
    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout: a simple way to prevent neural
    networks from overfitting, JMLR 15 (2014), section 10.

    Examples
    --------
    >>> import numpy as np
    >>> gaussian_dropout_layer(np.ones((2, 3)), 0.5).shape
    (2, 3)
    """
    found, X = _floats(X, key)
    p = probability(dropout)
    if p == 1:
        raise ArgumentError(f"Expected dropout to be a number in [0, 1) for normal noise. Received: {dropout!r}")
    if p == 0:
        return X
    noise = 1 + math.sqrt(p / (1 - p)) * found.normal_like(X, key)
    return found.dtype_like(X * noise, X)


@left_alone
def alpha_dropout_layer(X: Array, dropout: float, *, key: Any = None) -> Array:
    """Set elements to the lowest value of SELU with probability `dropout`, so that mean 0 and variance 1 stay.

    With alpha' = -1.7581 in place of what is dropped, q = 1 - p, a = (q + alpha'^2 p q)^(-1/2) and b = -a p alpha', the
    result is a x + b where x is kept, and a alpha' + b elsewhere. With p = 1 it is 0, the limit of that.

    Notes
    -----
    Source: Klambauer, Unterthiner, Mayr and Hochreiter, Self-normalizing neural networks, NIPS (2017).
    """
    found, X = _floats(X, key)
    drawn = odds(dropout)
    if drawn.threshold == 0:
        return X
    p, q = drawn.p, 1 - drawn.p
    a = (q + ALPHA**2 * p * q) ** -0.5 if q else 0.0
    b = -a * p * ALPHA
    keep = found.keep_mask(X, drawn, key=key)  # true with probability q
    return found.dtype_like(a * found.where(keep, X, ALPHA) + b, X)


@left_alone
def channel_dropout_layer(X: Array, dropout: float, *, key: Any = None) -> Array:
    """Drop whole channels of each sample with probability `dropout`, and divide the others by 1 - `dropout`.

    `X` is (N, C, ...) or, in TensorFlow and JAX, (N, ..., C). Neighbouring pixels of a channel are alike, so dropping
    them one by one removes little of what it tells.

    Notes
    -----
    Source: Tompson, Goroshin, Jain, LeCun and Bregler, Efficient object localization using convolutional networks,
    CVPR (2015), where it is called SpatialDropout.
    """
    found, X = _floats(X, key)
    n = len(_shape(X))
    if n < 2:
        raise ArgumentError(f"Expected X to be samples with channels, of 2 axes or more. Received: {n} axes")
    axes = range(1, n - 1) if found.channels_last else range(2, n)
    return dropout_layer(X, dropout, axes=axes, key=key)


@left_alone
def dropconnect_layer(X: Array, W: Array, dropout: float, *, per_sample: bool = False, key: Any = None) -> Array:
    """Return the product of `X` and weights, each of which is dropped with probability `dropout`, or else scaled.

    Parameters
    ----------
    X, W
        Inputs (N, inputs) and weights (inputs, outputs) of one framework.
    dropout
        The probability p of dropping a weight; the others are divided by 1 - p.
    per_sample
        Whether each sample has a mask of its own, as in the paper. It takes memory for N inputs outputs numbers. By
        default all samples of a call share one mask.
    key
        As for the other layers.

    Returns
    -------
    array
        (N, outputs). Its mean over many masks is X W; with p = 0 that is the result.

    Notes
    -----
    Source: Wan, Zeiler, Zhang, LeCun and Fergus, Regularization of neural networks using DropConnect, ICML (2013),
    with the scale in training, as in inverted dropout, where the paper corrects the trained network.
    """
    found, W = _floats(W, key)
    X = found.real_floats(X)
    shape, weights = _shape(X), _shape(W)
    if (len(shape), len(weights)) != (2, 2) or (None not in (shape[1], weights[0]) and shape[1] != weights[0]):
        raise ArgumentError(f"Expected X (N, inputs) and W (inputs, outputs). Received: {shape} and {weights}")
    if not per_sample:
        return X @ dropout_layer(W, dropout, key=key)
    products = dropout_layer(X[:, :, None] * W[None], dropout, key=key)  # x_i w_ij for each sample, kept or not
    return found.sum_along(products, 1)


@left_alone
def input_noise(X: Array, sigma: float, *, key: Any = None) -> Array:
    """Add normal noise of mean 0 and standard deviation `sigma`, a number of at least 0, to each element of `X`.

    For small noise and the squared error, training on such inputs is training with a penalty on the derivatives of the
    outputs with respect to the inputs.

    Notes
    -----
    Source: Bishop, Training with noise is equivalent to Tikhonov regularization, Neural Computation 7 (1995).
    """
    found, X = _floats(X, key)
    deviation = number("sigma", sigma)
    return X if deviation == 0 else found.dtype_like(X + deviation * found.normal_like(X, key), X)


def _shape(X: Any) -> tuple[Any, ...]:
    """Return the sizes of an array, None where a compiler does not know one.

    Raises
    ------
    UsageError
        If not even their number is known.
    """
    try:
        return tuple(X.shape)
    except (AttributeError, ValueError):
        raise UsageError("Expected an array with a known number of axes. Received: one of a graph") from None


def _floats(X: Any, key: Any) -> tuple[AnyBackend, Any]:
    """Return the backend that works on `X`, and `X` as floats; refuse a key where the framework has none."""
    found, X = backend_for(X)
    keyword_of(found, key)
    return found, found.real_floats(X)

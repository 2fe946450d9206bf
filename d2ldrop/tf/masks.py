"""Dropout masks: which elements are kept, drawn from few random bits, and their application without a branch.

In the plain form a mask is `tf.random.uniform(X.shape) >= p`, and it is applied as `tf.where(mask, X / (1 - p), 0)`.
What is here gives the same in less time.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

from d2ldrop.errors import ArgumentTypeError
from d2ldrop.randomness import Odds, lanes, shared_generator

_generator: ContextVar[tf.random.Generator | None] = ContextVar("_generator", default=None)


@contextmanager
def drawing_from(generator: tf.random.Generator) -> Iterator[None]:
    """Let masks inside the block come from a generator, whose state is a variable, and not from the global one."""
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


def real_floats(X: tf.Tensor) -> tf.Tensor:
    """Return a tensor of real numbers as floats: integers are promoted to float32.

    Raises
    ------
    ArgumentTypeError
        If there are complex numbers or text in it.
    """
    X = tf.convert_to_tensor(X)
    if X.dtype.is_integer or X.dtype.is_bool:
        X = tf.cast(X, tf.float32)
    if not X.dtype.is_floating:
        raise ArgumentTypeError(f"Expected X to hold real numbers. Received: {X.dtype.name}")
    return X


def draw_mask(X: tf.Tensor, p: Odds) -> tf.Tensor:
    """Draw a bool for each element of `X`, true with probability 1 - p, on its device.

    The random bits come from the generator of `drawing_from` or else from TensorFlow's global one (both Philox).
    """
    kind = tf.uint16 if p.bits == 16 else tf.uint8
    shape = X.shape if X.shape.is_fully_defined() else tf.shape(X)
    if (rng := shared_generator()) is not None:  # in a compiled function, too, this calls back to the host
        drawn = tf.numpy_function(lambda shape: lanes(tuple(shape), rng, p.bits), [shape], kind)
        return tf.reshape(drawn, shape) > p.threshold - 1
    with tf.device(X.device):
        count = math.prod(X.shape) if X.shape.is_fully_defined() else tf.size(X)
        source = _generator.get() or tf.random
        words = source.uniform([-(-count * p.bits // 64)], tf.int64.min, tf.int64.max, tf.int64)
        return tf.reshape(lanes_of(words, p.bits)[:count], shape) > p.threshold - 1  # 2**bits itself is no lane


def lanes_of(words: tf.Tensor, bits: int) -> tf.Tensor:
    """Return the lanes of some 64-bit words, a vector of uint8 or uint16; one of a single bit is 0, or a power of 2."""
    drawn = tf.reshape(tf.bitcast(words, tf.uint16 if bits == 16 else tf.uint8), [-1])
    return tf.reshape(tf.bitwise.bitwise_and(drawn, [[1 << k] for k in range(8)]), [-1]) if bits == 1 else drawn


def masked(X: tf.Tensor, mask: tf.Tensor, scale: float) -> tf.Tensor:
    """Return `X` times `scale` where the mask is true, and 0 elsewhere, even in place of inf or nan."""
    with tf.device(X.device):
        factors = tf.cast(mask, X.dtype) * min(scale, float(X.dtype.max))  # float16 ends before 65536
        return tf.math.multiply_no_nan(X, factors)  # where the factor is 0, so is the product

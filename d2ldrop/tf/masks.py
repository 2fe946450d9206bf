"""Dropout masks: which elements are kept, drawn from few random bits, and their application without a branch.

In the plain form a mask is `tf.random.uniform(X.shape) >= p`, and it is applied as `tf.where(mask, X / (1 - p), 0)`.
What is here gives the same in less time.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

from d2ldrop.errors import ArgumentTypeError, not_an_array, not_real
from d2ldrop.randomness import Odds, axes_of, lanes, no_axes, normals, shape_of_mask, shared_generator
from d2ldrop.tf.arrays import is_array

_generator: ContextVar[Any] = ContextVar("_generator", default=None)


@contextmanager
def drawing_from(generator: Any) -> Iterator[None]:
    """Let masks inside the block come from a generator, whose state is a variable, and not from the global one.

    It is a `tf.random.Generator`, or has its methods.
    """
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


@tf.autograph.experimental.do_not_convert
def real_floats(X: tf.Tensor) -> tf.Tensor:
    """Return a tensor or variable of real numbers as a tensor of floats: integers are promoted to float32.

    In a compiled function a NumPy array counts as a constant of it.

    Raises
    ------
    ArgumentTypeError
        If it is no tensor, or there are complex numbers, text, or floats of 8 bits in it.
    """
    if isinstance(X, tf.keras.KerasTensor):
        raise ArgumentTypeError(
            "Expected X to be a tensor. Received: a KerasTensor, which holds the place of one in a functional model. "
            "Use the layer d2ldrop.tf.Dropout there."
        )
    if not is_array(X) and not (isinstance(X, (np.ndarray, np.generic)) and tf.inside_function()):
        raise not_an_array(X, "tf")
    if isinstance(X, tf.RaggedTensor):
        return X.with_flat_values(real_floats(X.flat_values))
    X = tf.convert_to_tensor(X)
    if X.dtype.is_integer or X.dtype.is_bool:
        X = tf.cast(X, tf.float32)
    if not X.dtype.is_floating or X.dtype.size == 1:
        raise not_real(X.dtype)
    return X


def draw_mask(X: tf.Tensor, p: Odds, axes: Iterable[int] = ()) -> tf.Tensor:
    """Draw a bool for each element of `X`, true with probability 1 - p, on its device.

    Along `axes` the mask has size 1: one draw is shared. The random bits come from the generator of `drawing_from` or
    else from TensorFlow's global one (both Philox).
    """
    if isinstance(X, tf.RaggedTensor):
        no_axes(axes)  # as in TensorFlow's own dropout
        return X.with_flat_values(draw_mask(X.flat_values, p))
    kind = tf.uint16 if p.bits == 16 else tf.uint8
    shape = _shape_of_mask(X, axes_of(axes))
    if (rng := shared_generator()) is not None:  # in a compiled function, too, this calls back to the host
        drawn = tf.numpy_function(lambda shape: lanes(tuple(shape), rng, p.bits), [shape], kind)
        return tf.reshape(drawn, shape) > p.threshold - 1
    with tf.device(X.device):
        count = math.prod(shape) if isinstance(shape, tuple) else tf.reduce_prod(tf.cast(shape, tf.int64))
        words = _source().uniform([-(-count * p.bits // 64)], tf.int64.min, tf.int64.max, tf.int64)
        return tf.reshape(lanes_of(words, p.bits)[:count], shape) > p.threshold - 1  # 2**bits itself is no lane


def _shape_of_mask(X: tf.Tensor, axes: tuple[int, ...]) -> Any:
    """Return the shape of a mask: a tuple or, where sizes are known only when a compiled function runs, a tensor."""
    if X.shape.rank is not None:
        shape = shape_of_mask(X.shape, axes)
        if None not in shape:
            return shape
    if not axes:
        return tf.shape(X)
    rank = tf.rank(X)  # known when the compiled function runs
    with tf.control_dependencies(
        [
            tf.debugging.assert_less(max(axes), rank, message=f"Expected axes of the array. Received: {axes}"),
            tf.debugging.assert_greater_equal(
                min(axes), -rank, message=f"Expected axes of the array. Received: {axes}"
            ),
        ]
    ):
        is_shared = tf.reduce_any(tf.range(rank)[:, None] == tf.constant(axes) % rank, axis=1)
    return tf.where(is_shared, 1, tf.shape(X))


def _source() -> Any:
    """Return what draws random numbers here and now."""
    return _generator.get() or tf.random


def lanes_of(words: tf.Tensor, bits: int) -> tf.Tensor:
    """Return the lanes of some 64-bit words, a vector of uint8 or uint16; one of a single bit is 0, or a power of 2."""
    drawn = tf.reshape(tf.bitcast(words, tf.uint16 if bits == 16 else tf.uint8), [-1])
    return tf.reshape(tf.bitwise.bitwise_and(drawn, [[1 << k] for k in range(8)]), [-1]) if bits == 1 else drawn


def masked(X: tf.Tensor, mask: tf.Tensor, scale: float) -> tf.Tensor:
    """Return `X` times `scale` where the mask is true, and 0 elsewhere, even in place of inf or nan."""
    if isinstance(X, tf.RaggedTensor):
        return X.with_flat_values(masked(X.flat_values, mask.flat_values, scale))
    with tf.device(X.device):
        factors = tf.cast(mask, X.dtype) * min(scale, float(X.dtype.max))  # float16 ends before 65536
        Y = tf.math.multiply_no_nan(X, factors)  # where the factor is 0, so is the product
        Y.set_shape(X.shape)  # of a mask whose shape is a tensor, TensorFlow knows less
        return Y


# What other noise is made of


@tf.autograph.experimental.do_not_convert
def keep_mask(X: tf.Tensor, p: Odds, axes: Iterable[int] = (), key: Any = None) -> tf.Tensor:
    """Draw a bool for each element of `X`, true with probability 1 - p, which may be 0 or 1; see `draw_mask`."""
    if 0 < p.threshold < 2**p.bits:
        return draw_mask(X, p, axes)
    if isinstance(X, tf.RaggedTensor):
        no_axes(axes)
        return X.with_flat_values(keep_mask(X.flat_values, p))
    with tf.device(X.device):
        return tf.fill(_shape_of_mask(X, axes_of(axes)), p.threshold == 0)


@tf.autograph.experimental.do_not_convert
def normal_like(X: tf.Tensor, key: Any = None) -> tf.Tensor:
    """Draw standard normal numbers in the shape and dtype of `X`, on its device, from where masks are drawn."""
    if isinstance(X, tf.RaggedTensor):
        return X.with_flat_values(normal_like(X.flat_values))
    shape, dtype = _shape_of_mask(X, ()), tf.float64 if X.dtype == tf.float64 else tf.float32
    with tf.device(X.device):
        if (rng := shared_generator()) is not None:
            draw = lambda shape: normals(tuple(shape), rng, dtype == tf.float64)  # noqa: E731
            drawn = tf.numpy_function(draw, [shape], dtype)
            drawn = tf.reshape(drawn, shape)
        else:
            drawn = _source().normal(shape, dtype=dtype)
        return tf.cast(drawn, X.dtype)


@tf.autograph.experimental.do_not_convert
def where(mask: tf.Tensor, X: tf.Tensor, value: float) -> tf.Tensor:
    """Return `X` where the mask is true, and elsewhere a number, in the dtype of `X`."""
    if isinstance(X, tf.RaggedTensor):
        return X.with_flat_values(where(mask.flat_values, X.flat_values, value))
    with tf.device(X.device):
        return tf.where(mask, X, tf.cast(value, X.dtype))

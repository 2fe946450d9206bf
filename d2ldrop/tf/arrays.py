"""TensorFlow itself, imported quietly; devices, randomness, and the array functions of the book's shared cells."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from d2ldrop.errors import naming_extra
from d2ldrop.tf.quiet import quietly

# The package imports this module before any other that imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # 0 shows everything
with naming_extra("tf"), quietly(stderr=os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0"):
    import tensorflow as tf

    _gpus = tf.config.list_physical_devices("GPU")  # looks for a driver, and reports on stderr if there is none

for _gpu in _gpus:
    with suppress(RuntimeError, ValueError):  # the GPU is in use already, or its memory was limited
        tf.config.experimental.set_memory_growth(_gpu, True)

# Devices


def cpu() -> str:
    """Return the name of the CPU, for `with tf.device(...)`."""
    return "/CPU:0"


def gpu(i: int = 0) -> str:
    """Return the name of the GPU number `i`, without looking whether it is there."""
    return f"/GPU:{i}"


def num_gpus() -> int:
    """Return the number of GPUs that TensorFlow can use."""
    return len(tf.config.list_physical_devices("GPU"))


# Randomness


seedings = 0
"""How often `seed` was called."""


def seed(seed: int) -> None:
    """Seed TensorFlow's generators, on all devices."""
    global seedings
    seedings += 1
    tf.random.set_seed(seed)


def entropy() -> int:
    """Draw an integer below 2**31 from TensorFlow's own randomness."""
    return int(tf.random.uniform((), maxval=2**31 - 1, dtype=tf.int32))


def rand(*shape: Any, **options: Any) -> tf.Tensor:
    """Draw float32 uniformly from [0, 1); the shape is one argument, or its numbers are.

    Options are those of `tf.random.uniform`, such as `maxval`.
    """
    return tf.random.uniform(_as_shape(shape), **options)


def randn(*shape: Any, **options: Any) -> tf.Tensor:
    """Draw float32 from the standard normal distribution; the shape is one argument, or its numbers are."""
    return tf.random.normal(_as_shape(shape), **options)


def normal(*arguments: Any, **options: Any) -> tf.Tensor:
    """Draw float32 from a normal distribution: `normal(shape, mean=0.0, stddev=1.0)` as `tf.random.normal`.

    The order of PyTorch and MXNet, `normal(mean, stddev, shape)`, is understood as well.
    """
    if len(arguments) == 3 and not _is_shape(arguments[0]) and _is_shape(arguments[2]):
        mean, stddev, shape = arguments
        arguments = shape, mean, stddev
    return tf.random.normal(*arguments, **options)


def _as_shape(arguments: tuple[Any, ...]) -> Any:
    """Return the shape that was given as one argument or as several numbers."""
    return arguments[0] if len(arguments) == 1 and _is_shape(arguments[0]) else arguments


def _is_shape(value: Any) -> bool:
    """Return True for a tuple, a list, a `tf.TensorShape`, and an array with an axis, such as `tf.shape(X)`."""
    return isinstance(value, (tuple, list, tf.TensorShape)) or bool(getattr(value, "shape", ()))


# Arrays

float32, float64, int32, int64 = tf.float32, tf.float64, tf.int32, tf.int64
arange, linspace, meshgrid, tensor = tf.range, tf.linspace, tf.meshgrid, tf.constant
zeros, ones, eye, zeros_like, ones_like = tf.zeros, tf.ones, tf.eye, tf.zeros_like, tf.ones_like
exp, log, abs, sin, cos, sinh, cosh = tf.exp, tf.math.log, tf.abs, tf.sin, tf.cos, tf.sinh, tf.cosh
tanh, sigmoid, matmul, batch_matmul, concat, stack = tf.tanh, tf.sigmoid, tf.matmul, tf.matmul, tf.concat, tf.stack
reshape, transpose, expand_dims, repeat = tf.reshape, tf.transpose, tf.expand_dims, tf.repeat
reduce_sum, reduce_mean, argmax, astype = tf.reduce_sum, tf.reduce_mean, tf.argmax, tf.cast


def is_array(X: Any) -> bool:
    """Return True if `X` is a tensor of TensorFlow, ragged ones included, or a variable of TensorFlow or Keras."""
    return isinstance(X, (tf.Tensor, tf.RaggedTensor, tf.Variable, tf.keras.Variable))


def array(X: Any, device: str | None = None) -> tf.Tensor:
    """Copy an array of the host, or a tensor, to the device."""
    with tf.device(device):
        X = tf.convert_to_tensor(X)
        return X if device is None or X.device.endswith(device.lstrip("/")) else tf.identity(X)


to = array


def numpy(X: tf.Tensor) -> np.ndarray:
    """Return a tensor's values on the host; bfloat16, which NumPy lacks, becomes float32."""
    X = tf.convert_to_tensor(X)
    return np.asarray((tf.cast(X, tf.float32) if X.dtype == tf.bfloat16 else X).numpy())


def entries(table: Sequence[float], indices: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Return the numbers of a table at indices (N,), in the dtype of another tensor."""
    return tf.gather(tf.constant(table, like.dtype), indices)


def size(X: tf.Tensor) -> int:
    """Return the number of elements."""
    return int(tf.size(X))

"""Devices, randomness, and the array functions in which the book's shared cells are written."""

from typing import Any

import numpy as np

from d2ldrop.errors import naming_extra
from d2ldrop.randomness import shape_of

with naming_extra("jax"):
    import jax
    from jax import Array
    from jax import numpy as jnp

    from d2ldrop.jax.keys import get_key  # it needs Flax

# Devices


def cpu() -> jax.Device:
    """Return the CPU."""
    return jax.devices("cpu")[0]


def gpu(i: int = 0) -> jax.Device:
    """Return the GPU number `i`, which must be there."""
    return jax.devices("gpu")[i]


def num_gpus() -> int:
    """Return the number of GPUs that JAX can use."""
    return sum(device.platform == "gpu" for device in jax.devices())


# Randomness; `seed` is in d2ldrop.jax.keys


Shape = tuple[int, ...]


def rand(*shape: int | Shape) -> Array:
    """Draw uniformly from [0, 1), in a shape that is given as `rand(2, 5)` or `rand((2, 5))`."""
    return jax.random.uniform(get_key(), shape_of(shape))


def randn(*shape: int | Shape) -> Array:
    """Draw from the standard normal distribution, in a shape that is given as in `rand`."""
    return jax.random.normal(get_key(), shape_of(shape))


def normal(mean: float | Shape = 0.0, std: float = 1.0, shape: Shape = ()) -> Array:
    """Draw from a normal distribution: `normal(0, 0.01, (3, 4))` or, the standard one, `normal((3, 4))`."""
    centre, shape = (0.0, mean) if isinstance(mean, tuple) else (mean, shape)
    return centre + std * jax.random.normal(get_key(), shape)


# Arrays

float32, float64, int32, int64 = jnp.float32, jnp.float64, jnp.int32, jnp.int64
arange, linspace, meshgrid, tensor = jnp.arange, jnp.linspace, jnp.meshgrid, jnp.array
zeros, ones, eye, zeros_like, ones_like = jnp.zeros, jnp.ones, jnp.eye, jnp.zeros_like, jnp.ones_like
exp, log, abs, sin, cos, sinh, cosh, tanh = (
    jnp.exp, jnp.log, jnp.abs, jnp.sin, jnp.cos, jnp.sinh, jnp.cosh, jnp.tanh,
)  # fmt: skip
matmul, batch_matmul, concat, stack, sigmoid = jnp.matmul, jnp.matmul, jnp.concatenate, jnp.stack, jax.nn.sigmoid
reshape, transpose, expand_dims, repeat = jnp.reshape, jnp.transpose, jnp.expand_dims, jnp.repeat
reduce_sum, reduce_mean, argmax, size, to = jnp.sum, jnp.mean, jnp.argmax, jnp.size, jax.device_put


def value_of(X: Any) -> Any:
    """Return the array that a variable of Flax holds, and anything else as it is."""
    return X.__jax_array__() if _is_variable(X) else X


def _is_variable(X: Any) -> bool:
    """Return True if `X` is a variable of Flax; other libraries give their arrays that method, too."""
    kind = type(X)
    return hasattr(kind, "__jax_array__") and any(base.__module__.startswith("flax.") for base in kind.__mro__)


def is_array(X: Any) -> bool:
    """Return True if `X` is an array of JAX; what `jax.jit` and the like trace counts as one, and variables of Flax."""
    return isinstance(X, Array) or _is_variable(X)


def array(X: Any, device: jax.Device | None = None) -> Array:
    """Copy an array of the host, or of JAX, to the device; 64 bits become 32 unless JAX is configured to keep them."""
    X = value_of(X)
    return jax.device_put(X if isinstance(X, Array) else np.asarray(X), device)


def numpy(X: Array) -> np.ndarray:
    """Return an array's values on the host; bfloat16, which NumPy lacks, becomes float32."""
    X = value_of(X)
    return np.array(X, np.float32 if X.dtype == jnp.bfloat16 else None)


def astype(X: Array, dtype: Any) -> Array:
    """Convert the elements to another type."""
    return X.astype(dtype)

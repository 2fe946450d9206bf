"""Dropout masks: which elements are kept, drawn from few random bits, and their application.

In the plain form a mask is `jax.random.uniform(key, X.shape) >= p`, and it is applied as
`jnp.where(mask, X / (1 - p), 0)`. What is here gives the same in less time on a CPU, where JAX goes over the memory
after every four rounds of its generator, and spends a word of 32 bits on each element.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax import numpy as jnp
from jax.experimental import io_callback

from d2ldrop.errors import UsageError, not_an_array, not_real
from d2ldrop.jax.arrays import value_of
from d2ldrop.jax.keys import is_traced, is_tracing, module_key, one_key, random_words
from d2ldrop.randomness import Odds, lanes, normals, shape_of_mask, shared_generator

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


def real_floats(X: Any) -> Array:
    """Return an array of real numbers as floats of JAX: integers are promoted to the default float.

    Raises
    ------
    ArgumentTypeError
        If `X` is no array of JAX, or there is anything else in it.
    """
    X = value_of(X)
    if not isinstance(X, Array):
        raise not_an_array(X, "jax")
    if jnp.issubdtype(X.dtype, jnp.floating) and X.dtype.itemsize > 1:
        return X
    if not jnp.issubdtype(X.dtype, jnp.integer) and X.dtype != bool:
        raise not_real(X.dtype)
    return X.astype(jnp.zeros(()).dtype)


def draw_mask(X: Array, p: Odds, key: Array | None = None, axes: Iterable[int] = ()) -> Array:
    """Draw a boolean for each element of X: True, which keeps it, with probability 1 - p.

    Along `axes`, where all elements share one draw, the mask has size 1. Without a key, there is a new one from the
    stream `dropout` of the Flax module that runs, or else from `get_key`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `key` is not one key of JAX, or X has no such axes.
    UsageError
        If `key` is missing where JAX traces outside of a module: the compiled code would have one constant mask.
    """
    shape = shape_of_mask(X.shape, axes)
    if (rng := shared_generator()) is not None:
        drawn = jax.ShapeDtypeStruct(shape, f"uint{max(p.bits, 8)}")
        lane = io_callback(partial(lanes, shape, rng, p.bits), drawn, ordered=True)
        return lane.astype(jnp.int32) >= p.threshold
    return random_mask(shape, _key_for(X, key), p.threshold << 16 - p.bits)


def _key_for(X: Array, key: Any) -> Any:
    """Return the key, or a new one if it is None; errors as for `draw_mask`."""
    key = module_key("dropout") if key is None else key
    if key is None and is_traced(X):
        raise UsageError(
            "Expected a key for dropout_layer, because JAX traces this code and would compile one mask into it. Call "
            "dropout_layer(X, dropout, key=key) with a key among the arguments of the traced function, or a model of "
            'Flax by model.apply(variables, X, rngs={"dropout": key}). In a module of flax.nnx, the key is '
            "self.rngs.dropout(), for example."
        )
    return random_words() if key is None else one_key(key)


def normal_like(X: Array, key: Array | None = None) -> Array:
    """Draw standard normal numbers in the shape and dtype of X; where from, and the errors, are as for masks.

    Below 32 bits they are rounded from float32: the types of 8 and 16 bits have too few numbers to draw from.
    """
    double = X.dtype == jnp.float64
    dtype = np.float64 if double else np.float32
    if (rng := shared_generator()) is not None:
        drawn = jax.ShapeDtypeStruct(X.shape, dtype)
        host = io_callback(partial(normals, X.shape, rng, double), drawn, ordered=True)
        return host.astype(X.dtype)
    key = jax.random.wrap_key_data(threefry_key(_key_for(X, key)), impl="threefry2x32")
    return jax.random.normal(key, X.shape, dtype).astype(X.dtype)


def where(mask: Array, X: Array, value: float) -> Array:
    """Return X where the mask is true, and elsewhere a number, in the dtype of X."""
    return jnp.where(mask, X, jnp.asarray(value, X.dtype))


@partial(jax.jit, static_argnums=0)
def random_mask(shape: tuple[int, ...], key: Array, threshold: int) -> Array:
    """Draw a lane of 16 bits for each element; return True where it is not below the threshold.

    Threefry makes four lanes from the key and a counter 0, 1, 2, ... The four answers are packed into one word, a byte
    each, so that XLA makes a single loop over the counters which computes nothing twice. On a CPU this loop is divided
    into two halves by `lax.map`, because XLA would otherwise repeat it in every operation that uses the mask.

    Parameters
    ----------
    shape
        The shape of the mask; where `jax.export` has dimensions that are symbols, they may be in it.
    key
        Typed, or its raw data: uint32 (2,) or (4,).
    threshold
        From 0, which gives all True, to 2**16, which gives all False.
    """
    count = math.prod(shape)
    half = (count + 7) // 8  # counters in each half, of four lanes each
    data = threefry_key(key)

    def kept(start: Array | int, size: Any) -> list[Array]:
        counter = lax.iota(jnp.uint32, size) + start
        return [lane >= threshold for lane in split_lanes(*threefry_2x32(data, jnp.zeros_like(counter), counter))]

    # Without a loop and bytes where the count is a symbol, as XLA cannot tell how many bytes are in so many words, and
    # in `ensure_compile_time_eval`, where JAX cannot compile loops, and what is made here has a value while it traces.
    if not isinstance(count, int) or not is_tracing():
        return jnp.stack(kept(0, 2 * half), axis=1).reshape(-1)[:count].reshape(shape)

    def packed(start: Array, size: int = half) -> Array:
        bytes_ = (jnp.uint32(1 << 8 * i) * keep.astype(jnp.uint32) for i, keep in enumerate(kept(start, size)))
        return sum(bytes_, jnp.uint32(0))

    starts = np.array([0, half], np.uint32)
    words = lax.platform_dependent(
        starts,
        cpu=lambda starts: lax.map(packed, starts).reshape(-1),
        default=lambda starts: packed(starts[0], 2 * half),
    )
    return lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:count].reshape(shape) != 0


def threefry_key(key: Any) -> Any:
    """Return a key of Threefry, two uint32, for a key of JAX, typed or as its raw data.

    A key of the generator `rbg` has four words. Threefry encrypts the last two under the first two, so that each of
    them matters; a sum would be 0 for the keys that hold the same two words twice, as those from a seed do.
    """
    words = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return words if words.shape == (2,) else jnp.stack(threefry_2x32(words[:2], words[2], words[3]))


def threefry_2x32(key: Any, x0: Any, x1: Any) -> tuple[Any, Any]:
    """Return the two random words, uint32, that Threefry-2x32 with 20 rounds makes from a counter of two words.

    It is JAX's own generator: `jax.extend.random.threefry_2x32` returns the same.

    Parameters
    ----------
    key
        Two words, uint32.
    x0, x1
        The words of the counter: uint32 arrays of one shape, of JAX or NumPy.

    Notes
    -----
    A round is x0 += x1, then x1 = rotate(x1) ^ x0. Before the first round and after every fourth, the number k = 0, 1,
    ... of this injection and the next two words of the key schedule (k0, k1, k0 ^ k1 ^ a constant) are added.

    Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC (2011).
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x0, x1 = x0 + schedule[0], x1 + schedule[1]
    for i in range(20):
        left = _ROTATIONS[i % 8]
        x0 = x0 + x1
        x1 = (x1 << left | x1 >> 32 - left) ^ x0
        if i % 4 == 3:
            k = i // 4 + 1
            x0, x1 = x0 + schedule[k % 3], x1 + schedule[(k + 1) % 3] + np.uint32(k)
    return x0, x1


def split_lanes(x0: Array, x1: Array) -> tuple[Array, ...]:
    """Return the four lanes of 16 bits in two words, lowest bits first."""
    return x0 & 0xFFFF, x0 >> 16, x1 & 0xFFFF, x1 >> 16


@jax.jit
def masked(X: Array, mask: Array, scale: float) -> Array:
    """Multiply what the mask keeps by `scale`, and set the rest to 0; the gradient is the same mask times `scale`."""
    factor = jnp.minimum(scale, jnp.finfo(X.dtype).max)  # float16 ends before 65536, the largest scale
    return jnp.where(mask, X * factor, 0)  # the product X * mask * factor would make nan of a dropped inf

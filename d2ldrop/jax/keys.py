"""Keys of JAX: where new ones come from, and whether they would become constants of compiled code."""

import weakref
from typing import Any

import jax
import numpy as np
from flax.linen.module import _context as flax_context
from jax import Array
from jax import numpy as jnp

from d2ldrop.errors import ArgumentError, ArgumentTypeError
from d2ldrop.randomness import HostGenerator

generator = HostGenerator(np.random.PCG64)
"""The generator of the keys."""

given: "weakref.WeakValueDictionary[int, Array]" = weakref.WeakValueDictionary()
"""The keys that `get_key` returned and that still exist, by their `id`; `compat.renewing` recognises them."""


def seed(seed: Any) -> None:
    """Seed the keys of `get_key` with an integer or a key of JAX."""
    generator.seed(np.asarray(jax.random.key_data(seed)) if isinstance(seed, Array) else seed)


def entropy() -> int:
    """Draw an integer below 2**63 from the same generator as the keys."""
    return int(generator.rng.integers(2**63))


def key_size() -> int:
    """Return how many uint32 are a key's raw data: two, or four where JAX is configured to use its generator `rbg`."""
    config: Any = jax.config
    return 4 if "rbg" in str(config.jax_default_prng_impl) else 2


def fixed_key() -> np.ndarray:
    """Return the key where nothing is trained: evaluation is repeatable, also with layers that always drop."""
    return np.zeros(key_size(), np.uint32)


def random_words() -> np.ndarray:
    """Draw random bits on the host: what a key consists of."""
    return generator.rng.integers(2**32, size=key_size(), dtype=np.uint32)


def get_key() -> Array:
    """Return a new key at each call: 64 random bits, as two uint32, or as many as JAX is configured to use.

    In a function that you compile yourself, the key is a constant, and each run has the same masks. Make the key an
    argument of that function instead.
    """
    with jax.ensure_compile_time_eval():
        key = jnp.asarray(random_words())
    given[id(key)] = key
    return key


def get_seed() -> int:
    """Return a new integer at each call, of 31 bits, for `jax.random.PRNGKey`; it comes from where keys come from."""
    return int(generator.rng.integers(2**31))


def one_key(key: Any) -> Any:
    """Return a key, typed or as its raw data: uint32 (2,) or, of the generator `rbg`, (4,).

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `key` is no key of JAX, or several.
    """
    expected = "Expected key to be one key of JAX, such as jax.random.key(0). Received:"
    if not isinstance(key, (Array, np.ndarray)):
        raise ArgumentTypeError(f"{expected} {key!r}")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed and key.dtype != np.uint32:
        raise ArgumentTypeError(f"{expected} {key.dtype} of shape {key.shape}")
    if key.shape not in ([()] if typed else [(2,), (4,)]):
        raise ArgumentError(f"{expected} {key.dtype} of shape {key.shape}")
    return key


def module_key(stream: str) -> Array | None:
    """Return a new key from a stream, such as `dropout`, of the Flax module whose method runs now.

    Where the module has no such stream, the key is from `params`, as with Flax's own layers: `model.init(key, X)` needs
    no other key. None if no module runs, or if it has neither.
    """
    module = flax_context.module_stack[-1]  # where Flax itself looks for the parent of a new module
    if module is None or module.scope is None:
        return None
    has = module.scope.has_rng
    return module.make_rng(stream) if has(stream) or has("params") else None


def is_traced(X: Any) -> bool:
    """Return True if `X` is traced by JAX, or anything that is computed at this moment would be."""
    return isinstance(X, jax.core.Tracer) or is_tracing()


def is_tracing() -> bool:
    """Return True if anything that is computed at this moment is traced by JAX."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)

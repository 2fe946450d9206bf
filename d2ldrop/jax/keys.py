"""Keys of JAX, and the random bits that are made of them."""

import functools
import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax.linen.module import _context as flax_context
from jax import Array, lax
from jax import numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal


@functools.partial(jax.jit, static_argnums=0)
def random_drops(shape: tuple[int, ...], key: Array, threshold: int) -> Array:
    """Draw a lane of 16 bits for each element, and tell whether it is below the threshold.

    Notes
    -----
    The generator is JAX's own, Threefry-2x32 with 20 rounds: it makes four lanes of a key and a number 0, 1, 2, ... On
    a CPU, JAX goes over the memory after every four rounds, and spends 64 bits on each element. Here the rounds are
    written out, and the four answers packed into one word, so that XLA makes a single loop that computes nothing twice.
    The loop is cut in two halves: XLA would otherwise repeat it in every operation that uses the mask.

    Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC (2011).
    """
    count = math.prod(shape)
    half = -(-count // 8)
    k0, k1 = jax.random.key_data(key)[:2]
    schedule = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))

    def draw(start: Array) -> Array:
        x1 = lax.iota(jnp.uint32, half) + start + schedule[1]
        x0 = jnp.full_like(x1, schedule[0])
        for i in range(20):
            turn = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
            x0 = x0 + x1
            x1 = (x1 << turn | x1 >> 32 - turn) ^ x0
            if i % 4 == 3:
                k = i // 4 + 1
                x0, x1 = x0 + schedule[k % 3], x1 + schedule[(k + 1) % 3] + np.uint32(k)
        drop = [lane < threshold for lane in (x0 & 0xFFFF, x0 >> 16, x1 & 0xFFFF, x1 >> 16)]
        return sum(jnp.uint32(1 << 8 * i) * below for i, below in enumerate(drop))

    packed = lax.map(draw, np.array([0, half], np.uint32))
    return lax.bitcast_convert_type(packed, jnp.uint8).reshape(-1)[:count].reshape(shape) != 0


# Keys

_rng = np.random.default_rng()
_given: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()  # keys that someone still holds


def seed(seed: Any) -> None:
    """Start the keys of `get_key` afresh, from an integer or a key of JAX."""
    global _rng
    _rng = np.random.default_rng(np.asarray(jax.random.key_data(seed)) if isinstance(seed, Array) else seed)


def fresh_bits() -> np.ndarray:
    """Return 64 random bits, as two uint32."""
    return _rng.integers(2**32, size=2, dtype=np.uint32)


def get_key() -> Array:
    """Return a key that was never returned before: 64 random bits, as two uint32.

    In what you compile yourself it is a constant: there, let the key be an argument. Where the trainer compiles a step,
    such a constant is renewed whenever it is used.
    """
    with jax.ensure_compile_time_eval():
        key = jnp.asarray(fresh_bits())
    _given[id(key)] = key
    return key


def is_traced(X: Any) -> bool:
    """Tell whether JAX traces `X`, or whatever is computed at this moment."""
    return isinstance(X, jax.core.Tracer) or isinstance(jnp.zeros(()), jax.core.Tracer)


def module_key(stream: str) -> Array | None:
    """Return a new key from a stream of the Flax module whose method runs now, if there is one that has it."""
    module = flax_context.module_stack[-1]  # Flax itself looks here, when a module is made inside of another
    found = module is not None and module.scope is not None and module.scope.has_rng(stream)
    return module.make_rng(stream) if found else None


def renewing(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step (state, batch, clip) which, once it is compiled, does not use one key for ever.

    A key from `get_key` that was made before the compiled step runs, such as the default argument of a function, is a
    constant in it. So the step is first written down as a list of operations, and whenever one of these reads such a
    key, it gets a new one, made from the state's.
    """

    def renewed(state: Any, batch: Any, clip: float) -> Any:
        program, outputs = jax.make_jaxpr(lambda *args: step(*args, clip), return_shape=True)(state, batch)
        key = jax.random.fold_in(state.dropout_rng, state.step)
        keys = (jax.random.fold_in(key, i) for i in itertools.count())
        return jax.tree.unflatten(jax.tree.structure(outputs), _run(program, jax.tree.leaves((state, batch)), keys))

    return renewed


def _run(program: ClosedJaxpr, inputs: list[Any], keys: Iterator[Array]) -> list[Any]:
    names = (*program.jaxpr.constvars, *program.jaxpr.invars)
    values = dict(zip(names, (*program.consts, *inputs), strict=True))

    def read(name: Any) -> Any:
        value = name.val if isinstance(name, Literal) else values[name]
        return next(keys) if _given.get(id(value)) is value else value

    for line in program.jaxpr.eqns:
        operands = [read(name) for name in line.invars]
        if line.primitive.name in ("jit", "pjit"):  # a function inside, with constants of its own
            results = _run(line.params["jaxpr"], operands, keys)
        else:
            bound = line.primitive.get_bind_params(line.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # the latter since JAX 0.8
            results = line.primitive.bind(*functions, *operands, **params)
        several = line.primitive.multiple_results
        values.update(zip(line.outvars, results if several else [results], strict=True))
    return [read(name) for name in program.jaxpr.outvars]

"""Compatibility with the book, whose `dropout_layer(X, dropout, key=get_key())` has one key for all calls.

Python evaluates a default argument once, when the function is defined. So in the book's own package each call without
a key has the same key, and the masks of all layers (of the same shape) and of all steps are the same. Where a trainer
of this library compiles a step, `renewing` replaces such a key by a new one wherever it is used; so does `renewed` in
predictions under many masks. Elsewhere nothing does.

In your own code, do not rely on it: a key is a value like any other, and the same key gives the same numbers. Make it
an argument, and pass a different one at each call: from `jax.random.split(key)`, or in a module of Flax from
`self.make_rng("dropout")`, as this library's own `dropout_layer` does when it is called without a key.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
from jax.extend.core import ClosedJaxpr, Literal

from d2ldrop.jax.keys import given


def renewing(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step (state, batch, clip) for `jax.jit`, in which keys from `get_key` do not stay constant.

    The keys in their place depend on the state's key and on the number of the step.
    """

    def with_new_keys(state: Any, batch: Any, clip: float) -> Any:
        key = jax.random.fold_in(state.dropout_rng, state.step)
        return renewed(lambda *args: step(*args, clip), key, state, batch)

    return with_new_keys


def renewed(function: Callable[..., Any], key: Array, *args: Any) -> Any:
    """Return `function(*args)`, compiled by `jax.jit` around this, where keys from `get_key` do not stay constant.

    A key that exists before the function is compiled is a constant of it. So the function is first traced into a jaxpr,
    its list of primitive operations. When these are then evaluated one after the other, each operation that reads such
    a constant reads in its place a new key, which depends on `key`, and on how many were read before it.

    Source: the interpreter follows "Writing custom Jaxpr interpreters" in JAX's documentation.
    """
    program, outputs = jax.make_jaxpr(function, return_shape=True)(*args)
    keys = (jax.random.fold_in(key, i) for i in itertools.count())
    return jax.tree.unflatten(jax.tree.structure(outputs), _evaluate(program, jax.tree.leaves(args), keys))


def _evaluate(program: ClosedJaxpr, inputs: list[Any], keys: Iterator[Array]) -> list[Any]:
    """Evaluate a jaxpr, with the next of `keys` in place of each constant that `get_key` returned."""
    variables = (*program.jaxpr.constvars, *program.jaxpr.invars)
    values = dict(zip(variables, (*program.consts, *inputs), strict=True))

    def read(variable: Any) -> Any:
        value = variable.val if isinstance(variable, Literal) else values[variable]
        return next(keys) if given.get(id(value)) is value else value

    for equation in program.jaxpr.eqns:
        operands = [read(variable) for variable in equation.invars]
        if equation.primitive.name in ("jit", "pjit"):  # a function inside, with constants of its own
            results = _evaluate(equation.params["jaxpr"], operands, keys)
        else:
            bound = equation.primitive.get_bind_params(equation.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # the latter since JAX 0.8
            results = equation.primitive.bind(*functions, *operands, **params)
        several = equation.primitive.multiple_results
        values.update(zip(equation.outvars, results if several else [results], strict=True))
    return [read(variable) for variable in program.jaxpr.outvars]

"""The steps of training and evaluation, compiled: what `d2ldrop.jax.backend` calls."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax import Array, lax
from jax import numpy as jnp

from d2ldrop.backend import Metrics
from d2ldrop.jax.compat import renewed, renewing
from d2ldrop.jax.keys import fixed_key
from d2ldrop.jax.lesson import Module
from d2ldrop.jax.modules import State, Variables, in_mode, loss_and_extras, sampler
from d2ldrop.jax.optimizers import at_rate
from d2ldrop.training.module import recorded

Batch = tuple[Array, ...]


class Steps:
    """The steps of one training: JAX compiles each when it first runs, once for each shape of batch.

    Hyperparameters are constants of the compiled code. JAX keeps what a compiled function is given and returns besides
    arrays for as long as the function exists. So only a state's arrays go in and out: with the model, or with these
    functions, in it, they would keep each other alive for ever.
    """

    def __init__(self, model: Module, optim: Any):
        self.model, learner = model, in_mode(model, training=True)
        self.kept: Any = None  # the parameters that the model was last given by a state

        def train(state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
            key = jax.random.fold_in(state.dropout_rng, state.step)  # a new one for each step
            tx = optim if state.rate is None else at_rate(optim, state.rate)
            seen = state.replace(apply_fn=learner.apply, tx=tx, dropout_rng=key)
            (value, grads), metrics = recorded(learner.training_step, state.params, _as_floats(batch), seen)
            if clip > 0:
                grads = clip_gradients(clip, grads)
            batch_stats = loss_and_extras(value)[1].get("batch_stats", state.batch_stats)
            new = seen.apply_gradients(grads=grads, batch_stats=batch_stats, dropout_rng=state.dropout_rng)
            return _bare(new), metrics

        step = renewing(train)

        def epoch(state: State, data: Batch, rows: Array, clip: float) -> tuple[State, Metrics]:
            def body(state: State, row: Array) -> tuple[State, Metrics]:
                return step(state, tuple(samples[row] for samples in data), clip)

            return lax.scan(body, state, rows)

        self._step, self._epoch = jax.jit(step, static_argnums=2), jax.jit(epoch, static_argnums=3)

    def step(self, state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
        """Take one step; return the new state, and the metrics of the batch."""
        new, metrics = self._step(_bare(state), batch, clip)
        return new.replace(apply_fn=state.apply_fn, tx=state.tx, steps=self), metrics

    def epoch(self, state: State, data: Batch, rows: Array, clip: float) -> tuple[State, Metrics]:
        """Take a step for each of `rows`, the indices of a batch; return the new state, and vectors of metrics."""
        new, metrics = self._epoch(_bare(state), data, rows, clip)
        return new.replace(apply_fn=state.apply_fn, tx=state.tx, steps=self), metrics


def _bare(state: State) -> State:
    """Return a state with nothing but its arrays."""
    return state.replace(apply_fn=None, tx=None, steps=None)


def evaluation_of(model: Module) -> Callable[[Variables, Batch], Metrics]:
    """Return the compiled validation step of a model."""
    judge = in_mode(model, training=False)

    def evaluate(variables: Variables, batch: Batch) -> Metrics:
        key = jnp.asarray(fixed_key())
        state = State(step=0, apply_fn=judge.apply, tx=None, opt_state=(), dropout_rng=key, steps=None, **variables)
        return recorded(judge.validation_step, state.params, _as_floats(batch), state)[1]

    return jax.jit(evaluate)


def sampling_of(model: Module) -> Callable[[Variables, Array, Array], Array]:
    """Return the compiled call of a model with dropout on, given variables, inputs, and the key of the masks."""
    sample = sampler(model)

    def outputs(variables: Variables, X: Array, key: Array) -> Array:
        return sample(variables, floats([X]), key)

    return jax.jit(lambda variables, X, key: renewed(outputs, key, variables, X, key))


def floats(inputs: Iterable[Any]) -> tuple[Any, ...]:
    """Return inputs with pixels, uint8, as float32 in [0, 1], and others as they are."""
    return tuple(X.astype(jnp.float32) / 255 if X.dtype == jnp.uint8 else X for X in inputs)


def _as_floats(batch: Batch) -> Batch:
    """Return a batch as the model takes it: pixels as floats, labels as they are."""
    return (*floats(batch[:-1]), batch[-1])


def clip_gradients(grad_clip_val: float, grads: Any) -> Any:
    """Return the gradients, scaled so that their common norm is at most `grad_clip_val`."""
    norm = jnp.sqrt(sum(jnp.vdot(grad, grad) for grad in jax.tree.leaves(grads)))
    factor = jnp.minimum(1, grad_clip_val / norm)
    return jax.tree.map(lambda grad: grad * factor, grads)

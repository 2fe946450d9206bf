"""The steps of training and evaluation, compiled: what `d2ldrop.jax.backend` calls."""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from operator import is_
from typing import Any

import jax
from flax import struct
from flax.training.train_state import TrainState
from jax import Array, lax
from jax import numpy as jnp

from d2ldrop.backend import Metrics
from d2ldrop.jax.compat import renewing
from d2ldrop.jax.lesson import Module
from d2ldrop.jax.modules import COLLECTIONS, FIXED_KEY, RUNTIME_ATTRIBUTES, Variables, in_mode, loss_and_extras
from d2ldrop.training.module import BaseModule, recorded

Batch = tuple[Array, ...]


class State(TrainState):
    """What training carries from step to step; each step returns a new one."""

    batch_stats: Any
    dropout_rng: Array
    steps: "Steps" = struct.field(pytree_node=False)

    @property
    def optim(self) -> Any:
        """The optimiser, a transformation of gradients in Optax."""
        return self.tx

    @property
    def variables(self) -> Variables:
        """The parameters and batch statistics, in the form in which the model keeps them."""
        return {name: getattr(self, name) for name in COLLECTIONS}


class Steps:
    """The steps of a model. JAX compiles each when it first runs, once for each shape of batch and each optimiser.

    What the model was made from is constant in them. Metrics are returned in an `OrderedDict`, because JAX keeps its
    order, the one in which the step reported them; it sorts other dictionaries by their keys.
    """

    def __init__(self, model: Module):
        self.model, self.made_from = model, _settings(model)
        self.shared: Variables = {}  # what model and state both had when `up_to_date` last compared them
        learner, judge = in_mode(model, training=True), in_mode(model, training=False)

        @renewing
        def train(state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
            key = jax.random.fold_in(state.dropout_rng, state.step)  # a new one for each step
            seen = state.replace(apply_fn=learner.apply, dropout_rng=key)
            (value, grads), metrics = recorded(learner.training_step, state.params, _as_floats(batch), seen)
            if clip > 0:
                grads = clip_gradients(clip, grads)
            batch_stats = loss_and_extras(value)[1].get("batch_stats", state.batch_stats)
            return state.apply_gradients(grads=grads, batch_stats=batch_stats), OrderedDict(metrics)

        # The generator of shared masks becomes part of what is compiled. As a static argument, another one is noticed.

        @partial(jax.jit, static_argnums=(2, 3))
        def step(state: State, batch: Batch, clip: float, generator: Any) -> tuple[State, Metrics]:
            return train(state, batch, clip)

        @partial(jax.jit, static_argnums=(3, 4))
        def epoch(state: State, data: Batch, rows: Array, clip: float, generator: Any) -> tuple[State, Metrics]:
            def body(state: State, row: Array) -> tuple[State, Metrics]:
                return train(state, tuple(samples[row] for samples in data), clip)

            return lax.scan(body, state, rows)

        @jax.jit
        def evaluate(variables: Variables, batch: Batch) -> Metrics:
            key = jnp.asarray(FIXED_KEY)
            state = State(step=0, apply_fn=judge.apply, tx=None, opt_state=(), dropout_rng=key, steps=self, **variables)
            return OrderedDict(recorded(judge.validation_step, state.params, _as_floats(batch), state)[1])

        @partial(jax.jit, static_argnums=3)
        def evaluate_part(variables: Variables, data: Batch, start: int, size: int) -> Metrics:
            return evaluate(variables, tuple(lax.dynamic_slice_in_dim(samples, start, size) for samples in data))

        self.step, self.epoch, self.evaluate, self.evaluate_part = step, epoch, evaluate, evaluate_part


def steps_of(model: Module) -> Steps:
    """Return the compiled steps of a model: new ones if it, or its class, was changed since they were made."""
    steps, settings = model._steps, _settings(model)
    if steps is None or len(steps.made_from) != len(settings) or not all(map(is_, steps.made_from, settings)):
        steps = model._steps = Steps(model)
    return steps


def _settings(model: Module) -> list[Any]:
    """Return what compiled steps depend on: names and values of the model's attributes, and of its classes'.

    A reader may set the former, and add methods to the latter. They are compared by identity, as arrays have no other
    comparison that is true or false.
    """
    owners = [model, *[kind for kind in type(model).__mro__ if issubclass(kind, BaseModule)]]
    return [
        part for owner in owners for item in vars(owner).items() if item[0] not in RUNTIME_ATTRIBUTES for part in item
    ]


def up_to_date(state: State) -> State:
    """Return the state with the newest variables, after the model has got them, too.

    If the state has other variables than the two shared last, they are newer: it took a step, in `train_step` or in a
    reader's own `fit_epoch`. Otherwise the model's are newer, if somebody has set its weights.
    """
    steps = state.steps
    if all(getattr(state, name) is value for name, value in steps.shared.items()):
        state = state.replace(**steps.model.learned)
    steps.shared, steps.model.learned = state.variables, state.variables
    return state


def floats(inputs: Iterable[Any]) -> tuple[Any, ...]:
    """Return inputs with pixels, uint8, as float32 in [0, 1], and others as they are."""
    return tuple(X.astype(jnp.float32) / 255 if X.dtype == jnp.uint8 else X for X in inputs)


def _as_floats(batch: Batch) -> Batch:
    """Return a batch as the model takes it: pixels as floats, labels as they are."""
    return (*floats(batch[:-1]), batch[-1])


def clip_gradients(grad_clip_val: float, grads: Any) -> Any:
    """Return the gradients, scaled so that their common norm is at most `grad_clip_val`."""
    norm = jnp.sqrt(sum(jnp.vdot(grad, grad) for grad in jax.tree.leaves(grads)))
    shrink = jnp.minimum(1, grad_clip_val / norm)
    return jax.tree.map(lambda grad: grad * shrink, grads)

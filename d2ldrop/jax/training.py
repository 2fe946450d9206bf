"""Training: how the one Trainer drives JAX, and the names of its weights in files."""

from typing import Any

import jax
import numpy as np
from flax import struct, traverse_util
from flax.training.train_state import TrainState
from jax import Array, lax
from jax import numpy as jnp

from d2ldrop.backend import Metrics
from d2ldrop.jax import Batch, Module, _pair, get_key, numpy
from d2ldrop.jax.keys import renewing
from d2ldrop.jax.modules import create, in_mode, named
from d2ldrop.module import recording
from d2ldrop.weights import checked


class State(TrainState):
    """What training carries from step to step; each step returns a new one."""

    batch_stats: Any
    dropout_rng: Array
    steps: "Steps" = struct.field(pytree_node=False)


class Steps:
    """The steps of one training; they are compiled when they first run, once for each shape of batch."""

    def __init__(self, model: Module):
        self.model = model
        self.compile()

    def compile(self) -> None:
        """Forget what was compiled; hyperparameters are constants of the new steps."""
        model, self.hparams = self.model, self.model.hparams
        self.names: list[str] = []  # of the metrics, as they are reported
        learner, judge = in_mode(model, training=True), in_mode(model, training=False)

        def train(state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
            key = jax.random.fold_in(state.dropout_rng, state.step)  # a new one for each step
            seen = state.replace(apply_fn=learner.apply, dropout_rng=key)
            with recording() as metrics:
                value, grads = learner.training_step(state.params, _inputs(batch), seen)
            self.names += metrics
            if clip > 0:
                grads = clip_gradients(clip, grads)
            batch_stats = _pair(value)[1].get("batch_stats", state.batch_stats)
            return state.apply_gradients(grads=grads, batch_stats=batch_stats), metrics

        def epoch(state: State, data: Batch, rows: Array, clip: float) -> tuple[State, Metrics]:
            def body(state: State, row: Array) -> tuple[State, Metrics]:
                return train(state, tuple(samples[row] for samples in data), clip)

            return lax.scan(body, state, rows)

        def evaluate(state: State, batch: Batch) -> Metrics:
            with recording() as metrics:
                judge.validation_step(state.params, _inputs(batch), state.replace(apply_fn=judge.apply))
            self.names += metrics
            return metrics

        train = renewing(train)
        self.train, self.epoch = jax.jit(train, static_argnums=2), jax.jit(epoch, static_argnums=3)
        self.evaluate = jax.jit(evaluate)


def build(model: Module, inputs: Batch, device: jax.Device) -> bool:
    """Put the parameters on the device, and create them if there are none; return whether there were none."""
    new = model.learned is None
    if new:
        create(model, _inputs((*inputs, inputs[0]))[:-1], get_key())
    model.learned = jax.device_put(model.learned, device)
    return new


def init_state(model: Module, optim: Any, seed: int | None) -> State:
    """Put together parameters, optimiser and the key from which dropout's keys are made."""
    variables = model.learned
    key = get_key() if seed is None else jax.random.PRNGKey(seed)
    state = State.create(apply_fn=model.apply, tx=optim, dropout_rng=key, steps=Steps(model), **variables)
    where = next((leaf.device for leaf in jax.tree.leaves(variables)), None)
    return jax.device_put(state.replace(step=jnp.int32(0)), where)


def train_step(state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
    """Take one step of the optimiser."""
    return _kept(*_steps(state, training=True).train(state, batch, clip))


def train_epoch(state: State, data: Batch, order: np.ndarray, batch_size: int, clip: float) -> tuple[State, Metrics]:
    """Take a step for each `batch_size` entries of `order`; return a vector of each metric, still on the device."""
    whole = len(order) // batch_size * batch_size
    parts = []
    for part, size in ((order[:whole], batch_size), (order[whole:], len(order) - whole)):
        if len(part):
            rows = jax.device_put(part.reshape(-1, size).astype(np.int32), data[0].device)
            state, metrics = _steps(state, training=True).epoch(state, data, rows, clip)
            parts.append(metrics)
    return _kept(state, jax.tree.map(lambda *values: jnp.concatenate(values), *parts))


def eval_step(state: State, batch: Batch) -> Metrics:
    """Return the metrics of one batch, without dropout and gradients."""
    return _in_order(state, _steps(state, training=False).evaluate(state, batch))


def predict(model: Module, X: Array) -> Array:
    """Return the outputs of the model, without dropout and gradients."""
    model.training = False
    return model(*_inputs((X, X))[:-1])


def clip_gradients(grad_clip_val: float, grads: Any) -> Any:
    """Return the gradients, scaled so that their common norm is at most `grad_clip_val`."""
    norm = jnp.sqrt(sum(jnp.vdot(grad, grad) for grad in jax.tree.leaves(grads)))
    shrink = jnp.minimum(1, grad_clip_val / norm)
    return jax.tree.map(lambda grad: grad * shrink, grads)


def _inputs(batch: Batch) -> Batch:
    """Turn stored pixels, uint8, into float32 in [0, 1]."""
    return (*(X.astype(jnp.float32) / 255 if X.dtype == jnp.uint8 else X for X in batch[:-1]), batch[-1])


def _steps(state: State, training: bool) -> Steps:
    """Return the compiled steps, or new ones if someone changed a hyperparameter; let the model know its mode."""
    state.steps.model.training = training
    if state.steps.hparams != state.steps.model.hparams:
        state.steps.compile()
    return state.steps


def _kept(state: State, metrics: Metrics) -> tuple[State, Metrics]:
    """Let the model know what was learned, and pass it on."""
    state.steps.model.learned = {"params": state.params, "batch_stats": state.batch_stats}
    return state, _in_order(state, metrics)


def _in_order(state: State, metrics: Metrics) -> Metrics:
    """Return the metrics in the order in which the step reported them; JAX sorts dictionaries by their keys."""
    return {name: metrics[name] for name in state.steps.names if name in metrics}


# Weights: their names and layouts in files


def get_weights(model: Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters, the fully connected layers' as lin1.weight (outputs, inputs), lin1.bias, ..."""
    flat = traverse_util.flatten_dict(model.learned)
    return {name: numpy(flat[path].T if turned else flat[path]) for name, path, turned in named(model, flat)}


def set_weights(model: Module, weights: dict[str, np.ndarray]) -> None:
    """Assign all parameters."""
    flat = traverse_util.flatten_dict(model.learned)
    parameters = list(named(model, flat))
    shapes = {name: flat[path].shape[::-1] if turned else flat[path].shape for name, path, turned in parameters}
    weights = checked(weights, shapes)
    for name, path, turned in parameters:
        value = weights[name].T if turned else weights[name]
        flat[path] = jax.device_put(jnp.array(value, flat[path].dtype), flat[path].device)
    model.learned = traverse_util.unflatten_dict(flat)

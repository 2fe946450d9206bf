"""Training: how the one Trainer drives TensorFlow, and the names of its weights in files."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from d2ldrop.backend import Metrics
from d2ldrop.module import recording
from d2ldrop.randomness import shared_generator
from d2ldrop.tf import Module, bridge, numpy
from d2ldrop.weights import checked

_compiled = partial(tf.function, autograph=False)  # an `if` is decided while tracing; XLA would gain nothing here


class State:
    """What training carries from step to step; TensorFlow changes it in place, by functions compiled for it alone."""

    def __init__(self, model: Module, optim: Any, seed: int):
        self.model, self.optim, self.seed = model, optim, seed
        self.variables = model.trainable_variables
        if hasattr(optim, "build"):
            optim.build(self.variables)

    @_compiled
    def train(self, data: tuple[tf.Tensor, ...], rows: tf.Tensor, clip: float, rng: Any) -> Metrics:
        """Take a step for each of `rows`, the indices of the samples of a batch.

        Numbers that are no tensors, and the generator of shared masks, are part of the function: others, another trace.
        """
        tf.compat.v1.set_random_seed(self.seed + rows.shape[1])  # no other function shall draw the same numbers
        names: list[str] = []

        def step(i: tf.Tensor, curves: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            batch = _inputs(tuple(tf.gather(samples, rows[i]) for samples in data))
            with tf.GradientTape() as tape, recording() as metrics, bridge.mode(self.model, True):
                loss = bridge.in_training(lambda: self.model.training_step(batch))
            grads = tape.gradient(loss, self.variables)
            if clip > 0:
                grads = clip_gradients(clip, grads)
            pairs = zip(grads, self.variables, strict=True)
            self.optim.apply_gradients([(grad, variable) for grad, variable in pairs if grad is not None])
            names[:] = metrics
            return i + 1, curves.write(i, tf.convert_to_tensor(_scalars(metrics.values()), tf.float32))

        count = tf.shape(rows)[0]
        curves = tf.TensorArray(tf.float32, size=count)
        _, curves = tf.while_loop(lambda i, _: i < count, step, (0, curves), parallel_iterations=1)
        return dict(zip(names, tf.unstack(curves.stack(), num=len(names), axis=1), strict=True))

    @_compiled
    def validate(self, batch: tuple[tf.Tensor, ...]) -> Metrics:
        """Return the metrics of a batch."""
        with recording() as metrics, bridge.mode(self.model, False):
            self.model.validation_step(_inputs(batch))
        return dict(zip(metrics, _scalars(metrics.values()), strict=True))


def build(model: Module, inputs: tuple[tf.Tensor, ...], device: str) -> bool:
    """Create the variables on the device; return whether there were any to create."""
    if all(layer.built for layer in model._flatten_layers()):
        return False
    bridge.reseed(model)
    count = len(model.weights)
    with tf.device(device), bridge.mode(model, False):
        model(*inputs)
    return len(model.weights) > count


def init_state(model: Module, optim: Any, seed: int | None) -> State:
    """Pair the model with its optimiser, and start dropout's stream."""
    if seed is not None:
        tf.random.set_seed(seed)
        bridge.reseed(model)
    return State(model, optim, bridge.draw_seed())


def train_step(state: State, batch: tuple[tf.Tensor, ...], clip: float) -> tuple[State, Metrics]:
    """Take one step of the optimiser: the same as an epoch of one batch."""
    count = len(batch[-1])
    state, curves = train_epoch(state, batch, np.arange(count), count, clip)
    return state, {key: curve[0] for key, curve in curves.items()}


def train_epoch(
    state: State, data: tuple[tf.Tensor, ...], order: np.ndarray, batch_size: int, clip: float
) -> tuple[State, Metrics]:
    """Take a step for each `batch_size` entries of `order`; return a vector of each metric, still on the device."""
    whole = len(order) // batch_size * batch_size
    settings, curves = (clip, shared_generator()), []
    with tf.device(data[-1].device):
        for part, length in ((order[:whole], batch_size), (order[whole:], len(order) - whole)):
            if len(part):
                rows = tf.constant(part.reshape(-1, length), tf.int32)
                any_number = tf.TensorSpec((None, length), tf.int32)
                train = state.train.get_concrete_function(data, any_number, *settings)
                curves.append(train(data, rows, *settings))
        return state, {key: tf.concat([curve[key] for curve in curves], axis=0) for key in curves[0]}


def eval_step(state: State, batch: tuple[tf.Tensor, ...]) -> Metrics:
    """Return the metrics of one batch, without dropout and gradients."""
    with tf.device(batch[-1].device):
        return state.validate.get_concrete_function(batch)(batch)


def predict(model: Module, X: tf.Tensor) -> tf.Tensor:
    """Return the outputs of the model, without dropout and gradients."""
    with tf.device(X.device), bridge.mode(model, False):
        return model(*_inputs((X, X))[:-1])


def clip_gradients(grad_clip_val: float, grads: Sequence[Any]) -> list[Any]:
    """Return gradients scaled so that their common norm is at most `grad_clip_val`."""
    shrink = tf.minimum(1.0, grad_clip_val / tf.linalg.global_norm(grads))
    return [None if grad is None else tf.convert_to_tensor(grad) * shrink for grad in grads]


def _inputs(batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
    """Turn stored pixels, uint8, into float32 in [0, 1]."""
    return (*(tf.cast(X, tf.float32) / 255 if X.dtype == tf.uint8 else X for X in batch[:-1]), batch[-1])


def _scalars(values: Iterable[Any]) -> list[tf.Tensor]:
    """Return metrics as float32 without axes."""
    return [tf.reshape(tf.cast(value, tf.float32), ()) for value in values]


# Weights: their names and layouts in files


def get_weights(model: Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters, the fully connected layers' as lin1.weight (outputs, inputs), lin1.bias, ..."""
    named = bridge.named_weights(model)
    return {name: numpy(tf.transpose(value) if turned else value) for name, value, turned in named}


def set_weights(model: Module, weights: dict[str, np.ndarray]) -> None:
    """Assign all parameters in place."""
    own = {name: (value, turned) for name, value, turned in bridge.named_weights(model)}
    shapes = {name: tuple(value.shape)[:: -1 if turned else 1] for name, (value, turned) in own.items()}
    for name, array in checked(weights, shapes).items():
        value, turned = own[name]
        value.assign(array.T if turned else array)

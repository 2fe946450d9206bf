"""The steps of training and evaluation: compiled, as far as a model lets them be, or as they are written."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from d2ldrop.backend import Metrics
from d2ldrop.errors import ArgumentTypeError, D2LDropError
from d2ldrop.randomness import shared_generator
from d2ldrop.tf import arrays
from d2ldrop.tf.functional import grad_clipping
from d2ldrop.tf.keras_model import in_training, mode, noting_penalties, penalized
from d2ldrop.tf.lesson import Module
from d2ldrop.tf.masks import drawing_from
from d2ldrop.training.module import recorded

_compiled = partial(tf.function, autograph=False)  # an `if` is decided while tracing; XLA would gain nothing here


class State:
    """What training carries from step to step; TensorFlow changes it in place, by functions compiled for it alone."""

    def __init__(self, model: Module, optim: Any, seed: int):
        self.model, self.optim, self.seed = model, optim, seed
        self.generator = tf.random.Generator.from_seed(seed)
        self.variables = model.trainable_variables
        self.rate: tf.Tensor | None = None  # the learning rate of an optimiser by hand, once it was set
        self.eager = False  # whether steps run as they are written, see `traced`
        self.draws = seed  # seeds the reader's own draws, where they do
        if hasattr(optim, "build"):
            optim.build(self.variables)

    def step(self, batch: tuple[tf.Tensor, ...], clip: float, rate: Any) -> Metrics:
        """Take a step of the optimiser; return what the model's step reports."""
        with tf.GradientTape() as tape, mode(self.model, True), drawing_from(self.generator):
            with noting_penalties(self.model) as added:
                loss, metrics = recorded(in_training, lambda: self.model.training_step(batch))
            loss = penalized(loss, self.model, added)
        grads = tape.gradient(loss, self.variables)
        if clip > 0:
            grads = grad_clipping(grads, clip)
        pairs = zip(grads, self.variables, strict=True)
        with _at_rate(self.optim, rate):
            _apply(self.optim, [(grad, variable) for grad, variable in pairs if grad is not None])
        return dict(zip(metrics, _scalars(metrics.values()), strict=True))

    @_compiled
    def train(self, data: tuple[tf.Tensor, ...], rows: tf.Tensor, clip: float, rng: Any, rate: Any) -> Metrics:
        """Take a step for each of `rows`, the indices of the samples of a batch.

        Numbers that are no tensors, and the generator of shared masks, are constants of the function: for others it is
        traced again.
        """
        tf.compat.v1.set_random_seed(self.seed + rows.shape[1])  # of the reader's own draws; no other function's
        names: list[str] = []

        def step(i: tf.Tensor, curves: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            metrics = self.step(batch_of(data, rows[i]), clip, rate)
            names[:] = metrics
            return i + 1, curves.write(i, tf.convert_to_tensor([*metrics.values()], tf.float32))

        count = tf.shape(rows)[0]
        curves = tf.TensorArray(tf.float32, size=count)
        _, curves = tf.while_loop(lambda i, _: i < count, step, (0, curves), parallel_iterations=1)
        return dict(zip(names, tf.unstack(curves.stack(), num=len(names), axis=1), strict=True))

    def train_eagerly(self, data: tuple[tf.Tensor, ...], rows: tf.Tensor, clip: float, rng: Any, rate: Any) -> Metrics:
        """Do the same, step by step."""
        self.eager = True
        arrays.seed(self.draws)  # whatever callbacks drew in between
        self.draws += 1
        steps = [self.step(batch_of(data, row), clip, rate) for row in rows]
        return {key: tf.stack([metrics[key] for metrics in steps]) for key in steps[0]}


def traced(function: Any, *args: Any) -> Any:
    """Return a `tf.function` as it was traced for some arguments, or None if it has to run as it is written: eagerly.

    That is where the reader asks for it, by `tf.config.run_functions_eagerly(True)`, and where the function wants to
    know a value, as in `float(loss)`, or in an `if`: while it is traced, tensors are symbols, and have none.
    """
    if tf.config.functions_run_eagerly():
        return None
    try:
        return function.get_concrete_function(*args)
    except D2LDropError:
        raise
    except Exception as error:
        if "symbolic" in str(error).lower() or "when eager execution is enabled" in str(error):
            return None
        raise


def run(state: State, data: tuple[tf.Tensor, ...], order: np.ndarray, batch_size: int, clip: float) -> Metrics:
    """Take the steps of an epoch, whole batches first; return a vector of each metric, still on the device."""
    whole = len(order) // batch_size * batch_size
    settings, curves = (clip, shared_generator(), state.rate), []
    with tf.device(data[-1].device):
        for part, length in ((order[:whole], batch_size), (order[whole:], len(order) - whole)):
            if len(part):
                rows = tf.constant(part.reshape(-1, length), tf.int32)
                any_number = tf.TensorSpec((None, length), tf.int32)
                train = None if state.eager else traced(state.train, data, any_number, *settings)
                curves.append((train or state.train_eagerly)(data, rows, *settings))
        return {key: tf.concat([curve[key] for curve in curves], axis=0) for key in curves[0]}


def validation(model: Module, batch: tuple[tf.Tensor, ...]) -> Metrics:
    """Return what the model's validation step reports of a batch."""
    if model.compiled_validation is None:

        def validate(batch: tuple[tf.Tensor, ...]) -> Metrics:
            with mode(model, False):
                _, metrics = recorded(model.validation_step, inputs_of(batch))
            return dict(zip(metrics, _scalars(metrics.values()), strict=True))

        model.compiled_validation = _compiled(validate)
    compiled = model.compiled_validation
    with tf.device(batch[-1].device):
        step = traced(compiled, batch) if hasattr(compiled, "get_concrete_function") else compiled
        if step is None:
            model.compiled_validation = step = compiled.python_function  # from now on as it is written
        metrics: Metrics = step(batch)
        return metrics


def configured(model: Module) -> Any:
    """Return the optimiser from what `configure_optimizers` returns: by itself, or in lists as Lightning's users write.

    A schedule of Keras in a second list, `return [optimizer], [schedule]`, gives the learning rate.

    Raises
    ------
    ArgumentTypeError
        If it returns something else.
    """
    given = model.configure_optimizers()
    optim, *schedules = tf.nest.flatten(given) or [None]
    known = tf.keras.optimizers.schedules.LearningRateSchedule
    scheduled = [isinstance(optim, tf.keras.optimizers.Optimizer) and isinstance(each, known) for each in schedules]
    if optim is None or len(schedules) > 1 or not all(scheduled):
        raise ArgumentTypeError(
            "Expected configure_optimizers to return an optimiser of Keras, or an object with "
            "apply_gradients(grads_and_vars); in lists, a schedule of tf.keras.optimizers.schedules may follow. "
            f"Received: {given!r}"
        )
    if schedules:
        optim.learning_rate = schedules[0]
    return optim


def _apply(optim: Any, pairs: list[tuple[Any, Any]]) -> None:
    """Let an optimiser change variables, given pairs (gradient, variable).

    Where several replicas train, Keras' optimisers first sum the gradients over them, by a function with a gradient of
    its own, which TensorFlow registers for ever, and with it all of the graph: some MB per traced function. Inside
    `merge_call`, gradients count as summed.
    """
    tf.distribute.get_replica_context().merge_call(lambda _: optim.apply_gradients(pairs))


@contextmanager
def _at_rate(optim: Any, rate: tf.Tensor | None) -> Iterator[None]:
    """Inside the block, let an optimiser by hand have a tensor as its learning rate, if there is one."""
    if rate is None:
        yield
        return
    before, optim.lr = optim.lr, rate
    try:
        yield
    finally:
        optim.lr = before


def floats(X: tf.Tensor) -> tf.Tensor:
    """Return pixels, uint8, as float32 in [0, 1], and other tensors as they are."""
    return tf.cast(X, tf.float32) / 255 if X.dtype == tf.uint8 else X


def batch_of(data: tuple[tf.Tensor, ...], rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Return the samples with some indices, as the model takes them."""
    return inputs_of(tuple(tf.gather(samples, rows) for samples in data))


def inputs_of(batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
    """Return a batch as the model takes it: pixels as floats, labels as they are."""
    return (*map(floats, batch[:-1]), batch[-1])


def _scalars(values: Iterable[Any]) -> list[tf.Tensor]:
    """Return metrics as float32 without axes."""
    return [tf.reshape(tf.cast(value, tf.float32), ()) for value in values]

"""What models in the book's style need of Keras that it does not do by itself: a room of the adapter `d2ldrop.tf`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from d2ldrop.backend import dropout_layer
from d2ldrop.errors import BackendError

if tf.keras.backend.backend() != "tensorflow":
    raise BackendError(
        f"Expected Keras to run on TensorFlow. It runs on {tf.keras.backend.backend()}: unset KERAS_BACKEND."
    )

vars(dropout_layer)["autograph_info__"] = None  # in a reader's `tf.function`, AutoGraph takes it as it is


class Model(tf.keras.Model):
    """A model that knows whether it is training, and that is trained wherever its parameters come from.

    Subclasses define `forward(X)`. They create layers in `__init__`, and variables too, `self.W = tf.Variable(...)`.
    """

    training: bool | None = None
    """Whether dropout is on. The trainer sets it; None leaves it to whoever calls, which for Keras means off."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.built = True  # the layers inside create their variables, each when it is first called
        del self.loss  # where Keras keeps what `compile` is given; here it is a method

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, tf.Variable):  # Keras trains only variables of its own kind
            value = tf.keras.Variable(value, dtype=value.dtype.name, trainable=value.trainable, name=name)
        super().__setattr__(name, value)

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Return the outputs for some inputs; all layers inside learn from here whether they train."""
        if self.training is not None:
            kwargs.setdefault("training", self.training)
        return super().__call__(*inputs, **kwargs)

    def call(self, X: tf.Tensor, *more: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Do what `forward` does, at the place where Keras looks for it."""
        with mode(self, training):
            return self.forward(X, *more)


@contextmanager
def mode(model: Model, training: bool | None) -> Iterator[None]:
    """Set `model.training`, for a while."""
    before, model.training = model.training, training
    try:
        yield
    finally:
        model.training = before


class _Outermost(tf.keras.layers.Layer):
    """A layer that runs a step, so that all layers called in it learn that they train, even if no model is called."""

    def call(self, step: Callable[[], Any], training: bool | None = None) -> Any:
        """Return what the step returns, or its error: to one that is raised here, Keras would add words of its own."""
        try:
            return step()
        except Exception as error:
            return error


_outermost = _Outermost()


def in_training(step: Callable[[], Any]) -> Any:
    """Run a step, with dropout on in all of Keras' layers that it calls."""
    outcome = _outermost(step=step, training=True)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def draw_seed() -> int:
    """Draw a seed from TensorFlow's own randomness."""
    return int(tf.random.uniform((), maxval=2**31 - 1, dtype=tf.int32))


def reseed(model: Model) -> None:
    """Let initialisers and layers that Keras has seeded by itself follow TensorFlow's seed.

    Keras draws their seeds when they are made, before a trainer can have a say. A seed that a reader gave stays.
    """
    for layer in model._flatten_layers():
        for source in vars(layer).values():
            if isinstance(source, tf.keras.random.SeedGenerator) and source.get_config()["seed"] is None:
                source.state.assign([draw_seed(), 0])
            elif isinstance(source, tf.keras.initializers.Initializer) and source.get_config().get("seed", 0) is None:
                source.seed = draw_seed()


def named_weights(model: Model) -> Iterator[tuple[str, Any, bool]]:
    """Yield parameters under their names in files, and whether they lie there as their transpose.

    The fully connected layers are lin1, lin2, ... Others are counted by kind, such as conv2d1, because the numbers in
    Keras' own names go on from model to model.
    """
    owners = {id(value): layer for layer in model._flatten_layers() for value in layer.weights}  # the innermost wins
    numbers: dict[str, dict[int, int]] = {}
    for value in model.weights:
        owner = owners[id(value)]
        dense = isinstance(owner, tf.keras.layers.Dense)
        kind = "lin" if dense else type(owner).__name__.lower()
        seen = numbers.setdefault(kind, {})
        k = seen.setdefault(id(owner), len(seen) + 1)
        turned = dense and value.name == "kernel"
        own = "weight" if turned else value.name
        yield own if owner is model else f"{kind}{k}.{own}", value, turned

"""Dropout as a layer of Keras."""

import numbers
from contextlib import nullcontext
from typing import Any

import tensorflow as tf

from d2ldrop.errors import ArgumentError, ArgumentTypeError
from d2ldrop.randomness import odds
from d2ldrop.tf.masks import draw_mask, drawing_from, masked, real_floats


@tf.keras.utils.register_keras_serializable(package="d2ldrop")
class Dropout(tf.keras.layers.Dropout):
    """Apply `dropout_layer` where Keras trains, and nothing elsewhere; in place of `tf.keras.layers.Dropout`.

    Parameters
    ----------
    rate
        The probability p of dropping an element, a real number in [0, 1].
    noise_shape
        The shape of the mask, an entry per axis of the inputs: 1 where all elements along it share one draw, or else
        None or the size of the inputs. None: the shape of the inputs.
    seed
        An integer: then a layer that is made again draws the same masks again. None: masks come from where those of
        `dropout_layer` come from.
    **kwargs
        What all layers of Keras take, such as `name` and `dtype`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not what is said above; for the sizes in `noise_shape`, when the layer is called.

    Notes
    -----
    `tf.recompute_grad` and Keras' `RematScope` run a function again for its gradient, and then, as in TensorFlow's own
    dropout, the mask is another one: keep dropout outside of them.
    """

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any):
        odds(rate, "rate")  # checks it
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral)):
            raise ArgumentTypeError(f"Expected seed to be an integer or None. Received: {seed!r}")
        super().__init__(float(rate), _entries(noise_shape), seed if seed is None else int(seed), **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """Return the inputs, in training under dropout; a Python bool says whether it is training."""
        if not training:
            return inputs
        X, p = real_floats(inputs), odds(self.rate, "rate")
        axes = tuple(k for k, entry in enumerate(self.noise_shape or ()) if entry == 1)
        if self.noise_shape is not None:
            X = _fitting(X, self.noise_shape)
        if p.threshold == 0:
            return X
        with nullcontext() if self.seed is None else drawing_from(_Seeded(self.seed_generator)):
            return masked(X, draw_mask(X, p, axes), p.scale)


def _fitting(inputs: tf.Tensor, noise_shape: tuple[int | None, ...]) -> tf.Tensor:
    """Return the inputs, if their sizes are those in `noise_shape`; 1 and None go with any."""
    sizes = [None if entry == 1 else entry for entry in noise_shape]
    if not inputs.shape.is_compatible_with(sizes):
        raise ArgumentError(
            "Expected noise_shape to have, for each axis of the inputs, 1, None, or their size. "
            f"Received: {noise_shape} for inputs {inputs.shape}"
        )
    if inputs.shape.is_fully_defined() or not any(sizes):
        return inputs
    return tf.ensure_shape(inputs, sizes)  # checked again when a compiled function runs


class _Seeded:
    """Draws that a layer's own seed decides: the n-th draw is a function of the seed and of n."""

    def __init__(self, seeds: tf.keras.random.SeedGenerator):
        self.seeds = seeds

    def uniform(self, shape: Any, minval: int, maxval: int, dtype: tf.DType) -> tf.Tensor:
        """Draw integers as `tf.random.uniform` does."""
        seed = tf.cast(self.seeds.next(), tf.int64)
        return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype)


def _entries(noise_shape: Any) -> tuple[int | None, ...] | None:
    """Return `noise_shape` as a tuple, if it is one of positive integers and None."""
    if noise_shape is None:
        return None
    if not isinstance(noise_shape, (tuple, list, tf.TensorShape)) or not all(
        entry is None or (isinstance(entry, int) and not isinstance(entry, bool) and entry > 0) for entry in noise_shape
    ):
        raise ArgumentError(
            f"Expected noise_shape to be a tuple of positive integers and None, or None. Received: {noise_shape!r}"
        )
    return tuple(noise_shape)

"""Dropout as a layer of `flax.nnx`: `from d2ldrop.jax.nnx import Dropout`."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jax import Array
from jax import numpy as jnp

from d2ldrop.errors import UsageError
from d2ldrop.jax.lesson import dropout_layer
from d2ldrop.jax.masks import real_floats
from d2ldrop.randomness import odds

__all__ = ["Dropout"]


class Dropout(nnx.Dropout):
    """Set elements to zero with probability `rate`, and divide the others by 1 - `rate`; in place of `nnx.Dropout`.

    It follows `model.train()` and `model.eval()`.

    Parameters
    ----------
    rate
        The probability p of dropping an element, a real number in [0, 1].
    broadcast_dims
        Axes along which all elements share one draw.
    deterministic
        True: return the inputs as they are.
    rng_collection
        The name of the stream of keys in `rngs`.
    rngs
        Where keys come from, such as `nnx.Rngs(0)`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `rate` is not a real number in [0, 1].
    """

    def __init__(
        self,
        rate: float,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool = False,
        rng_collection: str = "dropout",
        rngs: Any = None,
    ):
        odds(rate, "rate")  # checks it
        super().__init__(
            rate,
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
        )

    def __call__(self, X: Array, *, deterministic: bool | None = None, rngs: Any = None) -> Array:
        """Return `X` under dropout, or as it is if `deterministic`.

        What is given here counts more than what the layer was made with; `rngs` may also be one key.
        """
        if (self.deterministic if deterministic is None else deterministic) or self.rate == 0:
            return X
        if self.rate == 1:  # needs no key
            return jnp.zeros_like(real_floats(X))
        source = self.rngs if rngs is None else rngs
        if source is None:
            raise UsageError("Expected rngs for Dropout, when it is made or called. Received: None")
        if isinstance(source, nnx.Rngs):
            source = source[self.rng_collection]
        key = source() if callable(source) else source  # a stream, or a key
        return dropout_layer(X, self.rate, key, axes=self.broadcast_dims)

"""Dropout as a layer of `flax.linen`; the one for `flax.nnx` is in `d2ldrop.jax.nnx`."""

from collections.abc import Sequence

from flax import linen as nn
from jax import Array
from jax import numpy as jnp

from d2ldrop.jax.lesson import dropout_layer
from d2ldrop.jax.masks import real_floats
from d2ldrop.randomness import odds


class Dropout(nn.Module):
    """Set elements to zero with probability `rate`, and divide the others by 1 - `rate`; in place of `nn.Dropout`.

    Parameters
    ----------
    rate
        The probability p of dropping an element, a real number in [0, 1].
    broadcast_dims
        Axes along which all elements share one draw.
    deterministic
        True: return the inputs as they are. It is given here or in the call, not in both.
    rng_collection
        The stream of the key in `model.apply(variables, X, rngs={"dropout": key})`. Where it is missing, the key is
        from the stream `params`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `rate` is not a real number in [0, 1].

    Examples
    --------
    >>> import jax
    >>> layer = Dropout(0.5, deterministic=False)
    >>> Y = layer.apply({}, jnp.ones(1000), rngs={"dropout": jax.random.key(0)})
    >>> sorted(set(Y.tolist()))
    [0.0, 2.0]
    """

    rate: float
    broadcast_dims: Sequence[int] = ()
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    def __post_init__(self) -> None:
        """Check the probability; Flax calls it when the module was made."""
        odds(self.rate, "rate")
        super().__post_init__()

    @nn.compact
    def __call__(self, X: Array, deterministic: bool | None = None, rng: Array | None = None) -> Array:
        """Return `X` under dropout, or as it is if `deterministic`.

        The key is `rng` or, without it, from the stream `rng_collection`.
        """
        if nn.merge_param("deterministic", self.deterministic, deterministic) or self.rate == 0:
            return X
        if self.rate == 1:  # needs no key
            return jnp.zeros_like(real_floats(X))
        key = self.make_rng(self.rng_collection) if rng is None else rng
        return dropout_layer(X, self.rate, key, axes=self.broadcast_dims)

"""The chapter's model under other noise than dropout, in every framework that finds gradients itself."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.errors import ArgumentError, UsageError
from d2ldrop.noise import alpha_dropout_layer, dropconnect_layer, gaussian_dropout_layer, input_noise
from d2ldrop.registry import dropout_layer, get_backend

__all__ = ["AFTER_HIDDEN", "HIDDEN", "INPUTS", "NOISES", "Noise", "Under", "noisy_model", "on_inputs", "on_weights"]

Under = Callable[[AnyBackend, Any, float, Array], Array]  # (backend, layer, strength, its inputs) -> its outputs


def on_inputs(noise: Callable[[Array, float], Array]) -> Under:
    """Return how a layer is called with noise on what goes into it."""
    return lambda backend, layer, strength, H: layer(noise(H, strength))


def on_weights(backend: AnyBackend, layer: Any, dropout: float, H: Array) -> Array:
    """Call a hidden layer with weights that are dropped; its bias is not.

    All samples of the batch share one mask. A mask for each, as in the paper, would take (N, inputs, outputs) numbers:
    206 MB for the chapter's first layer and batches of 256.
    """
    if len(H.shape) > 2:  # in MXNet, layers flatten images themselves
        H = H.reshape(len(H), -1)
    W, b = backend.affine(layer)
    Z = dropconnect_layer(H, W, dropout) + b
    return backend.where(Z > 0, Z, 0.0)  # ReLU


class Noise(NamedTuple):
    """A kind of noise, and which of the layers `lin1`, `lin2`, ... are called under it."""

    under: Under
    layers: slice


INPUTS, HIDDEN, AFTER_HIDDEN = slice(0, 1), slice(0, -1), slice(1, None)

NOISES = {
    "dropout": Noise(on_inputs(dropout_layer), AFTER_HIDDEN),
    "gaussian dropout": Noise(on_inputs(gaussian_dropout_layer), AFTER_HIDDEN),
    "alpha dropout": Noise(on_inputs(alpha_dropout_layer), AFTER_HIDDEN),
    "input noise": Noise(on_inputs(input_noise), INPUTS),
    "DropConnect": Noise(on_weights, HIDDEN),
}


def noisy_model(backend: str, noise: str, strength: float) -> type[Any]:
    """Return a class like `DropoutMLPScratch`, with noise in the place of dropout.

    The probabilities that it is made with have no effect. With the noise "dropout" it trains as the chapter's model
    does that has `strength` as its probabilities, bit by bit.

    Parameters
    ----------
    backend
        The name of a backend.
    noise
        One of `NOISES`.
    strength
        The probability of dropping something, the same in all layers; of "input noise", the standard deviation.

    Raises
    ------
    UsageError
        If the backend's models have a backward pass by hand: it is that of dropout.
    ArgumentError
        If there is no such noise.
    """
    found = get_backend(backend)
    if found.by_hand:
        raise UsageError(
            "Expected a backend that finds gradients itself, for noise in place of dropout. "
            f"Received: {backend}, whose models have a backward pass by hand. Use another one, such as torch."
        )
    if noise not in NOISES:
        raise ArgumentError(f"Expected noise to be one of {', '.join(NOISES)}. Received: {noise!r}")
    under, which = NOISES[noise]
    base: Any = found.models["DropoutMLPScratch"]

    def layers(model: Any) -> list[Any]:
        """Return the layers as they are called now; under noise only in training."""
        own = [getattr(model, f"lin{k}") for k in range(1, len(model.hidden_dropouts) + 2)]
        if strength and found.is_training(model):
            for k in range(len(own))[which]:
                own[k] = partial(under, found, own[k], strength)
        return own

    class NoisyMLP(base):  # type: ignore[misc]
        """The scratch model, whose layers are called under noise in training."""

        @property
        def hidden_layers(self) -> list[tuple[Any, float]]:
            """The hidden layers, each with the probability 0 of dropping what it returns."""
            return [(layer, 0.0) for layer in layers(self)[:-1]]

        @property
        def output_layer(self) -> Any:
            """The last layer."""
            return layers(self)[-1]

    return NoisyMLP

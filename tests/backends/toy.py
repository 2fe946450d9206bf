"""The toy backend: its arrays are a kind of NumPy's, and so is all that tests need of it."""

from backends.numpy import (
    DEFAULT_FLOAT,
    FLOATS,
    GRADIENTS_ARE_VALUES,
    HAS_AUTODIFF,
    HAS_VIEWS,
    TRACES_STEPS,
    as_dtype,
    concise_net,
    drop,
    finish,
    loss_times_ten,
    losses_of,
    readers_models,
    scratch_net,
    set_mode,
    spied,
)

__all__ = [
    "DEFAULT_FLOAT",
    "FLOATS",
    "GRADIENTS_ARE_VALUES",
    "HAS_AUTODIFF",
    "HAS_VIEWS",
    "TRACES_STEPS",
    "as_dtype",
    "concise_net",
    "drop",
    "finish",
    "loss_times_ten",
    "losses_of",
    "readers_models",
    "scratch_net",
    "set_mode",
    "spied",
]

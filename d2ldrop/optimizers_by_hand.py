"""What is known of an optimiser by hand: the arrays and numbers in its attributes, and its learning rate."""

import numbers
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from d2ldrop.errors import UsageError

__all__ = ["kept", "no_rate", "set_rate"]


def kept(values: Any, is_array: Callable[[Any], bool], prefix: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield a name for each array or number in nested dictionaries and lists, what it is in, its key, and itself.

    Parameters are left out, as well as the hyperparameters' dictionary, whose values are attributes, too.
    """
    pairs = list(values.items() if isinstance(values, dict) else enumerate(values))
    for key, value in pairs:
        if key in ("params", "hparams"):
            continue
        name = f"{prefix}{key}"
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if number or isinstance(value, np.ndarray) or is_array(value):
            yield name, values, key, value
        elif isinstance(value, (dict, list)):
            yield from kept(value, is_array, f"{name}.")


def set_rate(optim: Any, lr: Any) -> None:
    """Set the learning rate of an optimiser by hand, which has a number as its attribute `lr`.

    Raises
    ------
    UsageError
        If it has none.
    """
    if not isinstance(getattr(optim, "lr", None), numbers.Real):
        raise no_rate(optim)
    optim.lr = lr


def no_rate(optim: Any) -> UsageError:
    """Return the error for an optimiser whose learning rate cannot be set."""
    return UsageError(
        "Expected an optimiser whose learning rate can be set: the model's own, one of the framework without a "
        "schedule of its own (of Optax by inject_hyperparams), or one by hand with a number as its attribute lr. "
        f"Received: {type(optim).__name__}"
    )

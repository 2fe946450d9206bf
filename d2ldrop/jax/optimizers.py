"""Optax's optimisers, by the names that a model may give, and how their learning rates are set.

A compiled step has the learning rate in it as a constant. To set it, the optimiser is made again, with the rate as an
argument of the step, which is compiled again the first time, and not for each rate.
"""

import copy
from collections.abc import Callable
from typing import Any

import jax
import optax

from d2ldrop.optimizers_by_hand import set_rate
from d2ldrop.training.optimizers import chosen


class Optimizer(optax.GradientTransformation):  # type: ignore[misc]
    """An optimiser of Optax, together with the function of the learning rate `lr` that makes it."""

    make: Callable[[Any], Any]
    lr: Any


def made(make: Callable[[Any], Any], lr: Any) -> Optimizer:
    """Return the optimiser that a function makes with a learning rate."""
    optim = Optimizer(*make(lr))
    optim.make, optim.lr = make, lr
    return optim


def optimizer_for(model: Any) -> Optimizer:
    """Return the optimiser of Optax that a model asks for, see `d2ldrop.training.optimizers.chosen`."""
    name, lr, decay, momentum = chosen(model)

    def make(lr: Any) -> Any:
        if name == "adamw":
            return optax.adamw(lr, weight_decay=decay)
        own = optax.adam(lr) if name == "adam" else optax.sgd(lr, momentum or None)
        return optax.chain(optax.add_decayed_weights(decay), own) if decay else own

    return made(make, lr)


def at_rate(optim: Any, lr: Any) -> Any:
    """Return an optimiser like another one, ours or one by hand, but with another learning rate.

    Raises
    ------
    UsageError
        If it has no number as its learning rate.
    """
    if isinstance(optim, Optimizer) and not callable(optim.lr):
        return made(optim.make, lr)
    other = copy.copy(optim)
    set_rate(other, lr)
    return other


def with_injected_rate(memory: Any, lr: float) -> Any:
    """Return an optimiser's memory with another learning rate where `optax.inject_hyperparams` keeps one, or None."""
    found = [state for state in jax.tree.leaves(memory, is_leaf=_has_rate) if _has_rate(state)]
    if not found:
        return None

    def put(state: Any) -> Any:
        if not _has_rate(state):
            return state
        rate = state.hyperparams["learning_rate"]
        return state._replace(hyperparams={**state.hyperparams, "learning_rate": jax.numpy.full_like(rate, lr)})

    return jax.tree.map(put, memory, is_leaf=_has_rate)


def _has_rate(state: Any) -> bool:
    """Return True if a part of an optimiser's memory holds a learning rate that no schedule overwrites."""
    injected = "learning_rate" in getattr(state, "hyperparams", ())
    return injected and "learning_rate" not in getattr(state, "hyperparams_states", ())

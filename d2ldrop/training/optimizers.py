"""Which optimiser a model asks for, in names and meanings that are the same in every framework: those of PyTorch."""

import numbers
from typing import Any, NamedTuple

from d2ldrop.errors import UsageError
from d2ldrop.hyperparameters import check_optimizer, number

LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}
"""The optimisers, and the learning rate of each that the command line takes if none is given."""


class Choice(NamedTuple):
    """An optimiser and its settings."""

    name: str  # one of LEARNING_RATES
    lr: Any  # a number, or a schedule of the framework
    weight_decay: float
    momentum: float


def chosen(model: Any) -> Choice:
    """Return which optimiser a model is to be trained with, by its attributes.

    Parameters
    ----------
    model
        A model with the attribute `lr`, and with those of the following that are not at their defaults.

        `optimizer`
            "sgd", or else "adam" or "adamw".
        `weight_decay`
            A number of at least 0, the default. Times each parameter, biases included, it is added to the gradient.
            With "adamw" it is not: there, in each step, parameters shrink by `lr` times it.
        `momentum`
            A number in [0, 1], by default 0. The velocity, which in each step becomes `momentum` times itself plus the
            gradient, takes the place of the gradient. For "sgd" alone.

    Raises
    ------
    ArgumentError
        If one of these is something else.

    Notes
    -----
    Sources: Kingma and Ba, Adam: a method for stochastic optimization (2015); Loshchilov and Hutter, Decoupled weight
    decay regularization (2019). Adam's decay rates are 0.9 and 0.999, and its epsilon is 1e-8.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> chosen(SimpleNamespace(lr=0.1, momentum=0.9))
    Choice(name='sgd', lr=0.1, weight_decay=0.0, momentum=0.9)
    >>> chosen(SimpleNamespace(lr=0.1, momentum=0.9, optimizer="adam"))
    Traceback (most recent call last):
    d2ldrop.errors.ArgumentError: Expected momentum to be 0 with the optimizer adam. Received: 0.9
    """
    name = getattr(model, "optimizer", "sgd")
    if not isinstance(name, str):  # Keras' own `compile` leaves its optimiser there
        name = getattr(model, "hparams", {}).get("optimizer", "sgd")
    decay, momentum = (number(key, getattr(model, key, 0.0)) for key in ("weight_decay", "momentum"))
    check_optimizer(name, momentum)
    return Choice(name, model.lr, decay, momentum)


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

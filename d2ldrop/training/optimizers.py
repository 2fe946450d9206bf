"""Which optimiser a model asks for, in names and meanings that are the same in every framework: those of PyTorch."""

from typing import Any, NamedTuple

from d2ldrop.hyperparameters import check_optimizer, number

__all__ = ["Choice", "chosen"]


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
        name = model.hparams.get("optimizer", "sgd")
    decay, momentum = (number(key, getattr(model, key, 0.0)) for key in ("weight_decay", "momentum"))
    check_optimizer(name, momentum)
    return Choice(name, model.lr, decay, momentum)

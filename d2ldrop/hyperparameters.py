"""Remember what an object was made with, and add methods to a class after the fact."""

import inspect
import math
import numbers
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from d2ldrop.errors import ArgumentError, ArgumentTypeError
from d2ldrop.randomness import odds

__all__ = [
    "ANY_LAYERS",
    "LEARNING_RATES",
    "OPTIMIZERS",
    "OPTIONS",
    "TINY",
    "TWO_LAYERS",
    "HyperParameters",
    "add_to_class",
    "call_of",
    "check_optimizer",
    "checked",
    "each",
    "is_overridden",
    "number",
    "positive",
    "whole",
    "without_defaults",
]

Method = TypeVar("Method", bound=Callable[..., Any])

LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}
"""The optimisers, and the learning rate of each that the command line takes if none is given."""

OPTIMIZERS = tuple(LEARNING_RATES)
OPTIONS = {"weight_decay": 0.0, "momentum": 0.0, "optimizer": "sgd", "class_weights": None}
"""Hyperparameters of the chapter's models that are given by name, and their defaults."""

TINY = 1e-30
"""Added to a sum of weights, which may be 0, before something is divided by it; it changes no other sum."""

TWO_LAYERS = ("num_hiddens_1", "num_hiddens_2", "dropout_1", "dropout_2")
ANY_LAYERS = ("num_hiddens", "dropouts")
"""The two forms in which hidden layers are given: the chapter's, and one for any number of them."""


def add_to_class(Class: type) -> Callable[[Method], Method]:
    """Make the decorated function a method of `Class`, under its own name.

    It lets a notebook define a class over several cells; instances that exist already get the method, too.

    Examples
    --------
    >>> class A: ...
    >>> a = A()
    >>> @add_to_class(A)
    ... def double(self, x):
    ...     return 2 * x
    >>> a.double(21)
    42
    """

    def register(method: Method) -> Method:
        setattr(Class, getattr(method, "func", method).__name__, method)
        return method

    return register


class HyperParameters:
    """Base of everything that is made from hyperparameters."""

    hparams: Mapping[str, Any] = MappingProxyType({})
    """What `save_hyperparameters` was given; empty if it was not called."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Tell the type checker that there are attributes which no class declares."""

    def save_hyperparameters(self, ignore: Iterable[str] = (), check: bool = False) -> None:
        """Make each argument of the calling `__init__` an attribute and an entry of `self.hparams`.

        Parameters
        ----------
        ignore
            Names to leave out. Names that begin with an underscore are left out anyway.
        check
            Whether to check the values of the names that the chapter's models have, see `checked`, and to make
            attributes of `OPTIONS` that are not given.

        Examples
        --------
        >>> class Layer(HyperParameters):
        ...     def __init__(self, width, rate=0.5, secret=None):
        ...         self.save_hyperparameters(ignore=["secret"])
        >>> layer = Layer(3)
        >>> layer.width, layer.rate, layer.hparams
        (3, 0.5, {'width': 3, 'rate': 0.5})
        """
        frame = sys._getframe(1)
        names, varargs, varkw, values = inspect.getargvalues(frame)
        code = frame.f_code
        keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        arguments = {name: values[name] for name in (*names[1:], *keyword_only)}
        arguments.update({varargs: values[varargs]} if varargs else {})
        more = values[varkw] if varkw else {}
        arguments.update(more)
        skipped = set(ignore)
        self.hparams = {
            name: value for name, value in arguments.items() if name not in skipped and not name.startswith("_")
        }
        attributes = self.hparams
        if check:
            if unknown := {*more} - {*OPTIONS}:
                raise ArgumentTypeError(f"Expected options among {', '.join(OPTIONS)}. Received: {', '.join(unknown)}")
            self.hparams = checked(self.hparams, getattr(self, "is_regression", False))
            attributes = {**OPTIONS, **self.hparams}
        for name, value in attributes.items():
            setattr(self, name, value)


def call_of(thing: HyperParameters) -> str:
    """Return the call that made an object, without arguments that have their default, for its `repr`.

    Examples
    --------
    >>> class Layer(HyperParameters):
    ...     def __init__(self, width, rate=0.5, bias=True):
    ...         self.save_hyperparameters()
    >>> call_of(Layer(3, bias=False))
    'Layer(width=3, bias=False)'
    """
    known = inspect.signature(type(thing)).parameters
    texts = {name: reprlib.repr(value) for name, value in thing.hparams.items()}
    given = [f"{name}={text}" for name, text in texts.items() if name not in known or text != repr(known[name].default)]
    return f"{type(thing).__name__}({', '.join(given)})"


def is_overridden(thing: Any, method: str) -> bool:
    """Return True if a method of a class of this library was written by the reader, or added by `add_to_class`."""
    return not getattr(type(thing), method).__module__.startswith("d2ldrop.")


def checked(hparams: Mapping[str, Any], is_regression: bool = False) -> dict[str, Any]:
    """Return the hyperparameters of the chapter's models as numbers of Python, which files can hold.

    These are `num_...`, `dropout...`, `lr`, which may be a schedule of the framework, and `OPTIONS`. Those that have
    their default, and the form of hidden layers that is not used, are left out.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If one is no positive integer, no probability, or no number of at least 0; if both forms of hidden layers are
        given, or half a form; if there are weights of classes in a regression, or not one per class.

    Examples
    --------
    >>> checked({"num_outputs": np.int64(10), "lr": 0.1, "momentum": 0.0})
    {'num_outputs': 10, 'lr': 0.1}
    >>> checked({"num_hiddens": [256, 128, 64], "dropouts": [0.2, 0.5, 0.5]})
    {'num_hiddens': (256, 128, 64), 'dropouts': (0.2, 0.5, 0.5)}
    >>> checked({"num_outputs": 10, "dropout_1": 1.5})
    Traceback (most recent call last):
    d2ldrop.errors.ArgumentError: Expected dropout_1 to be a number in [0, 1]. Received: 1.5
    """
    found = _in_one_form(hparams) if {*ANY_LAYERS} <= {*hparams} else dict(hparams)
    lists = {*ANY_LAYERS} <= {*found}
    for name, value in found.items():
        if lists and name in ANY_LAYERS:
            found[name] = each(positive if name == "num_hiddens" else _probability, name, value)
        elif name.startswith("num_"):
            found[name] = positive(name, value)
        elif name.startswith("dropout"):
            found[name] = _probability(name, value)
        elif name in ("weight_decay", "momentum") or (name == "lr" and not callable(value)):
            found[name] = number(name, value)
        elif name == "class_weights" and value is not None:
            if is_regression:
                raise ArgumentError(f"Expected no class_weights, as a regression has no classes. Received: {value!r}")
            found[name] = _weights_of_classes(value, found.get("num_outputs"))
    if lists and len(found["num_hiddens"]) != len(found["dropouts"]):
        lengths = f"{len(found['num_hiddens'])} and {len(found['dropouts'])}"
        raise ArgumentError(f"Expected as many numbers in num_hiddens as in dropouts. Received: {lengths}")
    check_optimizer(found.get("optimizer", "sgd"), found.get("momentum", 0.0))
    return without_defaults(found)


def check_optimizer(name: Any, momentum: float) -> None:
    """Raise an ArgumentError if an optimiser is none of `OPTIMIZERS`, or if the momentum does not go with it."""
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise ArgumentError(f"Expected optimizer to be one of {', '.join(OPTIMIZERS)}. Received: {name!r}")
    if momentum > 1:
        raise ArgumentError(f"Expected momentum to be a number in [0, 1]. Received: {momentum!r}")
    if momentum and name != "sgd":
        raise ArgumentError(f"Expected momentum to be 0 with the optimizer {name}. Received: {momentum!r}")


def without_defaults(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of the chapter's models without those that say nothing."""
    defaults = {**OPTIONS, **dict.fromkeys((*TWO_LAYERS, *ANY_LAYERS))}
    plain = (int, float, str, type(None))  # an array would be compared element by element
    return {
        name: value
        for name, value in hparams.items()
        if name not in defaults or not isinstance(value, plain) or value != defaults[name]
    }


def _in_one_form(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters with the form of hidden layers that is given, and not the other one."""
    given = [name for name in (*ANY_LAYERS, *TWO_LAYERS) if hparams.get(name) is not None]
    if given and {*given} < {*TWO_LAYERS}:
        missing = next(name for name in TWO_LAYERS if name not in given)
        raise ArgumentError(
            f"Expected {missing} to be a number, unless {' and '.join(ANY_LAYERS)} are given. Received: None"
        )
    if {*given} not in ({*ANY_LAYERS}, {*TWO_LAYERS}):
        raise ArgumentError(
            f"Expected either {', '.join(TWO_LAYERS[:-1])} and {TWO_LAYERS[-1]}, or {' and '.join(ANY_LAYERS)}. "
            f"Received: {', '.join(given) or 'none of them'}"
        )
    return {name: value for name, value in hparams.items() if name in given or name not in (*TWO_LAYERS, *ANY_LAYERS)}


def each(check: Callable[[str, Any], Any], name: str, values: Any) -> tuple[Any, ...]:
    """Return what a check returns for each item of a sequence, or an array, that the argument `name` was given."""
    listed = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ArgumentError(f"Expected {name} to be a list of numbers. Received: {values!r}")
    return tuple(check(f"{name}[{k}]", value) for k, value in enumerate(listed))


def _weights_of_classes(values: Any, num_classes: int | None) -> tuple[float, ...]:
    """Return the weights of classes, of which there is a number, if it is known."""
    found = each(number, "class_weights", values)
    if num_classes is not None and len(found) != num_classes:
        raise ArgumentError(f"Expected class_weights to be {num_classes} numbers. Received: {len(found)}")
    if not any(found):
        raise ArgumentError(f"Expected class_weights that are not all 0. Received: {values!r}")
    return found


def _probability(name: str, value: Any) -> int | float:
    """Return a probability that the argument `name` was given."""
    odds(value, name)  # checks it
    return value if isinstance(value, (int, float)) else float(value)


def positive(name: str, value: Any) -> int:
    """Return a positive integer that the argument `name` was given."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral) or value < 1:
        raise ArgumentError(f"Expected {name} to be a positive integer. Received: {value!r}")
    return int(value)


def whole(name: str, value: Any) -> int:
    """Return an integer of at least 0 that the argument `name` was given."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral) or value < 0:
        raise ArgumentError(f"Expected {name} to be an integer of at least 0. Received: {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """Return a number, finite and not negative, that the argument `name` was given."""
    try:
        found = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # 10**400
        found = math.inf
    if not 0 <= found < math.inf:  # also false for nan
        raise ArgumentError(f"Expected {name} to be a number of at least 0. Received: {value!r}")
    return found

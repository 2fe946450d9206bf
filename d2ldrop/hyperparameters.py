"""Remember what an object was made with, and add methods to a class after the fact."""

import inspect
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from d2ldrop.errors import ArgumentError
from d2ldrop.randomness import odds

Method = TypeVar("Method", bound=Callable[..., Any])


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

    hparams: dict[str, Any]

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
            Whether to check the values of the names that the chapter's models have, see `checked`.

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
        arguments.update(values[varkw] if varkw else {})
        skipped = set(ignore)
        self.hparams = {
            name: value for name, value in arguments.items() if name not in skipped and not name.startswith("_")
        }
        if check:
            self.hparams = checked(self.hparams)
        for name, value in self.hparams.items():
            setattr(self, name, value)


def is_overridden(thing: Any, method: str) -> bool:
    """Return True if a method of a class of this library was written by the reader, or added by `add_to_class`."""
    return not getattr(type(thing), method).__module__.startswith("d2ldrop.")


def checked(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of the chapter's models as numbers of Python, which files can hold.

    These are `num_...`, `dropout_...`, and `lr`, which may be a schedule of the framework.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If one is no positive integer, no probability, or no number of at least 0.

    Examples
    --------
    >>> checked({"num_outputs": np.int64(10), "lr": 0.1})
    {'num_outputs': 10, 'lr': 0.1}
    >>> checked({"num_outputs": 10, "dropout_1": 1.5})
    Traceback (most recent call last):
    d2ldrop.errors.ArgumentError: Expected dropout_1 to be a number in [0, 1]. Received: 1.5
    """
    found = dict(hparams)
    for name, value in hparams.items():
        if name.startswith("num_"):
            found[name] = positive(name, value)
        elif name.startswith("dropout"):
            odds(value, name)
            found[name] = value if isinstance(value, (int, float)) else float(value)
        elif name == "lr" and not callable(value):
            found[name] = number(name, value)
    return found


def positive(name: str, value: Any) -> int:
    """Return a positive integer that the argument `name` was given."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral) or value < 1:
        raise ArgumentError(f"Expected {name} to be a positive integer. Received: {value!r}")
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

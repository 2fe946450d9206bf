"""What arguments may be: each type is read, checked, and refused in one line."""

import argparse
from collections.abc import Callable
from pathlib import Path

from d2ldrop.errors import ArgumentError
from d2ldrop.files import check_writable, is_stream

__all__ = ["MODELS", "count", "not_negative", "positive", "probability", "separator", "whole", "writable"]

MODELS = {"scratch": "DropoutMLPScratch", "concise": "DropoutMLP"}
"""The chapter's models by their short names."""


def count(text: str) -> int:
    """Read a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return int(text)


def whole(text: str) -> int:
    """Read an integer that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, received {text!r}")
    return int(text)


def positive(text: str) -> float:
    """Read a positive number."""
    return _number(text, lambda value: 0 < value < float("inf"), "a positive number")


def not_negative(text: str) -> float:
    """Read a number of at least 0."""
    return _number(text, lambda value: 0 <= value < float("inf"), "a number of at least 0")


def probability(text: str) -> float:
    """Read a number in [0, 1]."""
    return _number(text, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def separator(text: str) -> str:
    r"""Read the character between the cells of a table; a tab may be written as `\t`."""
    text = "\t" if text in ("\\t", "tab") else text
    if len(text) != 1 or text.isalnum() or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"expected one character, such as ';' or '\\t', received {text!r}")
    return text


def writable(*endings: str) -> Callable[[str], Path]:
    """Return a reader of paths to which a file can be written, now and not only after training.

    Parameters
    ----------
    endings
        Those that the file's name may have, such as `".png"`; none for any.
    """

    def path(text: str) -> Path:
        try:
            check_writable(text)
        except ArgumentError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if endings and Path(text).suffix not in endings and not is_stream(text):
            raise argparse.ArgumentTypeError(f"expected a name that ends in {', '.join(endings)}, received {text!r}")
        return Path(text)

    return path


def _number(text: str, allowed: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"expected {what}, received {text!r}")
    return value

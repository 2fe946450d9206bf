"""What arguments may be: each type is read, checked, and refused in one line."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path


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


def probability(text: str) -> float:
    """Read a number in [0, 1]."""
    return _number(text, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def writable(text: str) -> Path:
    """Read a path of a file that can be made; better refused now than after training."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a file in a folder that can be written to, received {text!r}")
    return path


def _number(text: str, allowed: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"expected {what}, received {text!r}")
    return value

"""The errors d2ldrop raises: one root, and beside it the builtin each would be without us."""

from typing import Any


class D2LDropError(Exception):
    """The root of every error that this library raises on purpose."""

    ag_pass_through = True  # in a `tf.function` it stays the error that it is


class ArgumentError(D2LDropError, ValueError):
    """A value outside of what is allowed."""


class ArgumentTypeError(D2LDropError, TypeError):
    """A value of a kind that cannot be used here."""


class BackendError(D2LDropError, ImportError):
    """A framework that is unknown, or that is not installed."""


class DataError(D2LDropError, ValueError):
    """Data that is damaged, or of the wrong shape."""


class DataNotFoundError(D2LDropError, FileNotFoundError):
    """Data that is neither on this machine nor could be downloaded."""


class WeightsError(D2LDropError, ValueError):
    """Saved weights that do not fit the model, or a file that holds none."""


class UsageError(D2LDropError, RuntimeError):
    """A call at the wrong moment, such as evaluating before anything was fitted."""


class DivergedError(D2LDropError, ArithmeticError):
    """Training whose loss or weights became nan or infinite."""


class CheckpointError(D2LDropError, ValueError):
    """A checkpoint that is damaged, or of another training."""


class StudyError(D2LDropError, RuntimeError):
    """A run of a study that failed, or that no worker survived."""


def not_an_array(X: Any, backend: str) -> ArgumentTypeError:
    """Return the error for what is no array of a backend's framework."""
    kind = f"{type(X).__module__}.{type(X).__qualname__}".removeprefix("builtins.")
    return ArgumentTypeError(
        f"Expected X to be an array of {backend}. Received: {kind}. d2ldrop.{backend}.array(X) makes one."
    )


def not_real(dtype: Any) -> ArgumentTypeError:
    """Return the error for an array of numbers that dropout cannot scale."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", str(dtype))
    return ArgumentTypeError(
        f"Expected X to hold real numbers of 16 to 64 bits. Received: {str(name).rpartition('.')[2]}"
    )

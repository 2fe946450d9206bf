"""The errors d2ldrop raises: one root, and beside it the builtin each would be without us."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "BackendError",
    "CheckpointError",
    "D2LDropError",
    "DataError",
    "DataNotFoundError",
    "DivergedError",
    "MissingPackageError",
    "StudyError",
    "UsageError",
    "WeightsError",
    "naming_extra",
    "need",
    "not_an_array",
    "not_installed",
    "not_real",
]


class D2LDropError(Exception):
    """The root of every error that this library raises on purpose."""

    ag_pass_through = True  # in a `tf.function` it stays the error that it is


class ArgumentError(D2LDropError, ValueError):
    """A value outside of what is allowed."""


class ArgumentTypeError(D2LDropError, TypeError):
    """A value of a kind that cannot be used here."""


class BackendError(D2LDropError, ImportError):
    """A framework that is unknown, or that is not installed."""


class MissingPackageError(D2LDropError, ImportError):
    """A package of an optional part of this library that is not installed."""


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


def need(package: str, extra: str, what: str) -> None:
    """Check that a package of an extra is installed, without importing it.

    Raises
    ------
    MissingPackageError
        If it is not; the message names the extra.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{what} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install '.[{extra}]' in a checkout of d2ldrop"
        )


def not_installed(backend: str, package: str) -> BackendError:
    """Return the error for a backend whose framework, or what that needs, is not installed; it names the extra."""
    return BackendError(
        f"The backend {backend!r} needs the package {package!r}, which is not installed. "
        f"Install it with: pip install '.[{backend}]' in a checkout of d2ldrop"
    )


@contextmanager
def naming_extra(backend: str) -> Iterator[None]:
    """Say which extra to install where an adapter's import of its framework, in the block, finds no such package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise not_installed(backend, error.name or backend) from error


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

"""The backends by name, and by the arrays that belong to them."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.errors import ArgumentTypeError, BackendError, not_installed

__all__ = [
    "available",
    "backend",
    "backend_for",
    "backend_of",
    "canonical",
    "claim",
    "dropout_layer",
    "get_backend",
    "keyword_of",
    "left_alone",
    "package_of",
    "register_backend",
    "registered",
]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# By name


class _Entry(NamedTuple):
    package: str  # what must be installed
    module: str  # the adapter: the names that a reader gets as `d2l`, and `backend`, its Backend


_registry: dict[str, _Entry] = {
    "torch": _Entry("torch", "d2ldrop.torch"),
    "tf": _Entry("tensorflow", "d2ldrop.tf"),
    "jax": _Entry("jax", "d2ldrop.jax"),
    "mxnet": _Entry("mxnet", "d2ldrop.mxnet"),
    "numpy": _Entry("numpy", "d2ldrop.numpy"),  # last: arrays of the others may imitate NumPy's
}
_aliases = {"tensorflow": "tf", "pytorch": "torch"}
_backend_of_type: dict[type, AnyBackend] = {}


def register_backend(name: str, package: str, module: str) -> None:
    """Make a backend known that is not part of this library.

    Parameters
    ----------
    name
        How `backend(name)`, the command line and the tests call it.
    package
        The package that must be installed for it; arrays are looked for only if it was imported.
    module
        The adapter's import path. It has the names that `from d2ldrop import ...` gives a reader, and `backend`, an
        instance of a subclass of `Backend`.
    """
    builtin = dict(_registry)
    _registry.clear()
    _registry.update({name: _Entry(package, module), **builtin})  # first: its arrays may be a kind of NumPy's
    _backend_of_type.clear()


def registered() -> tuple[str, ...]:
    """Return the names of all backends, whether their framework is installed or not."""
    return tuple(_registry)


def available() -> tuple[str, ...]:
    """Return the names of the backends whose framework is installed, without importing any.

    Examples
    --------
    >>> "numpy" in available()
    True
    """
    return tuple(name for name in _registry if importlib.util.find_spec(package_of(name)) is not None)


def canonical(name: str) -> str:
    """Return the name under which a backend is registered, such as `tf` for `tensorflow`."""
    return _aliases.get(name, name)


def package_of(name: str) -> str:
    """Return the package that a backend needs, such as `tensorflow` for `tf`."""
    return _registry[name].package


def backend(name: str) -> ModuleType:
    """Return the adapter of that name, the same as `from d2ldrop import <name>`, importing its framework.

    Parameters
    ----------
    name
        One of `available()`; `tensorflow` and `pytorch` are understood as well.

    Raises
    ------
    BackendError
        If there is no such backend, or its framework is not installed; the message names the extra to install.

    Examples
    --------
    >>> backend("numpy").name
    'numpy'
    """
    name = canonical(name)
    if name not in _registry:
        raise BackendError(f"Expected a backend among {', '.join(_registry)}. Received: {name!r}")
    if importlib.util.find_spec(package_of(name)) is None:
        raise not_installed(name, package_of(name))
    return importlib.import_module(_registry[name].module)


def get_backend(name: str) -> AnyBackend:
    """Return the `Backend` of the adapter of that name; errors as for `backend`."""
    found: AnyBackend = backend(name).backend
    return found


# By array


def backend_of(X: Any) -> AnyBackend:
    """Return the backend to whose framework an array belongs.

    Only frameworks that the caller has imported are asked, so nothing is loaded that was not there.

    Raises
    ------
    ArgumentTypeError
        If `X` is not an array of any of them.

    Examples
    --------
    >>> import numpy as np
    >>> backend_of(np.zeros(3)).name
    'numpy'
    """
    kind = type(X)
    if kind not in _backend_of_type:
        for name in _registry:
            if package_of(name) in sys.modules and get_backend(name).is_array(X):
                _backend_of_type[kind] = get_backend(name)
                break
        else:
            raise ArgumentTypeError(
                f"Expected an array of one of the frameworks {', '.join(_registry)}. "
                f"Received: {X!r} of type {kind.__name__}"
            )
    return _backend_of_type[kind]


def left_alone(function: FunctionT) -> FunctionT:
    """Mark a function that TensorFlow's AutoGraph, which rewrites what a `tf.function` calls, is to leave as it is."""
    function.autograph_info__ = None  # type: ignore[attr-defined]
    return function


def claim(found: AnyBackend, *kinds: type) -> None:
    """Say at once to which backend arrays of some types belong, for a compiler that cannot follow the search."""
    _backend_of_type.update(dict.fromkeys(kinds, found))


@left_alone
def dropout_layer(X: Array, dropout: float, *, axes: Iterable[int] = (), key: Any = None) -> Array:
    """Set each element of `X` to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    Parameters
    ----------
    X
        An array of any framework, of any shape. Integers are promoted to the framework's default float.
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    axes
        Axes along which all elements share one draw, such as (2, 3) to drop whole channels of images (N, C, H, W).
    key
        JAX only: decides which elements are dropped. By default a new one at each call.

    Returns
    -------
    array
        Same framework, shape, dtype and device as `X`. With p = 0 it is `X` itself, with p = 1 all zeros. A dropped
        inf or nan becomes 0. The gradient with respect to `X` is the same mask over 1 - p.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not an array of real numbers, `dropout` is not a real number in [0, 1], `X` has no such axes, or a key
        is given where a framework has none.
    UsageError
        If JAX traces the code outside of a module: it needs a key, see `d2ldrop.jax.dropout_layer`.

    Notes
    -----
    p is realised to within 2**-16, and the scale is exact for the realised p.

    A NumPy array in a function that TensorFlow or JAX compiles counts as a constant of theirs: its masks are drawn
    when the function runs.

    In a process made by `os.fork`, NumPy, JAX, and MXNet on a CPU draw masks of their own, as their generators start
    anew there. Those of PyTorch and TensorFlow, and MXNet's own, are copies of the parent's: seed each process.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout: a simple way to prevent neural
    networks from overfitting, JMLR 15 (2014), in the inverted form of Dive into Deep Learning.

    Examples
    --------
    >>> import numpy as np
    >>> Y = dropout_layer(np.ones((4, 4)), 0.5)
    >>> sorted(set(Y.ravel())) in ([0.0, 2.0], [0.0], [2.0])
    True
    """
    found, X = backend_for(X)
    return found.dropout_layer(X, dropout, axes=axes, **keyword_of(found, key))


def backend_for(X: Any) -> tuple[AnyBackend, Any]:
    """Return the backend that is to work on an array, and the array.

    A NumPy array in a function that a framework compiles becomes a constant of that framework. Errors as for
    `backend_of`.
    """
    compiler = _tracing() if isinstance(X, (np.ndarray, np.generic)) else None
    return (compiler, compiler.array(X)) if compiler else (backend_of(X), X)


def keyword_of(found: AnyBackend, key: Any) -> dict[str, Any]:
    """Return a key as the keyword argument that the backend takes, if it takes any."""
    if found.takes_keys:
        return {"key": key}
    if key is None:
        return {}
    raise ArgumentTypeError(f"Expected no key: {found.name} has generators, which seed() seeds. Received: {key!r}")


def _tracing() -> AnyBackend | None:
    """Return the backend whose framework compiles the code that runs, if any."""
    imported = (
        importlib.import_module(module).backend for package, module in _registry.values() if package in sys.modules
    )
    return next((found for found in imported if found.is_tracing()), None)

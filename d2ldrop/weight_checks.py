"""Whether arrays are the weights of a model: their names, shapes, and kinds of numbers."""

from collections.abc import Mapping

import numpy as np

from d2ldrop.errors import WeightsError

__all__ = ["Shapes", "check_shapes", "converted"]

Shapes = dict[str, tuple[int, ...]]  # name of a parameter -> its shape, as in files


def check_shapes(expected: Shapes, received: Shapes) -> None:
    """Raise a WeightsError that names the weights whose shapes differ, if there are any."""
    names = sorted(name for name in {*received, *expected} if received.get(name) != expected.get(name))
    _refuse("shapes", [f"{k}: expected {expected.get(k)}, received {received.get(k)}" for k in names])


def converted(weights: Mapping[str, np.ndarray], dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return contiguous copies of weights, in types that all frameworks convert to those of their parameters.

    That is float32 or float64 for floating-point numbers; other types, of buffers, stay.

    Raises
    ------
    WeightsError
        If an array holds another kind of numbers than the parameter, or numbers that are too large for it.
    """
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    kinds = {name: (_kind(dtypes[name]), _kind(value.dtype.name)) for name, value in arrays.items()}
    wrong = sorted(name for name, (expected, received) in kinds.items() if expected != received)
    _refuse("kinds of numbers", [f"{k}: expected {kinds[k][0]}, received {arrays[k].dtype}" for k in wrong])
    found = {}
    for name, value in arrays.items():
        floats = np.float64 if "float64" in dtypes[name] else np.float32
        with np.errstate(over="ignore"):
            dtype = floats if kinds[name][0] == "float" else value.dtype.newbyteorder("=")
            found[name] = np.array(value, dtype, order="C")
    large = [name for name, value in found.items() if (np.isinf(value) & ~np.isinf(arrays[name])).any()]
    _refuse("range", [f"{name}: expected float32, received larger numbers" for name in sorted(large)])
    return found


def _kind(dtype: str) -> str:
    """Return the kind of numbers of a type, by the name that any framework gives it."""
    return next((kind for kind in ("float", "int", "bool", "complex") if kind in dtype), dtype)


def _refuse(what: str, differences: list[str]) -> None:
    """Raise a WeightsError if there are differences; it names the first ones."""
    if differences:
        more = f"; and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise WeightsError(f"Expected weights of the model's {what}. {'; '.join(differences[:10])}{more}")

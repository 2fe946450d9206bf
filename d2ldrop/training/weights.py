"""Weights in files that every framework reads: safetensors, under the same names and layouts.

The fully connected layers of a model, in order of definition, are `lin1`, `lin2`, ...; each has a `weight` of shape
(outputs, inputs) and a `bias` of shape (outputs,), in float32. The arrays are the same for the scratch and the concise
model, and in every framework. The class and the hyperparameters of the model are in the file's metadata.

A file may come from anywhere: nothing in it is believed before it is checked, and no memory is taken that the file does
not fill.
"""

import inspect
import itertools
import json
import math
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from d2ldrop.errors import ArgumentError, WeightsError
from d2ldrop.files import MAX_TEXT, replacing
from d2ldrop.hyperparameters import ANY_LAYERS, OPTIMIZERS, OPTIONS, TWO_LAYERS
from d2ldrop.randomness import odds
from d2ldrop.registry import get_backend, registered
from d2ldrop.training.module import BaseMLP
from d2ldrop.weight_checks import check_shapes

__all__ = [
    "DTYPES",
    "MAX_ENTRIES",
    "MAX_HEADER",
    "WIDTHS",
    "brief",
    "load_model",
    "load_weights",
    "read_weights",
    "save_weights",
    "write_arrays",
]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?", "C64": "<c8",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
"""The types of numbers in safetensors files; BF16, which NumPy lacks, is the upper half of a float32."""

MAX_HEADER = 10_000_000
"""The largest header that is read, in bytes: enough for a hundred thousand arrays."""

_shortened = reprlib.Repr()
_shortened.maxother = _shortened.maxstring = 100
brief = _shortened.repr
"""`repr`, but short for values of any length and depth, and also where an object's own fails."""

MAX_ENTRIES = 10_000
"""The largest number of entries in a list among the hyperparameters of a file."""

WIDTHS = ("num_hiddens_1", "num_hiddens_2", "num_outputs")
"""The hyperparameters of the chapter's models that are widths of layers, in order of the layers."""


def save_weights(model: Any, path: str | os.PathLike[str], **metadata: Any) -> None:
    """Write the parameters and buffers of a model to a file; an older one of that name is replaced as a whole.

    Parameters
    ----------
    model
        A `Module` of any adapter.
    path
        The file, usually ending in .safetensors.
    metadata
        Kept with the class and the hyperparameters of the model. Numbers and arrays of NumPy become Python's; of what
        JSON cannot hold, such as functions, the file has a description.

    Raises
    ------
    UsageError
        If the model was never called, and has no parameters yet.
    OSError
        If the file cannot be written.
    """
    hparams = {name: _described(value) for name, value in model.hparams.items()}
    about = {"class": type(model).__name__, "hparams": hparams, "backend": model.backend_name}
    about |= {name: _described(value) for name, value in metadata.items()}
    write_arrays(path, model.backend.get_weights(model), about)


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays, and what JSON can hold about them, to a file that `read_weights` reads."""
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        save_file(dict(arrays), temporary, {"d2ldrop": json.dumps(about)})


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a file by name, and its metadata; bfloat16 becomes float32.

    Raises
    ------
    WeightsError
        If the file is not in the safetensors format, or its metadata are not of this library's form.
    FileNotFoundError
        If there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"Expected a file with weights. There is none at {path}")
    try:
        with open(path, "rb") as file:
            return _read(file)
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise WeightsError(f"Expected {path} to be a safetensors file. Received one that is not: {reason}") from error


def load_weights(model: Any, path: str | os.PathLike[str], X: Any = None) -> dict[str, Any]:
    """Set the parameters of a model from a file, and return the file's metadata.

    Parameters
    ----------
    model
        A `Module` of any adapter.
    path
        The file.
    X
        Some inputs (N, ...) on the host, from which a model that was never called takes the shapes of its parameters.
        A model that takes rows of numbers needs none.

    Raises
    ------
    WeightsError
        If the file's arrays are not the model's: other names, other shapes, or other kinds of numbers.
    UsageError
        If the model was never called, and needs `X`.
    """
    weights, about = read_weights(path)
    backend = model.backend
    if X is not None and not backend.is_built(model):
        backend.build(model, (X,), backend.cpu())
    with _naming(path):
        backend.set_weights(model, weights)
    return about


def load_model(
    path: str | os.PathLike[str], backend: str | None = None, *, kind: str | None = None, X: Any = None
) -> Any:
    """Return the model that a file was saved from, ready to predict, on the CPU.

    Parameters
    ----------
    path
        A file that `save_weights` or `d2ldrop train --save` wrote, of one of the chapter's models.
    backend
        The name of the backend to load it into; None: the one that saved it.
    kind
        The class to load it into, such as "DropoutMLP" for what "DropoutMLPScratch" learned; None: its own.
    X
        Some inputs (N, ...), to check before they are used that the model is for inputs of this size.

    Raises
    ------
    WeightsError
        If the file is damaged, or not of a model that can be made from it.
    FileNotFoundError
        If there is no such file.
    BackendError
        If there is no such backend, or its framework is not installed.
    """
    weights, about = read_weights(path)
    with _naming(path):
        if backend is None and about.get("backend") not in registered():
            raise _unexpected(f"the name of a backend among {', '.join(registered())}", about.get("backend"))
        framework = get_backend(about["backend"] if backend is None else backend)
        name = about.get("class") if kind is None else kind
        if not isinstance(name, str) or name not in framework.models:
            raise _unexpected(f"a model of a class among {', '.join(framework.models)}", name)
        model_class = framework.models[name]
        num_inputs = _check(weights, about.get("hparams"), model_class)
        if X is not None and math.prod(np.shape(X)[1:]) != num_inputs:
            raise _unexpected(f"inputs of {num_inputs} numbers each", np.shape(X)[1:])
        try:
            model = model_class(**about["hparams"])
        except (TypeError, ValueError) as error:
            raise WeightsError(str(error)) from error
        framework.set_weights(model, weights)
    inputs = np.zeros((1, num_inputs), np.float32)
    framework.predict(model, framework.array(inputs, framework.cpu()))  # turns dropout off, also where it is called
    model.input_shape = (num_inputs,)
    return model


# What is written


def _described(value: Any) -> Any:
    """Return a value as JSON holds it, or a short description of what JSON cannot hold."""
    try:
        text = json.dumps(value, default=_plain)
        if len(text) <= MAX_TEXT:
            return json.loads(text)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, a list inside itself, ...
        pass
    return brief(value)


def _plain(value: Any) -> Any:
    """Return the numbers of an array in lists, or a description of any other object; JSON asks for what it lacks."""
    if isinstance(value, Mapping):
        return dict(value)
    try:
        array = np.asarray(value)
    except Exception:  # whatever a framework says, such as PyTorch of a tensor on a GPU
        return brief(value)
    if array.dtype.kind not in "biuf":
        return brief(value)
    return array.astype(float).tolist() if array.dtype.kind == "f" else array.tolist()


# What is read


def _read(file: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the metadata of an open file; errors are ValueErrors and those of what cannot be held.

    The format is described at https://huggingface.co/docs/safetensors: 8 bytes with the length of a header in JSON, the
    header, and the arrays without gaps.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(size - 8, MAX_HEADER):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = _object(file.read(length).decode())
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get("d2ldrop", ""), str):
        raise ValueError("metadata that are no text")
    about = _object(metadata.get("d2ldrop", "{}"))
    arrays, end = {}, 0
    for name, (dtype, shape, start, stop) in sorted(_entries(header).items(), key=lambda item: item[1][2:]):
        if start != end:  # so no byte is used twice
            raise ValueError(f"{name!r} starts at byte {start}, not at {end}")
        flat, end = np.frombuffer(file.read(stop - start), DTYPES[dtype]), stop
        flat = (flat.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else flat
        arrays[name] = flat.reshape(shape).astype(flat.dtype.newbyteorder("="))
    if end != size - 8 - length:
        raise ValueError(f"{size - 8 - length} bytes of arrays, not {end}")
    return arrays, about


def _object(text: str) -> dict[str, Any]:
    """Return an object of JSON as a dictionary."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("the same key twice")
        return found

    value = json.loads(text, object_pairs_hook=unique)
    if not isinstance(value, dict):
        raise ValueError("JSON that is no object")
    return value


def _entries(header: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Return the type, the shape, the first byte and the end of each array that a header describes."""
    found = {}
    for name, entry in header.items():
        if not name.isprintable() or len(name) > 1000:
            raise ValueError(f"an array named {brief(name)}")
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop]} if dtype in DTYPES:
                pass
            case _:
                raise ValueError(f"{name!r} is described as {brief(entry)}")
        if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in (*shape, start, stop)):
            raise ValueError(f"{name!r} is described as {brief(entry)}")
        if stop - start != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise ValueError(f"{name!r} of type {dtype} and shape {tuple(shape)} has {stop - start} bytes")
        found[name] = dtype, tuple(shape), start, stop
    return found


def _check(weights: dict[str, np.ndarray], hparams: Any, model_class: type) -> int:
    """Check the hyperparameters of a model against its class and its weights; return the number of its inputs."""
    forms = _forms(model_class)
    if not isinstance(hparams, dict) or not any({*form} <= {*hparams} <= {*form, *OPTIONS} for form in forms):
        raise _unexpected(f"the hyperparameters {', or '.join(map(', '.join, forms))}", hparams)
    first = weights["lin1.weight"].shape if "lin1.weight" in weights else ()
    num_inputs = first[-1] if first else 0
    widths = {name: hparams[name] for name in WIDTHS if name in hparams}
    for name in (*ANY_LAYERS, "class_weights"):
        if name in hparams and (type(hparams[name]) is not list or len(hparams[name]) > MAX_ENTRIES):
            raise _unexpected(f"{name} to be a list", hparams[name])
    hidden = {f"num_hiddens[{k}]": value for k, value in enumerate(hparams.get("num_hiddens", ()))}
    for name, value in {"number of inputs": num_inputs, **hidden, **widths}.items():
        if type(value) is not int or not 0 < value < 2**31:
            raise _unexpected(f"{name} to be a whole number greater than 0", value)
    for name, value in hparams.items():
        if name == "optimizer":
            if value not in OPTIMIZERS:
                raise _unexpected(f"{name} to be one of {', '.join(OPTIMIZERS)}", value)
            continue
        for item in value if name in (*ANY_LAYERS, "class_weights") else [value]:
            if type(item) not in (int, float) or not abs(item) < 2.0**1000:
                raise _unexpected(f"{name} to be a number" + "s" * isinstance(value, list), value)
            if name.startswith("dropout"):
                odds(item, name)
    expected: dict[str, tuple[int, ...]] = {}
    for k, (inputs, outputs) in enumerate(
        itertools.pairwise((num_inputs, *hidden.values(), *widths.values())), start=1
    ):
        expected |= {f"lin{k}.weight": (outputs, inputs), f"lin{k}.bias": (outputs,)}
    check_shapes(expected, {name: value.shape for name, value in weights.items()})
    return num_inputs


def _forms(model_class: type) -> list[tuple[str, ...]]:
    """Return the names of the hyperparameters that a model needs, in each form in which they may be given."""
    if issubclass(model_class, BaseMLP):
        return [("num_outputs", *hidden, "lr") for hidden in (TWO_LAYERS, ANY_LAYERS)]
    arguments = inspect.signature(model_class).parameters.values()
    return [tuple(a.name for a in arguments if a.default is a.empty and a.kind is not a.VAR_KEYWORD)]


def _unexpected(expected: str, received: Any) -> WeightsError:
    """Return the error for something in a file that is not as expected; what is there may be of any length."""
    return WeightsError(f"Expected {expected}. Received: {brief(received)}")


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors about the content of a file name the file."""
    try:
        yield
    except (WeightsError, ArgumentError) as error:
        raise WeightsError(f"{error} (in {path})") from error

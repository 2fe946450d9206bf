"""Weights in files that every framework reads: safetensors, under the same names and layouts.

The fully connected layers of a model, in order of definition, are `lin1`, `lin2`, ...; each has a `weight` of shape
(outputs, inputs) and a `bias` of shape (outputs,), in float32. The arrays are the same for the scratch and the concise
model, and in every framework. The class and the hyperparameters of the model are in the file's metadata.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from d2ldrop.errors import WeightsError
from d2ldrop.files import replacing


def save_weights(model: Any, path: str | os.PathLike[str], **metadata: Any) -> None:
    """Write the parameters of a trained model to a file; an older one of that name is replaced as a whole.

    Parameters
    ----------
    model
        A `Module` of any adapter.
    path
        The file, usually ending in .safetensors.
    metadata
        Anything that JSON can hold, kept with the class and the hyperparameters of the model.
    """
    from safetensors.numpy import save_file

    about = {"class": type(model).__name__, "hparams": model.hparams, "backend": model.backend_name, **metadata}
    weights = {name: np.ascontiguousarray(value) for name, value in model.backend.get_weights(model).items()}
    with replacing(path) as temporary:
        save_file(weights, temporary, {"d2ldrop": json.dumps(about)})


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a file by name, and its metadata.

    Raises
    ------
    WeightsError
        If the file is not in the safetensors format.
    FileNotFoundError
        If there is no such file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"Expected a file with weights. There is none at {path}")
    try:
        with safe_open(path, "numpy") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
            return weights, json.loads((file.metadata() or {}).get("d2ldrop", "{}"))
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"Expected {path} to be a safetensors file. Received one that is not: {error}") from error


def load_weights(model: Any, path: str | os.PathLike[str], X: Any) -> dict[str, Any]:
    """Set the parameters of a model from a file, and return the file's metadata.

    Parameters
    ----------
    model
        A `Module` of any adapter.
    path
        The file.
    X
        Some inputs (N, ...) on the host, from which a model without parameters takes their shapes.

    Raises
    ------
    WeightsError
        If the file's arrays are not the model's: other names, or other shapes.
    """
    weights, about = read_weights(path)
    backend = model.backend
    backend.build(model, (X,), backend.cpu())
    backend.set_weights(model, weights)
    return about

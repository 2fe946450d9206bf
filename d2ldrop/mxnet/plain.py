"""Parameters of models: gluon's own, and plain arrays with `attach_grad()`, which the book's first chapters have.

Arrays are found among the attributes of a model and of its layers, also in lists, tuples and dictionaries there.
"""

from collections.abc import Iterator
from typing import Any

import mxnet as mx
from mxnet import gluon, np
from mxnet.gluon import nn

from d2ldrop.errors import UsageError


def arrays_in(holder: Any, prefix: str = "", seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any, Any]]:
    """Yield a name for each array, such as `W1` or `child.W`, what it is in, and its key there.

    `holder` is a block, a dictionary, a list or a tuple, and `seen` has the ids of those around it, which are not
    entered again. An array with two names is there twice.
    """
    seen |= {id(holder)}
    values = vars(holder) if isinstance(holder, nn.Block) else holder
    pairs = list(values.items() if isinstance(values, dict) else enumerate(values))
    if isinstance(holder, nn.Block):
        pairs += [(name, child) for name, child in holder._children.items() if name not in values]  # in a sequence
    for key, value in pairs:
        gluons = isinstance(holder, nn.Block) and (key.startswith("_") or key == "hparams")
        if isinstance(value, np.ndarray):
            yield f"{prefix}{key}", values, key
        elif isinstance(value, (nn.Block, dict, list, tuple)) and not gluons and id(value) not in seen:
            yield from arrays_in(value, f"{prefix}{key}.", seen)


def gluon_parameters(block: nn.Block, prefix: str = "") -> Iterator[tuple[str, gluon.Parameter]]:
    """Yield gluon's parameters with the names that `save_parameters` gives them, and those that it passes over."""
    own = block._reg_params
    unnamed = {name: param for name, param in block.params.items() if param not in own.values()}  # in a list, say
    for name, param in (*own.items(), *unnamed.items()):
        yield f"{prefix}{name.removeprefix(block.params.prefix)}", param
    for name, child in block._children.items():
        yield from gluon_parameters(child, f"{prefix}{name}.")


def get_scratch_params(self: Any) -> list[np.ndarray]:
    """Return the arrays of a model as a list, in order of definition, whether or not they have gradients yet.

    Arguments of the model are left out, if they have none.
    """
    found = {id(values[key]): (values[key], key) for _, values, key in arrays_in(self)}
    return [array for array, key in found.values() if key not in self.hparams or array.grad is not None]


def set_scratch_params_device(self: Any, device: mx.Context) -> None:
    """Move the arrays of a model to a device; those that had gradients get new ones there.

    Raises
    ------
    UsageError
        If one is in a tuple, where it cannot be replaced.
    """
    moved: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # with the old array, or its id might become another's
    for _, values, key in arrays_in(self):
        array = values[key]
        if array.ctx != device:
            if isinstance(values, tuple):
                raise UsageError("Expected arrays as attributes or in lists, to be moved. Received a tuple of them")
            if id(array) not in moved:
                moved[id(array)] = array, array.as_in_ctx(device)
                if array.grad is not None:
                    moved[id(array)][1].attach_grad()
            values[key] = moved[id(array)][1]


def _collects_its_own(model: nn.Block) -> bool:
    """Return True if `collect_params` of a model was written by the reader, and may return a list of arrays."""
    return type(model).collect_params is not nn.Block.collect_params


def parameters(self: Any) -> Any:
    """Return what is trained: gluon's parameters by name or, where arrays with gradients are among them, a list.

    Where the reader wrote `collect_params`, it is what that returns.
    """
    arrays = [array for array in self.get_scratch_params() if array.grad is not None]
    if not arrays or _collects_its_own(self):
        return self.collect_params()
    return [*dict.fromkeys(param for _, param in gluon_parameters(self)), *arrays]


class ArrayParameter(gluon.Parameter):
    """A plain array and its gradient in the form in which a gluon Trainer takes them; nothing is copied."""

    def __init__(self, name: str, array: np.ndarray):
        super().__init__(name, "null" if array.grad is None else "write", array.shape, array.dtype)
        self._data, self._ctx_list = [array], [array.ctx]
        self._grad = None if array.grad is None else [array.grad]

    def data(self, ctx: mx.Context | None = None) -> np.ndarray:
        """Return the array."""
        return self.list_data()[0]

    def grad(self, ctx: mx.Context | None = None) -> np.ndarray:
        """Return its gradient."""
        return self.list_grad()[0]


def as_parameters(params: Any) -> Any:
    """Return what `parameters` returned in the form in which a gluon Trainer takes it."""
    if hasattr(params, "values"):
        return params
    return [ArrayParameter(f"array{i}", p) if isinstance(p, np.ndarray) else p for i, p in enumerate(params)]


def named_parameters(model: nn.Block) -> dict[str, gluon.Parameter]:
    """Return all parameters by their names in files: gluon's, and arrays with gradients."""
    renamed = {
        param: f"lin{k}.{kind}"
        for k, layer in enumerate(dense_layers(model), start=1)
        for kind, param in layer._reg_params.items()
    }
    found = {renamed.get(param, name): param for name, param in gluon_parameters(model)}
    arrays = [(name, values[key]) for name, values, key in arrays_in(model)]
    if _collects_its_own(model) and isinstance(listed := model.collect_params(), (list, tuple)):
        arrays += [(f"params.{i}", array) for i, array in enumerate(listed) if isinstance(array, np.ndarray)]
    seen: set[int] = set()
    for name, array in arrays:
        if array.grad is not None and id(array) not in seen:
            seen.add(id(array))
            while name in found:  # of the keys 0 and "0", say
                name += "_"
            found[name] = ArrayParameter(name, array)
    return found


def gradients(model: nn.Block) -> list[np.ndarray]:
    """Return the gradients of all parameters that are trained, each once."""
    return [p.grad() for p in dict.fromkeys(named_parameters(model).values()) if p.grad_req != "null"]


def dense_layers(model: nn.Block) -> list[nn.Block]:
    """Return the dense layers, in order of definition."""
    dense: list[nn.Block] = []
    model.apply(lambda layer: dense.append(layer) if isinstance(layer, nn.Dense) else None)
    return dense

"""Parameters that are plain tensors, as in models from scratch: PyTorch itself knows those of class `nn.Parameter`."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

_NOT_LOOKED_INTO = ("_parameters", "_buffers", "_modules", "hparams")  # PyTorch knows the former; the last is a copy


class WithPlainTensors(nn.Module):
    """A module to which tensors that ask for a gradient belong, `self.w = torch.zeros(3, requires_grad=True)`.

    They are looked for in the attributes of the module and of those inside it, and in lists, tuples and dictionaries
    among these. They are trained, moved and saved with the other parameters, and stay the objects that they are.
    """

    def plain_tensors(self) -> dict[str, Tensor]:
        """Return the parameters that PyTorch does not know, by name: `w`, or `layer.w` inside a module."""
        known = {id(param) for _, param in super().named_parameters()}
        found: dict[str, Tensor] = {}
        for path, module in self.named_modules():
            for name, tensor in _leaves(vars(module), f"{path}." if path else ""):
                if id(tensor) not in known:
                    known.add(id(tensor))
                    while name in found:  # of the keys 0 and "0", say
                        name += "_"
                    found[name] = tensor
        return found

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield all parameters with their names, so that `parameters()` has them."""
        yield from super().named_parameters(prefix, recurse, remove_duplicate)
        for name, tensor in self.plain_tensors().items():
            yield f"{prefix}.{name}" if prefix else name, tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move, or convert, all parameters: what `to`, `cuda` and `double` do."""
        for tensor in self.plain_tensors().values():
            tensor.data, tensor.grad = fn(tensor.data), None
        return super()._apply(fn, recurse)


def _leaves(values: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that ask for a gradient, and are no results, in nested dictionaries, lists and tuples."""
    for key, value in list(values.items() if isinstance(values, dict) else enumerate(values)):
        if isinstance(value, Tensor):
            if value.requires_grad and value.is_leaf:
                yield f"{prefix}{key}", value
        elif isinstance(value, (dict, list, tuple)) and key not in _NOT_LOOKED_INTO:
            yield from _leaves(value, f"{prefix}{key}.")

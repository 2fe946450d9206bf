"""Watch or replace a method of layers that belong to someone else, for as long as a block runs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["noting_calls", "overlaid"]


@contextmanager
def overlaid(layers: Iterable[Any], method: str, wrap: Callable[[Any], Callable[..., Any]]) -> Iterator[None]:
    """Inside the block, let `wrap(layer)` take the place of a method of each layer.

    It is set past the framework, which may look into what is set as an attribute. Blocks may be nested.
    """
    before = [(layer, vars(layer).get(method)) for layer in dict.fromkeys(layers)]
    try:
        for layer, _ in before:
            vars(layer)[method] = wrap(layer)
        yield
    finally:
        for layer, own in before:
            if own is not None:
                vars(layer)[method] = own
            else:
                vars(layer).pop(method, None)


@contextmanager
def noting_calls(layers: Iterable[Any], method: str) -> Iterator[list[tuple[Any, Any]]]:
    """Inside the block, add the input and the output of each call of some layers, by a method of theirs, to a list."""
    calls: list[tuple[Any, Any]] = []

    def noting(layer: Any) -> Callable[..., Any]:
        call = getattr(layer, method)

        def noted(X: Any, *args: Any, **kwargs: Any) -> Any:
            Y = call(X, *args, **kwargs)
            calls.append((X, Y))
            return Y

        return noted

    with overlaid(layers, method, noting):
        yield calls

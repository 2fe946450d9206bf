"""Modules of Flax that behave like the models of other frameworks."""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
from flax import linen as nn
from flax.linen.kw_only_dataclasses import field

JITTED = type(jax.jit(len))


class FlaxModule(nn.Module):
    """A module of Flax that keeps its parameters, can be called like a function, and has a mode that may change."""

    training: bool = field(default=True, kw_only=True)

    _learned = None
    _dense: ClassVar[Any] = ()  # the fully connected layers: where their parameters are

    @property
    def learned(self) -> dict[str, Any] | None:
        """Parameters and batch statistics as Flax has them, if there are any: in training, those of the trainer."""
        state = self._running()
        return self._learned if state is None else {"params": state.params, "batch_stats": state.batch_stats}

    @learned.setter
    def learned(self, variables: dict[str, Any]) -> None:
        self._learned = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
        if (state := self._running()) is not None:
            self.trainer.state = state.replace(**self._learned)

    def _running(self) -> Any:
        state = getattr(self.trainer, "state", None)
        return state if getattr(getattr(state, "steps", None), "model", None) is self else None

    @property
    def hparams(self) -> dict[str, Any]:
        """The fields that make this model, apart from its mode."""
        names = [field.name for field in dataclasses.fields(self) if field.init]
        return {name: getattr(self, name) for name in names if name not in ("parent", "name", "training")}

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = _callable_outside(cls.__call__)  # type: ignore[method-assign]

    @nn.nowrap
    def __getattribute__(self, name: str) -> Any:
        """Return the attribute; a method under `jax.jit` gets, in place of this model, a copy that keeps its mode.

        For such a method is compiled for each `self`, and would not notice that `training` was set to another value.
        """
        value = super().__getattribute__(name)
        if not isinstance(value, types.MethodType):
            return value
        method = value.__func__
        jitted = isinstance(method, JITTED) or isinstance(getattr(method, "__wrapped__", None), JITTED)
        return types.MethodType(method, in_mode(self, self.training)) if jitted else value


def in_mode(model: Any, training: bool) -> Any:
    """Return a copy of the model that trains, or one that does not."""
    copy = model.clone(training=training)
    vars(copy).update({name: value for name, value in vars(model).items() if name not in vars(copy)})
    return copy


def _callable_outside(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a model be called as in other frameworks, with the parameters that it has, and not only through `apply`."""

    @functools.wraps(call)
    def anywhere(self: Any, *inputs: Any) -> Any:
        if self.scope is not None or self.learned is None:
            return call(self, *inputs)
        rngs = {"dropout": self.backend.get_key()}
        return self.apply(self.learned, *inputs, rngs=rngs, mutable=["batch_stats"])[0]

    return anywhere


def create(model: Any, inputs: tuple[jax.Array, ...], key: jax.Array) -> None:
    """Create parameters, and note the fully connected layers in the order in which they are called."""
    called = []

    def note(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Dense):
            called.append(context.module.path)
        return method(*args, **kwargs)

    with nn.intercept_methods(note):
        model.learned = in_mode(model, training=False).init(key, *inputs)
    model._dense = tuple(dict.fromkeys(called))


def named(model: Any, flat: dict[tuple[str, ...], Any]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield each parameter's name in files, where Flax keeps it, and whether files hold it transposed."""
    files = {}
    for k, layer in enumerate(model._dense, start=1):
        files[("params", *layer, "kernel")] = (f"lin{k}.weight", True)
        files[("params", *layer, "bias")] = (f"lin{k}.bias", False)
    for path in (*files, *(path for path in flat if path not in files)):
        name, turned = files.get(path, (".".join(path[1:]), False))
        if path in flat:
            yield name, path, turned

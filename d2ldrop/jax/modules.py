"""Modules of Flax that behave like the models of other frameworks."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import jax
from flax import linen as nn
from flax import struct, traverse_util
from flax.linen.kw_only_dataclasses import field
from flax.training.train_state import TrainState
from jax import Array

from d2ldrop.errors import UsageError
from d2ldrop.hyperparameters import checked, without_defaults
from d2ldrop.jax.arrays import randn
from d2ldrop.jax.keys import fixed_key, get_key, is_tracing
from d2ldrop.randomness import sharing_masks
from d2ldrop.training.module import BaseClassifier, BaseMLP, BaseModule

COLLECTIONS = ("params", "batch_stats")
Variables = dict[str, Any]  # name of a collection -> nested dictionaries of arrays, as Flax has them


class State(TrainState):
    """What training carries from step to step; each step returns a new one."""

    batch_stats: Any
    dropout_rng: Array
    steps: Any = struct.field(pytree_node=False)  # what is compiled for the model, see d2ldrop.jax.steps
    rate: Any = None  # the learning rate, once it was set, in place of the one with which the optimiser was made

    @property
    def optim(self) -> Any:
        """The optimiser, a transformation of gradients in Optax."""
        return self.tx

    @property
    def variables(self) -> Variables:
        """The parameters and batch statistics, in the form in which the model keeps them."""
        return {name: getattr(self, name) for name in COLLECTIONS}


twins: dict[type, type] = {}
"""The base classes of `d2l` and, for each, the one for models of `flax.nnx`; see `d2ldrop.jax.nnx`."""


class EitherStyle(type):
    """Gives a subclass that defines `__init__` the base classes for `flax.nnx`; modules of `flax.linen` have fields.

    The book has the style of linen in its edition 1.0, and that of nnx in the next one, under the same names.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        """Return the class, with the twins of its bases if it has the style of nnx."""
        if "__init__" in namespace and any(base in twins for base in bases):
            others = tuple(twins.get(base, base) for base in bases)
            return type(others[0])(name, others, namespace, **options)
        return super().__new__(cls, name, bases, namespace, **options)


class FlaxModule(BaseModule, nn.Module, metaclass=EitherStyle):
    """A module of Flax that keeps its variables, can be called like a function, and has a mode that may change.

    Steps are as in the book: they are given parameters and a state, and return gradients.
    """

    if TYPE_CHECKING:
        training = True
    else:  # a field that comes last, which type checkers cannot know
        training: bool = field(default=True, kw_only=True)

    # without annotations, which would make fields of them
    learned = cast("Variables | None", None)  # the variables, once there are any
    transient = (*BaseModule.transient, "_evaluate", "_sample")
    _evaluate = cast("Any", None)  # the compiled validation step, once there is one
    _sample = cast("Any", None)  # the compiled call with dropout on, once there is one
    _dense = cast("tuple[tuple[str, ...], ...]", ())  # paths of the fully connected layers, in order of their calls

    @property
    def hparams(self) -> Mapping[str, Any]:
        """The fields that make this model, apart from its mode, and from options that have their defaults."""
        return without_defaults(_fields(self)) if self.host_init else _fields(self)

    @hparams.setter
    def hparams(self, value: Any) -> None:
        raise UsageError(
            f"Expected {type(self).__name__} to declare hyperparameters as fields, such as lr: float, without __init__ "
            "and save_hyperparameters. For a model in the style of flax.nnx, subclass d2l.nnx.Classifier or .Module."
        )

    def __post_init__(self) -> None:
        """Check and convert the hyperparameters of the chapter's models; Flax calls it when the module was made."""
        if self.host_init:
            for name, value in checked(_fields(self), self.is_regression).items():
                object.__setattr__(self, name, value)
        super().__post_init__()

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = _callable_unbound(cls.__call__)  # type: ignore[method-assign]

    def training_step(  # type: ignore[override]
        self, params: Any, batch: tuple[Array, ...], state: State
    ) -> tuple[Any, Any]:
        """Return ((loss of a batch, dictionary of what else `loss` returned), gradient), and report the loss."""

        def objective(params: Any) -> tuple[Array, Mapping[str, Any]]:
            return loss_and_extras(self._loss(params, batch, state))

        value, grads = jax.value_and_grad(objective, has_aux=True)(params)
        self.report(self.metrics(value, params, batch, state), train=True)
        return value, grads

    def validation_step(  # type: ignore[override]
        self, params: Any, batch: tuple[Array, ...], state: State
    ) -> None:
        """Report the loss of a batch of the validation data."""
        value = loss_and_extras(self._loss(params, batch, state))
        self.report(self.metrics(value, params, batch, state), train=False)

    def _loss(self, params: Any, batch: tuple[Array, ...], state: State) -> Any:
        """Return what the loss of a copy of this model returns.

        A reader's loss may be under `jax.jit` with a static `self`. JAX compiles it for that object, and may not notice
        that its mode was changed.
        """
        return in_mode(self, self.training).loss(params, batch[:-1], batch[-1], state)

    def metrics(self, value: Any, params: Any, batch: tuple[Array, ...], state: State) -> dict[str, Array]:
        """Return the metrics of a batch, given (loss, dictionary of what else `loss` returned)."""
        return {"loss": value[0]}

    def apply_init(self, inputs: tuple[Array, ...], key: Array | None = None) -> Variables:
        """Create parameters from a key, with the shapes that `inputs` need; return them in a dictionary."""
        return create(self, inputs, get_key() if key is None else key)

    def layer_summary(self, X_shape: tuple[int, ...], key: Array | None = None) -> None:
        """Print the shape of each layer's output for random inputs of a shape, in the order of the calls."""

        def show(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
            Y = method(*args, **kwargs)
            if not isinstance(context.module, (FlaxModule, nn.Sequential)):
                print(f"{type(context.module).__name__:<12} output shape: {Y.shape}")
            return Y

        with nn.intercept_methods(show):
            in_mode(self, training=False).init(get_key() if key is None else key, randn(*X_shape))


class FlaxClassifier(FlaxModule, BaseClassifier):  # type: ignore[misc]
    """The same for classification models, whose steps report the accuracy, too."""

    def metrics(self, value: Any, params: Any, batch: tuple[Array, ...], state: State) -> dict[str, Array]:
        """Return loss and accuracy; in training, both are under dropout."""
        Y_hat = value[1].get("logits")
        if Y_hat is None:  # a reader's own loss did not return them: compute them again, with the same key and masks
            with sharing_masks(None):
                Y_hat, _ = outputs(params, batch[:-1], state)
        accuracy: Any = self.accuracy
        if "state" in inspect.signature(accuracy).parameters:  # a reader's own, as in the book's edition 1.0
            return {"loss": value[0], "acc": accuracy(params, batch[:-1], batch[-1], state)}
        return {"loss": value[0], "acc": accuracy(Y_hat, batch[-1])}


class Options(FlaxModule):
    """The fields of the chapter's models that are given by name, see `BaseMLP`."""

    if not TYPE_CHECKING:
        weight_decay: float = field(default=0.0, kw_only=True)
        momentum: float = field(default=0.0, kw_only=True)
        optimizer: str = field(default="sgd", kw_only=True)
        class_weights: Sequence[float] | None = field(default=None, kw_only=True)


class FlaxMLP(BaseMLP, Options):
    """The fields of the chapter's networks, see `BaseMLP`, and `training`, whether dropout is on."""

    num_outputs: int
    num_hiddens_1: int | None = None
    num_hiddens_2: int | None = None
    dropout_1: float | None = None
    dropout_2: float | None = None
    lr: float | None = None
    if not TYPE_CHECKING:
        num_hiddens: Sequence[int] | None = field(default=None, kw_only=True)
        dropouts: Sequence[float] | None = field(default=None, kw_only=True)


def _fields(model: Any) -> dict[str, Any]:
    """Return the fields that make a model, apart from its mode."""
    names = [field.name for field in dataclasses.fields(model) if field.init]
    return {name: getattr(model, name) for name in names if name not in ("parent", "name", "training")}


def outputs(params: Any, X: tuple[Array, ...], state: State) -> tuple[Array, dict[str, Any]]:
    """Return the outputs of a model for a tuple of inputs, and its new batch statistics, if it has any."""
    variables = {"params": params, "batch_stats": state.batch_stats}
    return state.apply_fn(variables, *X, mutable=["batch_stats"], rngs={"dropout": state.dropout_rng})


def of_outputs_or_state(accuracy: Callable[..., Array]) -> Callable[..., Array]:
    """Let an accuracy (Y_hat, Y, averaged) be called in the form of the book, too: (params, X, Y, state, averaged)."""

    @functools.wraps(accuracy)
    def either(self: Any, *args: Any, **options: Any) -> Array:
        if len(args) < 4:
            return accuracy(self, *args, **options)
        params, X, Y, state, *averaged = args
        return accuracy(self, outputs(params, X, state)[0], Y, *averaged, **options)

    return either


def loss_and_extras(value: Any) -> tuple[Array, Mapping[str, Any]]:
    """Return a loss, and the dictionary that was returned with it, if any."""
    loss, extras = value if isinstance(value, tuple) else (value, {})
    return loss, extras if isinstance(extras, Mapping) else {}


def _callable_unbound(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a model be called as in other frameworks, with the variables that it keeps, and not only through `apply`."""

    @functools.wraps(call)
    def with_own_variables(self: Any, *inputs: Any, **options: Any) -> Any:
        if self.scope is not None or self.learned is None:
            return call(self, *inputs, **options)
        rngs: dict[str, Any] = {"dropout": fixed_key()}
        if self.training:  # where JAX compiles, a new key would be a constant: there is none, and dropout asks for one
            rngs = {} if is_tracing() else {"dropout": get_key()}
        return self.apply(self.learned, *inputs, rngs=rngs, mutable=["batch_stats"], **options)[0]

    return with_own_variables


@functools.singledispatch
def in_mode(model: Any, training: bool) -> Any:
    """Return a copy of the model, without its variables, that trains, or one that does not."""
    copy = model.clone(training=training)
    own = {name: value for name, value in vars(model).items() if name not in ("learned", "_evaluate", "_sample")}
    vars(copy).update({**own, **vars(copy)})
    return copy


def by_statistics(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Call a method, which Flax intercepts; batch normalisation as in evaluation, whatever the model's mode."""
    if not isinstance(context.module, nn.BatchNorm) or context.method_name != "__call__":
        return method(*args, **kwargs)
    vars(context.module)["use_running_average"] = None  # it may be said only once, here or in the call
    return method(args[0], **{**kwargs, "use_running_average": True})


@functools.singledispatch
def sampler(model: Any) -> Callable[[Variables, tuple[Array, ...], Array], Array]:
    """Return the call of a model with dropout on, given variables, inputs, and the key of the masks.

    Batch normalisation is as in evaluation.
    """
    drawing = in_mode(model, training=True)

    def sample(variables: Variables, X: tuple[Array, ...], key: Array) -> Array:
        with nn.intercept_methods(by_statistics):
            return drawing.apply(variables, *X, rngs={"dropout": key}, mutable=["batch_stats"])[0]

    return sample


def create(model: Any, inputs: Iterable[Array], key: Array) -> Variables:
    """Create a model's variables, and return them; note the fully connected layers in the order of their calls."""
    with noting_dense() as calls:
        variables = in_mode(model, training=False).init(key, *inputs)
    model.learned = {name: variables.get(name, {}) for name in COLLECTIONS}
    model._dense = tuple(dict.fromkeys(path for path, _, _ in calls))
    created: Variables = model.learned
    return created


@contextmanager
def noting_dense() -> Iterator[list[tuple[tuple[str, ...], Array, Array]]]:
    """Inside the block, add the path, input and output of each fully connected layer that is called to a list."""
    calls: list[tuple[tuple[str, ...], Array, Array]] = []

    def note(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        Y = method(*args, **kwargs)
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            calls.append((context.module.path, args[0], Y))
        return Y

    with nn.intercept_methods(note):
        yield calls


def named(model: Any) -> Iterator[tuple[str, tuple[str, ...], Array, bool]]:
    """Yield each variable's name in files, its path in Flax, its value, and whether files hold it transposed."""
    flat, files = traverse_util.flatten_dict(model.learned), {}
    for k, layer in enumerate(model._dense, start=1):
        files[("params", *layer, "kernel")] = f"lin{k}.weight"
        files[("params", *layer, "bias")] = f"lin{k}.bias"
    for path in (*(path for path in files if path in flat), *(path for path in flat if path not in files)):
        yield files.get(path, ".".join(map(str, path[1:]))), path, flat[path], path in files and path[-1] == "kernel"

"""Models and dropout in the style of `flax.nnx`: `from d2ldrop.jax.nnx import Classifier, Dropout`.

A module of nnx holds its arrays, as modules of PyTorch do, and its steps are those of other frameworks: they take a
batch, and return the loss. JAX compiles functions of arrays, though. So a training has a `View` of the model: what the
model is, without its arrays, and the functions of arrays that a module of Flax's older interface, linen, has.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from d2ldrop.jax.arrays import randn

# isort: split
# The frameworks come after that module, which names the extra to install where they are missing.
import flax
import jax
import optax
from flax import nnx
from jax import Array
from jax import numpy as jnp

from d2ldrop.errors import UsageError
from d2ldrop.jax import lesson
from d2ldrop.jax.keys import fixed_key
from d2ldrop.jax.lesson import dropout_layer
from d2ldrop.jax.masks import real_floats
from d2ldrop.jax.modules import State, Variables, in_mode, sampler, twins
from d2ldrop.randomness import odds
from d2ldrop.training.module import BaseClassifier, BaseModule, by_weights, recorded

__all__ = ["Classifier", "Dropout", "Module", "View"]


class Dropout(nnx.Dropout):
    """Set elements to zero with probability `rate`, and divide the others by 1 - `rate`; in place of `nnx.Dropout`.

    It follows `model.train()` and `model.eval()`.

    Parameters
    ----------
    rate
        The probability p of dropping an element, a real number in [0, 1].
    broadcast_dims
        Axes along which all elements share one draw.
    deterministic
        True: return the inputs as they are.
    rng_collection
        The name of the stream of keys in `rngs`.
    rngs
        Where keys come from, such as `nnx.Rngs(0)`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `rate` is not a real number in [0, 1].
    """

    def __init__(
        self,
        rate: float,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool = False,
        rng_collection: str = "dropout",
        rngs: Any = None,
    ):
        odds(rate, "rate")  # checks it
        super().__init__(
            rate,
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=rngs,
        )

    def __call__(self, X: Array, *, deterministic: bool | None = None, rngs: Any = None) -> Array:
        """Return `X` under dropout, or as it is if `deterministic`.

        What is given here counts more than what the layer was made with; `rngs` may also be one key.
        """
        if (self.deterministic if deterministic is None else deterministic) or self.rate == 0:
            return X
        if self.rate == 1:  # needs no key
            return jnp.zeros_like(real_floats(X))
        source = self.rngs if rngs is None else rngs
        if source is None:
            raise UsageError("Expected rngs for Dropout, when it is made or called. Received: None")
        if isinstance(source, nnx.Rngs):
            source = source[self.rng_collection]
        key = source() if callable(source) else source  # a stream, or a key
        return dropout_layer(X, self.rate, key, axes=self.broadcast_dims)


class Module(BaseModule, nnx.Module):
    """Base of models in the style of `flax.nnx`: a subclass makes its layers in `__init__`, from `rngs`.

    It defines `forward(X)`, or `self.net`, and `loss(y_hat, y)`. Dropout is on while `fit` trains, and off in
    evaluation: layers are set by `train()` and `eval()` of nnx and, where Flax has it, by `nnx.view`, which calls
    `set_view`.

    Raises
    ------
    UsageError
        If the installed Flax is too old.

    Examples
    --------
    ::

        class MLP(d2l.nnx.Classifier):
            def __init__(self, lr, rngs):
                super().__init__()
                self.save_hyperparameters(ignore=["rngs"])
                self.lin1, self.drop1 = nnx.Linear(64, 32, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
                self.lin2 = nnx.Linear(32, 10, rngs=rngs)

            def forward(self, X):
                return self.lin2(self.drop1(nnx.relu(self.lin1(X.reshape(len(X), -1)))))

        d2l.Trainer(max_epochs=3).fit(MLP(lr=0.5, rngs=nnx.Rngs(0)), d2l.Digits())
    """

    backend_name = "jax"
    transient = (*BaseModule.transient, "_evaluate", "_sample")
    # without annotations, which nnx would read
    _hparams = cast("Any", None)
    _training = True
    _evaluate = cast("Any", None)  # the compiled validation step, once there is one
    _sample = cast("Any", None)  # the compiled call with dropout on, once there is one

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Check that the installed Flax has what is used here."""
        if not hasattr(nnx, "to_pure_dict"):
            raise UsageError(
                f"Expected flax 0.12 or newer for models in the style of flax.nnx. Received: flax {flax.__version__}. "
                "Upgrade it: pip install -U flax"
            )
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; nnx sees all but properties, which hold what is no part of the network."""
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a pickle makes the model again: from hyperparameters and weights, as layers hold functions."""
        make, arguments = by_weights(self)
        kind, hparams, *rest = arguments
        if "rngs" in inspect.signature(kind.__init__).parameters:
            hparams["rngs"] = nnx.Rngs(0)  # its weights are replaced
        return make, (kind, hparams, *rest)

    def __deepcopy__(self, memo: Any = None) -> Any:
        """Return a copy, without the trainer and the board."""
        copied = nnx.clone(self)
        for name in self.transient:
            vars(copied).pop(name, None)
        return copied

    @property
    def hparams(self) -> Mapping[str, Any]:
        """What `save_hyperparameters` was given, apart from keys."""
        return self._hparams or {}

    @hparams.setter
    def hparams(self, values: Mapping[str, Any]) -> None:
        self._hparams = _Kept({name: value for name, value in values.items() if not isinstance(value, nnx.Rngs)})

    @property
    def training(self) -> bool:
        """Whether dropout is on; it can be set, as by `train()` and `eval()`."""
        return self._training

    @training.setter
    def training(self, value: bool) -> None:
        (self.train if value else self.eval)()

    def train(self, **attributes: Any) -> None:
        """Let all layers train."""
        self._set_mode(True, **attributes)

    def eval(self, **attributes: Any) -> None:
        """Let no layer drop or normalise by a batch."""
        self._set_mode(False, **attributes)

    def _set_mode(self, training: bool, **attributes: Any) -> None:
        mode = {"deterministic": not training, "use_running_average": not training, "_training": training}
        self.set_attributes(**{**mode, **attributes}, raise_if_not_found=False)

    @property
    def learned(self) -> Variables:
        """The parameters, and the other variables but keys, such as batch statistics, in nested dictionaries."""
        _, params, _, others = _split(self)
        return {"params": params, "batch_stats": others}

    @learned.setter
    def learned(self, variables: Variables) -> None:
        nnx.update(self, variables["params"], variables["batch_stats"])

    @property
    def _dense(self) -> tuple[tuple[Any, ...], ...]:
        """The paths of the fully connected layers, in order of definition."""
        return tuple(_linear(self, ()))

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Return the outputs for inputs (N, ...)."""
        return self.forward(*inputs, **options)

    def forward(self, X: Array) -> Array:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def configure_optimizers(self) -> optax.GradientTransformation:
        """Return the optimiser that `self.optimizer` names, with `self.lr`; without a name, it is plain SGD."""
        return lesson.Classifier.configure_optimizers(self)  # type: ignore[arg-type]

    def apply(self, variables: Variables, *inputs: Array, **options: Any) -> Any:
        """Return what a module of linen returns: the outputs of the network with other variables; see `View.apply`."""
        return View(self, self.training).apply(variables, *inputs, **options)

    def layer_summary(self, X_shape: tuple[int, ...], key: Array | None = None) -> None:
        """Print the shape of each layer's output for random inputs of a shape, in the order of the calls."""
        shown = _view(self, training=False)
        for name, layer in vars(shown).items():
            if isinstance(layer, nnx.Module):
                vars(shown)[name] = _showing(layer)
        shown(randn(*X_shape) if key is None else jax.random.normal(key, X_shape))


class Classifier(Module, BaseClassifier):
    """Base of classification models in the style of `flax.nnx`: cross-entropy, accuracy, and an optimiser."""

    accuracy = lesson.Classifier.accuracy

    def loss(self, Y_hat: Array, Y: Array, averaged: bool = True) -> Array:
        """Return the cross-entropy of logits (N, classes) with labels (N,): its mean, or per sample."""
        Y_hat, Y = Y_hat.reshape(-1, Y_hat.shape[-1]), Y.reshape(-1)
        losses = optax.softmax_cross_entropy_with_integer_labels(Y_hat, Y)
        if self.class_weights is not None:
            return self.weighted(losses, Y, averaged)
        return losses.mean() if averaged else losses


twins.update({lesson.Module: Module, lesson.Classifier: Classifier})


class _Kept(dict[str, Any]):
    """A dictionary that is equal to no other: nnx and JAX compare and hash what modules hold besides arrays."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


class View(BaseModule):
    """What a model is, without its arrays, in training or in evaluation; the arrays are arguments of its functions."""

    def __init__(self, model: Module, training: bool, by_statistics: bool = False):
        seen = _view(model, training)
        for name in model.transient:
            vars(seen).pop(name, None)
        if by_statistics:
            seen.set_attributes(use_running_average=True, raise_if_not_found=False)
        self.graph, _, self.streams, _ = _split(seen)

    def bound(self, variables: Variables, key: Any) -> Any:
        """Return the model with these variables; all its streams of keys begin anew, and depend on `key`."""
        if key.dtype == jnp.uint32:
            key = jax.random.wrap_key_data(key)
        leaves, structure = jax.tree.flatten_with_path(self.streams)
        streams = [_renewed(path[-1].key, leaf, jax.random.fold_in(key, k)) for k, (path, leaf) in enumerate(leaves)]
        return nnx.merge(
            self.graph, variables["params"], jax.tree.unflatten(structure, streams), variables.get("batch_stats", {})
        )

    def apply(
        self, variables: Variables, *inputs: Array, rngs: Any = None, mutable: Any = False, **options: Any
    ) -> Any:
        """Return the outputs and, if `mutable`, a dictionary with the changed batch statistics, as linen does.

        `rngs` is a dictionary with a key, `dropout`, or None.
        """
        bound = self.bound(variables, (rngs or {}).get("dropout", fixed_key()))
        Y = bound(*inputs, **options)
        return (Y, {"batch_stats": _split(bound)[3]}) if mutable else Y

    def training_step(  # type: ignore[override]
        self, params: Any, batch: tuple[Array, ...], state: State
    ) -> tuple[Any, Any]:
        """Return ((loss, dictionary with batch statistics), gradient), and report what the model's own step reports.

        If it reports nothing, the loss is reported.
        """

        def objective(params: Any) -> tuple[Array, Any]:
            bound = self.bound({"params": params, "batch_stats": state.batch_stats}, state.dropout_rng)
            loss, metrics = recorded(bound.training_step, batch)
            return loss, (metrics or {"loss": loss}, _split(bound)[3])

        (loss, (metrics, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        self.report(metrics, train=True)
        return (loss, {"batch_stats": batch_stats}), grads

    def validation_step(  # type: ignore[override]
        self, params: Any, batch: tuple[Array, ...], state: State
    ) -> None:
        """Report what the model's own step reports or, if it reports nothing, returns: loss, or (loss, accuracy)."""
        bound = self.bound({"params": params, "batch_stats": state.batch_stats}, state.dropout_rng)
        value, metrics = recorded(bound.validation_step, batch)
        returned = value if isinstance(value, tuple) else (value,)
        self.report(metrics or dict(zip(("loss", "acc"), returned, strict=False)), train=False)


@in_mode.register
def _(model: Module, training: bool) -> View:
    return View(model, training)


@sampler.register
def _(model: Module) -> Callable[[Variables, tuple[Array, ...], Array], Array]:
    drawing = View(model, training=True, by_statistics=True)
    return lambda variables, X, key: drawing.apply(variables, *X, rngs={"dropout": key})


def _view(model: Module, training: bool) -> Any:
    """Return a copy of a model, which shares its arrays, and trains or does not."""
    seen = nnx.clone(model)
    seen.training = training
    if hasattr(nnx, "view"):  # not in flax 0.12.0; it calls a module's own `set_view`
        mode = {"deterministic": not training, "use_running_average": not training}
        return nnx.view(seen, **mode, raise_if_not_found=False)
    return seen


def _split(model: Any) -> tuple[Any, Any, Any, Any]:
    """Return what a module is, without its arrays, and its parameters, streams of keys and other variables."""
    parts: Any = nnx.split(model, nnx.Param, nnx.RngState, ...)
    return parts[0], *map(nnx.to_pure_dict, parts[1:])


def _renewed(name: str, leaf: Any, key: Array) -> Array:
    """Return a stream's new key or keys, in the form of the old ones, or how many were drawn from it: none."""
    if name != "key":
        return jnp.zeros_like(leaf)
    typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    shape = leaf.shape if typed else leaf.shape[:-1]
    key = jax.random.split(key, shape) if shape else key
    return key if typed else jax.random.key_data(key)


def _linear(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each `nnx.Linear` below a node, in order of definition."""
    if isinstance(node, nnx.Linear):
        yield path
    elif isinstance(node, (list, tuple, nnx.List)):
        for k, child in enumerate(node):
            yield from _linear(child, (*path, k))
    elif isinstance(node, (dict, nnx.Module)):
        for name, child in (node if isinstance(node, dict) else vars(node)).items():
            yield from _linear(child, (*path, name))


def _showing(layer: Any) -> Callable[..., Any]:
    """Return a function that calls a layer, and prints the shape of its outputs, or those of the layers inside it."""

    def show(X: Any, *args: Any, **options: Any) -> Any:
        if isinstance(layer, nnx.Sequential):
            for part in layer.layers:
                X = _showing(part)(X)
            return X
        Y = layer(X, *args, **options)
        print(f"{getattr(layer, '__name__', type(layer).__name__):<12} output shape: {Y.shape}")
        return Y

    return show

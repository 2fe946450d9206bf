"""What models in the book's style need of Keras that `tf.keras.Model` does not do by itself."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import tensorflow as tf

from d2ldrop.errors import BackendError, UsageError
from d2ldrop.hyperparameters import ANY_LAYERS, OPTIONS, TWO_LAYERS
from d2ldrop.overlays import overlaid
from d2ldrop.tf.arrays import entropy
from d2ldrop.training.module import BaseMLP

if tf.keras.backend.backend() != "tensorflow":
    raise BackendError(
        f"Expected Keras to run on TensorFlow. It runs on {tf.keras.backend.backend()}: unset KERAS_BACKEND."
    )


class Model(tf.keras.Model):
    """A model with a training mode, all of whose variables are trained.

    Subclasses define `forward(X)`. They create layers in `__init__`, and variables too, `self.W = tf.Variable(...)`, or
    in lists and dictionaries.
    Keras compiles, fits, saves, clones and exports them like any other model; what it makes a model from again are the
    arguments that `save_hyperparameters` kept. For files with a class of the reader's, `tf.keras.models.load_model`
    wants `custom_objects={name: class}`.
    """

    training: bool | None = None
    """Whether dropout is on. The trainer sets it; with None the caller decides, and Keras' default is off."""

    compiled_validation: Any = None
    """The validation step as a `tf.function`, once it was made."""

    built: bool
    _build_shapes_dict: Any

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        del self.loss  # an attribute for what `compile` is given; here it is a method
        track = self._tracker.track  # Keras calls it for attributes, and for what is put into lists and dictionaries
        self._tracker.track = lambda value: track(self._as_keras(value))

    def _as_keras(self, value: Any, name: str | None = None) -> Any:
        """Return a variable of TensorFlow as one of Keras, which trains only those; both share one storage."""
        if not isinstance(value, tf.Variable):
            return value
        own = [*vars(self).get("_trainable_variables", ()), *vars(self).get("_non_trainable_variables", ())]
        for variable in own:
            if variable.value is value:
                return variable
        return tf.keras.Variable(value, dtype=value.dtype.name, trainable=value.trainable, name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(name)
        super().__setattr__(name, self._as_keras(value, name))
        if isinstance(before, (tf.keras.Variable, tf.keras.layers.Layer)) and self.name_of(before) is None:
            self._tracker.untrack(before)  # Keras would train and save it all the same

    def name_of(self, value: Any) -> str | None:
        """Return the name of the attribute that is a variable or a layer, or has it inside, such as `params.0`."""
        inside = getattr(value, "value", None)  # lists keep the variables that were appended to them
        public = {name: found for name, found in vars(self).items() if not name.startswith("_") and name != "hparams"}
        return next((name for name, found in _named(public) if found is value or (found is inside is not None)), None)

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Return the outputs for some inputs; from here Keras passes `training` on to all layers inside."""
        if self.training is not None:
            kwargs.setdefault("training", self.training)
        if not self.built:
            self.built = True  # Keras has nothing to build: the layers inside create their variables when called
        built = {id(net) for net in self._built_nets()}
        try:
            outputs = super().__call__(*inputs, **kwargs)
        finally:
            if nets := [net for net in self._built_nets() if id(net) not in built]:
                _building_again(nets=nets)
        if self._build_shapes_dict is None:  # Keras' note of what saved and exported models take
            shapes = [tf.TensorShape(getattr(X, "shape", None)) for X in inputs]
            if all(shape.rank for shape in shapes):
                self._build_shapes_dict = {f"X{k}_shape": (None, *shape[1:]) for k, shape in enumerate(shapes)}
        return outputs

    def _built_nets(self) -> list[Any]:
        """Return the sequential networks inside that are built."""
        return [net for net in self._flatten_layers() if isinstance(net, tf.keras.Sequential) and net.built]

    def call(self, X: tf.Tensor, *more: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Call `forward`; Keras calls this method."""
        with mode(self, training):
            return self.forward(X, *more)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Prepare Keras' own `fit` and `evaluate`. A loss that is given is theirs; the model's own `loss` stays."""
        own = {name: value for name, value in self.__dict__.items() if name == "loss"}
        super().compile(*args, **kwargs)
        self.__dict__.pop("loss", None)
        self.__dict__.update(own)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Call `compile` as it was called before the model was saved."""
        self.compile(**_deserialize(config))
        self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """Return the hyperparameters, in the form in which Keras keeps them in files.

        Raises
        ------
        UsageError
            If there are other arguments of `__init__`: without them, it could not make the same model again.
        """
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        _, *arguments = inspect.signature(type(self).__init__).parameters.values()
        names = {argument.name for argument in arguments if argument.kind not in kinds}
        names -= {*OPTIONS, *TWO_LAYERS, *ANY_LAYERS} if isinstance(self, BaseMLP) else set()  # kept if they are given
        if lost := sorted(names - {*getattr(self, "hparams", {})}):
            raise UsageError(
                f"Expected save_hyperparameters() in {type(self).__name__} to keep all arguments of __init__, from "
                f"which Keras makes the model again. It did not keep: {', '.join(lost)}"
            )
        return {name: _serialize(value) for name, value in getattr(self, "hparams", {}).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Return a model with these hyperparameters."""
        return cls(**{name: _deserialize(value, custom_objects) for name, value in config.items()})

    def get_build_config(self) -> dict[str, Any] | None:
        """Return the shapes of the inputs, in the form in which Keras keeps them in files.

        Raises
        ------
        UsageError
            If the model was called with something else than tensors, one after the other: it could not be called again.
        """
        if self.weights and not self._build_shapes_dict:
            raise UsageError(
                f"Expected {type(self).__name__} to be called with tensors, each as an argument without a name. "
                "It was called with others, which Keras could not make again."
            )
        config: dict[str, Any] | None = super().get_build_config()
        return config

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Create the variables, when Keras loads or clones a model that had them, by a call with zeros."""
        shapes = config["shapes_dict"].values() if "shapes_dict" in config else [config["input_shape"]]
        self(*(tf.zeros([size or 1 for size in shape], self.input_dtype) for shape in shapes), training=False)


def _named(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in nested dictionaries, lists and tuples, with the path to it."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, (dict, list, tuple)):
            yield from _named(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_serialize, _deserialize = tf.keras.utils.serialize_keras_object, tf.keras.utils.deserialize_keras_object


@contextmanager
def mode(model: Model, training: bool | None) -> Iterator[None]:
    """Set `model.training` inside the block."""
    before, model.training = model.training, training
    try:
        yield
    finally:
        model.training = before


@contextmanager
def sampling(model: Model) -> Iterator[None]:
    """Inside the block, calls of a model in training leave it as it is.

    Layers inside it with variables that are not trained, such as batch normalisation, are as in evaluation. Keras'
    layers draw their masks from new seeds, of TensorFlow's generator, and get back those they had.
    """
    sources = {id(source): source for layer in model._flatten_layers() for source in _seeds_of(layer)}.values()
    states = [(source, source.state.numpy()) for source in sources]
    inside = model._flatten_layers(include_self=False)
    keeping = [layer for layer in inside if layer._non_trainable_variables and layer._call_has_training_arg]
    try:
        for source in sources:
            source.state.assign([entropy(), 0])
        with overlaid(keeping, "call", lambda layer: partial(_evaluated, layer.call)):
            yield
    finally:
        for source, state in states:
            source.state.assign(state)


def _evaluated(call: Callable[..., Any], *args: Any, training: Any = None, **kwargs: Any) -> Any:
    """Call a layer as in evaluation, in whatever mode Keras calls it."""
    return call(*args, training=False, **kwargs)


def _seeds_of(layer: Any) -> list[Any]:
    """Return what a layer draws its seeds from."""
    return [source for source in vars(layer).values() if isinstance(source, tf.keras.random.SeedGenerator)]


class _Outermost(tf.keras.layers.Layer):
    """A layer that runs a step, so that Keras passes `training` on to all layers called in it, even without a model."""

    def call(self, step: Callable[[], Any], training: bool | None = None) -> Any:
        """Return what the step returns, or its error: Keras would add text to one that is raised here."""
        try:
            return step()
        except Exception as error:
            return error


_outermost = _Outermost(name="outermost")


def in_training(step: Callable[[], Any], training: bool | None = True) -> Any:
    """Run a step, with dropout on in all of Keras' layers that it calls."""
    outcome = _outermost(step=step, training=training)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class _BuildingAgain(tf.keras.layers.Layer):
    """A layer that builds sequential networks again, with dropout off.

    When such a network is first called inside a model, Keras notes the model's mode for each of its layers, and takes
    it for ever where nobody says whether it is training. Then dropout would stay on in plain calls of a model that was
    trained before anything else.
    """

    def call(self, nets: list[Any], training: bool | None = None) -> None:
        """Build the networks; `training` is the mode of what calls the model, which goes on after that."""
        in_training(lambda: [net.build(net.input_shape) for net in nets if hasattr(net, "input_shape")], False)
        in_training(lambda: None, training)


_building_again = _BuildingAgain(name="building_again")


@contextmanager
def noting_penalties(model: Model) -> Iterator[set[int]]:
    """Note the `id`s of the variables and layers whose regularisation terms are asked for inside the block.

    A reader's own loss asks for them when it adds `losses`, those of the model or of a layer.
    """
    noted: set[int] = set()

    def noting(owner: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        def note(*args: Any) -> Any:
            noted.add(id(owner))
            return function(*args)

        return note

    model._clear_losses()  # Keras does it only where a model is called by no layer
    variables = [variable for variable in model.trainable_variables if variable.regularizer is not None]
    before = [variable.regularizer for variable in variables]
    for variable in variables:
        variable.regularizer = noting(variable, variable.regularizer)
    try:
        # what calls of a layer added to its losses, such as terms of its outputs
        with overlaid(model._flatten_layers(), "_get_own_losses", lambda layer: noting(layer, layer._get_own_losses)):
            yield noted
    finally:
        for variable, regularizer in zip(variables, before, strict=True):
            variable.regularizer = regularizer


def penalized(loss: tf.Tensor, model: Model, added: set[int]) -> tf.Tensor:
    """Return a loss plus the regularisation terms of variables and layers whose `id` is not among those `added`.

    Keras' own `fit` adds them, too, and reports the sum. Here the history has what the model's steps report.
    """
    for variable in model.trainable_variables:
        if variable.regularizer is not None and id(variable) not in added:
            loss += variable.regularizer(variable)
    for layer in model._flatten_layers():
        for term in layer._get_own_losses() if id(layer) not in added else ():
            loss += term
    model._clear_losses()
    return loss


def reseed(model: Model, draw: Callable[[], int] = entropy) -> None:
    """Seed anew the initialisers and layers that Keras has seeded by itself, by default from TensorFlow's generator.

    Keras draws their seeds when they are made, before a trainer can seed them. A seed given by the reader stays.
    """
    for layer in model._flatten_layers():
        for source in vars(layer).values():
            if isinstance(source, tf.keras.random.SeedGenerator) and source.get_config()["seed"] is None:
                source.state.assign([draw(), 0])
            elif isinstance(source, tf.keras.initializers.Initializer) and source.get_config().get("seed", 0) is None:
                source.seed = draw()

"""How shared code drives TensorFlow: arrays, training, weights, and the function edition."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from d2ldrop.backend import Backend, Draw, Metrics, Numbers, Parameter, by_name
from d2ldrop.optimizers_by_hand import no_rate
from d2ldrop.tf import arrays, lesson, masks
from d2ldrop.tf.functional import grad_clipping
from d2ldrop.tf.keras_model import mode, reseed, sampling
from d2ldrop.tf.lesson import Module
from d2ldrop.tf.steps import State, configured, floats, run, validation


class TFBackend(Backend[Module, tf.Tensor, str]):
    """TensorFlow: an epoch is one compiled function."""

    name = "tf"
    call_method = "call"
    models = by_name(lesson.DropoutMLPScratch, lesson.DropoutMLP, lesson.DropoutMLPRegressor, lesson.SoftmaxRegression)
    channels_last = True
    label_dtype = np.int32

    cpu, gpu, num_gpus = staticmethod(arrays.cpu), staticmethod(arrays.gpu), staticmethod(arrays.num_gpus)
    is_array, array, numpy = staticmethod(arrays.is_array), staticmethod(arrays.array), staticmethod(arrays.numpy)
    seed, dropout_layer = staticmethod(arrays.seed), staticmethod(lesson.dropout_layer)
    entropy, is_tracing = staticmethod(arrays.entropy), staticmethod(tf.inside_function)
    real_floats, keep_mask = staticmethod(masks.real_floats), staticmethod(masks.keep_mask)
    normal_like, where = staticmethod(masks.normal_like), staticmethod(masks.where)
    sum_along, entries = staticmethod(tf.reduce_sum), staticmethod(arrays.entries)
    clip_gradients = staticmethod(lambda grad_clip_val, model: grad_clipping(model, grad_clip_val))

    def place(self, values: Iterable[Any], device: str) -> tuple[tf.Tensor, ...]:
        """Copy several arrays to the device."""
        return tuple(arrays.array(X, device) for X in values)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Leave TensorFlow's generator alone; without need it is not seeded, because that drops compiled kernels."""
        after, before = arrays.entropy(), arrays.seedings
        try:
            yield
        finally:
            if arrays.seedings > before:
                arrays.seed(after)

    # Models

    def build(
        self, model: Module, inputs: Sequence[Any], device: str, seed: Any = None, draw: Draw | None = None
    ) -> bool:
        """Create the variables that the model lacks, on the device."""
        if seed is not None:
            arrays.seed(seed)
        if all(layer.built for layer in model._flatten_layers(include_self=False)):
            return False
        reseed(model)
        count = len(model.weights)
        with tf.device(device), mode(model, False):
            model(*map(floats, self.place(inputs, device)))
        new = len(model.weights) > count
        if new and draw is not None:
            shapes = {
                name: tuple(value.shape)[:: -1 if transposed else 1]
                for name, (value, transposed) in self.parameters(model).items()
            }
            self.assign(model, draw(shapes))
        return new

    def build_for(self, model: Module, weights: Mapping[str, np.ndarray]) -> None:
        """Create the variables of a model that takes rows of numbers, or images."""
        super().build_for(model, weights)
        for layer in model._flatten_layers():
            if isinstance(layer, tf.keras.Sequential):
                layer._functional = None  # it takes inputs of one rank only; without it, layer after layer is called

    def is_built(self, model: Module) -> bool:
        """Return True if the model has its parameters; layers that it does not use never get theirs."""
        layers = model._flatten_layers(include_self=False)
        return all(layer.built for layer in layers) or bool(model._called and model.weights)

    def parameters(self, model: Module) -> dict[str, Parameter]:
        """Return the variables by their names in files.

        The fully connected layers are lin1, lin2, ... Others are counted by kind, such as conv2d1, because the numbers
        in Keras' own names go on from model to model.
        """
        owners = {id(value): layer for layer in model._flatten_layers() for value in layer.weights}  # innermost last
        found: dict[str, Parameter] = {}
        numbers: dict[str, dict[int, int]] = {}
        for value in model.weights:
            owner = owners[id(value)]
            dense = isinstance(owner, tf.keras.layers.Dense)
            kind = "lin" if dense else type(owner).__name__.lower()
            seen = numbers.setdefault(kind, {})
            k = seen.setdefault(id(owner), len(seen) + 1)
            transposed = dense and value.name == "kernel"
            own = "weight" if transposed else value.name
            name = (model.name_of(value) or own) if owner is model else f"{kind}{k}.{own}"
            while name in found:  # of the keys 0 and "0", say
                name += "_"
            found[name] = Parameter(value, transposed)
        return found

    def assign(self, model: Module, weights: Mapping[str, np.ndarray]) -> None:
        """Set variables in place."""
        for name, (value, transposed) in self.parameters(model).items():
            value.assign(weights[name].T if transposed else weights[name])

    def sublayers(self, net: Any) -> Iterable[Any]:
        """Return the layers of a Keras model, in order, or the one layer that the network is."""
        layers: list[Any] = getattr(net, "layers", [net])
        return layers

    def predict(self, model: Module, X: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the model, without dropout and gradients."""
        with tf.device(X.device), mode(model, False):
            return model(floats(X))

    def affine(self, layer: tf.keras.layers.Dense) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the values of a layer's variables."""
        return tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias)

    def sample(self, model: Module, X: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the model with dropout on, without gradients."""
        with tf.device(X.device), mode(model, True), sampling(model):
            return model(floats(X))

    def device_of(self, model: Module) -> str:
        """Return the device of the first variable."""
        device: str = tf.convert_to_tensor(model.weights[0]).device if model.weights else self.cpu()
        return device

    def linear_layers(self, model: Module) -> list[tf.keras.layers.Dense]:
        """Return the layers of the class `Dense`."""
        return [layer for layer in model._flatten_layers() if isinstance(layer, tf.keras.layers.Dense)]

    # Training

    def init_state(self, model: Module, seed: int | None) -> State:
        """Make the optimiser, and seed the dropout masks."""
        model.compiled_validation = None  # the reader may have changed what it is made of
        optim = configured(model)
        if seed is not None:
            arrays.seed(seed)
            reseed(model)
        return State(model, optim, arrays.entropy())

    def reseed(self, state: State, seed: int) -> None:
        """Begin anew what `dropout_layer` and Keras' layers draw, of all of which the state is in variables."""
        rng = np.random.default_rng(seed)
        state.generator.reset_from_seed(int(rng.integers(2**31)))
        reseed(state.model, lambda: int(rng.integers(2**31)))
        state.draws = int(rng.integers(2**30))

    def optimizer_state(self, state: State) -> dict[str, np.ndarray]:
        """Return copies of the variables of a Keras optimiser, its step and learning rate among them, by their numbers.

        Their own names would not do, as they go on counting from model to model.
        """
        if not isinstance(state.optim, tf.keras.optimizers.Optimizer):
            return super().optimizer_state(state)
        return {str(k): np.array(value) for k, value in enumerate(state.optim.variables)}

    def set_optimizer_state(self, state: State, arrays: Mapping[str, np.ndarray]) -> State:
        """Set what `optimizer_state` returned."""
        if not isinstance(state.optim, tf.keras.optimizers.Optimizer):
            updated: State = super().set_optimizer_state(state, arrays)
            return updated
        for k, value in enumerate(state.optim.variables):
            value.assign(arrays[str(k)])
        return state

    def set_lr(self, state: State, lr: float) -> State:
        """Set the learning rate: Keras keeps it in a variable, and of one by hand a tensor takes its place."""
        if not isinstance(state.optim, tf.keras.optimizers.Optimizer):
            state = super().set_lr(state, lr)
            state.rate = tf.constant(lr, state.variables[0].dtype)
            return state
        try:
            state.optim.learning_rate = lr
        except (TypeError, AttributeError):  # Keras', of one that has a schedule or a function there
            raise no_rate(state.optim) from None
        return state

    def train_step(self, state: State, batch: tuple[tf.Tensor, ...], clip: float) -> tuple[State, Metrics]:
        """Take one step of the optimiser: the same as an epoch of one batch."""
        count = len(batch[-1])
        return state, {key: curve[0] for key, curve in run(state, batch, np.arange(count), count, clip).items()}

    def train_epoch(
        self, state: State, data: tuple[tf.Tensor, ...], order: np.ndarray, batch_size: int, clip: float
    ) -> tuple[State, Numbers]:
        """Take a step for each `batch_size` entries of `order`."""
        curves = run(state, data, order, batch_size, clip)
        return state, {key: curve.numpy().tolist() for key, curve in curves.items()}

    def eval_step(self, model: Module, batch: tuple[tf.Tensor, ...]) -> Metrics:
        """Return the metrics of one batch, without dropout and gradients."""
        return validation(model, batch)

    def eval_epoch(self, model: Module, data: tuple[tf.Tensor, ...], batch_size: int) -> Numbers:
        """Return the metrics of each `batch_size` samples, without dropout and gradients."""
        starts = range(0, len(data[-1]), batch_size)
        steps = [self.eval_step(model, tuple(X[i : i + batch_size] for X in data)) for i in starts]
        return {key: tf.stack([metrics[key] for metrics in steps]).numpy().tolist() for key in steps[0]}

    # The function edition

    def outputs(self, net: Any, X: tf.Tensor) -> tf.Tensor:
        """Return the outputs of a model or function for a batch, without dropout."""
        return _call(net, X, training=False)

    def total_loss(self, loss: Any, y_hat: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return the sum of a batch's losses, whether `loss` averages them or returns one per sample.

        A loss of Keras takes the labels first, a function of the reader's takes them last.
        """
        value = loss(y, y_hat) if isinstance(loss, tf.keras.losses.Loss) else loss(y_hat, y)
        return tf.reduce_sum(value) if value.shape.rank else value * len(y)

    def learn(self, net: Any, X: tf.Tensor, y: tf.Tensor, loss: Any, updater: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Take a step; return the sum of the losses, and the outputs, under dropout.

        An updater that is no optimiser of Keras is called with the batch size and the gradients of its `params`. The
        gradients are those of the losses with the regularisation terms of a Keras model, which are not in the sum.
        """
        keras = isinstance(updater, tf.keras.optimizers.Optimizer)
        with tf.GradientTape() as tape:
            y_hat = _call(net, X, training=True)
            total = self.total_loss(loss, y_hat, y)
            objective = total / len(y) if keras else total
            if penalties := getattr(net, "losses", ()):  # Keras' own `fit` adds them to the mean, too
                objective += sum(penalties) * (1 if keras else len(y))
        if keras:
            params = net.trainable_variables
            updater.apply_gradients(zip(tape.gradient(objective, params), params, strict=True))
        else:
            updater(len(y), tape.gradient(objective, updater.params))
        return total, y_hat

    def num_correct(self, y_hat: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return how many of the predictions are right."""
        labels = tf.argmax(y_hat, axis=1) if y_hat.shape.rank > 1 else y_hat
        return tf.reduce_sum(tf.cast(tf.cast(labels, y.dtype) == y, tf.float32))


def _call(net: Any, X: tf.Tensor, training: bool) -> tf.Tensor:
    """Call a model, which must be given its mode, or a function that may not take one."""
    takes = isinstance(net, tf.keras.layers.Layer) or "training" in inspect.signature(net).parameters
    return net(X, training=training) if takes else net(X)


backend = TFBackend()

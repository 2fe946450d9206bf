"""The chapter in JAX, with Flax and Optax: `from d2ldrop import jax as d2l`.

Here a model is but a description. What training changes (the parameters, what the optimiser remembers, the key of the
dropout masks) travels beside it in a `State`, and each step returns a new one.
"""

import sys
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import jax
    import optax
    from flax import linen as nn
    from flax import struct, traverse_util
    from flax.training.train_state import TrainState
from jax import Array, lax
from jax import numpy as jnp
from jax.experimental import io_callback

from d2ldrop import data as _data
from d2ldrop.backend import Metrics
from d2ldrop.board import ProgressBoard
from d2ldrop.classic import Accumulator, Animator, Timer, accuracy, get_fashion_mnist_labels, loaders
from d2ldrop.errors import ArgumentTypeError, UsageError
from d2ldrop.hyperparameters import HyperParameters, add_to_class
from d2ldrop.jax.keys import give_key, is_traced, module_key, random_drops, renewing
from d2ldrop.jax.modules import FlaxModule, create, in_mode, named
from d2ldrop.module import BaseClassifier, BaseModule, recording
from d2ldrop.pictures import plot, plt, set_figsize, show_images, use_svg_display
from d2ldrop.randomness import lanes, odds, shared_generator, sharing_masks
from d2ldrop.trainer import Trainer
from d2ldrop.weights import checked

name = "jax"
channels_last = True

Batch = tuple[Array, ...]

# Devices


def cpu() -> jax.Device:
    """Return the CPU."""
    return jax.devices("cpu")[0]


def gpu(i: int = 0) -> jax.Device:
    """Return the GPU number `i`, which must be there."""
    return jax.devices("gpu")[i]


def num_gpus() -> int:
    """Count the GPUs that JAX can use."""
    return sum(device.platform == "gpu" for device in jax.devices())


def try_gpu(i: int = 0) -> jax.Device:
    """Return the GPU number `i`, or the CPU if there is no such GPU."""
    return gpu(i) if i < num_gpus() else cpu()


def try_all_gpus() -> list[jax.Device]:
    """Return the GPUs that JAX can use, or the CPU if there are none."""
    return [gpu(i) for i in range(num_gpus())] or [cpu()]


# Arrays: the words in which the book's shared cells are written

float32, float64, int32, int64 = jnp.float32, jnp.float64, jnp.int32, jnp.int64
arange, linspace, meshgrid, tensor = jnp.arange, jnp.linspace, jnp.meshgrid, jnp.array
zeros, ones, eye, zeros_like, ones_like = jnp.zeros, jnp.ones, jnp.eye, jnp.zeros_like, jnp.ones_like
exp, log, abs, sin, cos, sinh, cosh, tanh = (
    jnp.exp, jnp.log, jnp.abs, jnp.sin, jnp.cos, jnp.sinh, jnp.cosh, jnp.tanh,
)  # fmt: skip
matmul, batch_matmul, concat, stack, sigmoid = jnp.matmul, jnp.matmul, jnp.concatenate, jnp.stack, jax.nn.sigmoid
reshape, transpose, expand_dims, repeat = jnp.reshape, jnp.transpose, jnp.expand_dims, jnp.repeat
reduce_sum, reduce_mean, argmax, size = jnp.sum, jnp.mean, jnp.argmax, jnp.size


def is_array(X: Any) -> bool:
    """Tell whether `X` is an array of JAX; what `jax.jit` and its like trace counts."""
    return isinstance(X, Array)


def array(X: Any, device: jax.Device | None = None) -> Array:
    """Bring an array of the host, or of JAX, to the device; 64 bits become 32 unless JAX was told to keep them."""
    return jax.device_put(X if is_array(X) else np.asarray(X), device)


def numpy(X: Array) -> np.ndarray:
    """Copy an array to the host; bfloat16, which NumPy lacks, becomes float32."""
    return np.array(X, np.float32 if X.dtype == jnp.bfloat16 else None)


def to(X: Array, device: jax.Device) -> Array:
    """Bring an array to the device."""
    return jax.device_put(X, device)


def astype(X: Array, dtype: Any) -> Array:
    """Convert the elements to another type."""
    return X.astype(dtype)


def rand(*shape: int) -> Array:
    """Draw uniformly from [0, 1)."""
    return jax.random.uniform(get_key(), shape)


def randn(*shape: int) -> Array:
    """Draw from the standard normal distribution."""
    return jax.random.normal(get_key(), shape)


def normal(mean: float, std: float, shape: tuple[int, ...]) -> Array:
    """Draw from a normal distribution."""
    return mean + std * jax.random.normal(get_key(), shape)


# Dropout

_keys = np.random.default_rng()


def seed(seed: Any) -> None:
    """Start the keys of `get_key` afresh, from an integer or a key of JAX."""
    global _keys
    _keys = np.random.default_rng(np.asarray(jax.random.key_data(seed)) if is_array(seed) else seed)


def get_key() -> Array:
    """Return a key that was never returned before: 64 random bits, as two uint32.

    In what you compile yourself it is a constant: there, let the key be an argument. Where the trainer compiles a step,
    such a constant is renewed whenever it is used.
    """
    return give_key(_keys)


def dropout_layer(X: Array, dropout: float, key: Array | None = None) -> Array:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for arrays of JAX.

    Parameters
    ----------
    X
        Any shape, dtype and device; integers are promoted to the default float.
    dropout
        The probability p of dropping an element, a real number in [0, 1].
    key
        Decides which elements are dropped: the same key, the same mask. By default there is a new one at each call: in
        a Flax module it comes from the module's stream `dropout`, elsewhere from `get_key`.

    Returns
    -------
    Array
        Same shape, dtype and device as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not real, or `dropout` is not a real number in [0, 1].
    UsageError
        If `key` is missing where JAX traces outside of a module: what is compiled once would have one mask for ever.
    """
    threshold, scale = odds(dropout)
    if not is_array(X):
        X = np.asarray(X)  # type: ignore[assignment]
    if not jnp.issubdtype(X.dtype, jnp.floating):
        if not jnp.issubdtype(X.dtype, jnp.integer) and X.dtype != bool:
            raise ArgumentTypeError(f"Expected X to hold real numbers. Received: {X.dtype}")
        X = X.astype(jnp.zeros(()).dtype)
    if threshold == 0:
        return jnp.asarray(X)
    if (rng := shared_generator()) is not None:
        drawn = io_callback(partial(lanes, X.shape, rng), jax.ShapeDtypeStruct(X.shape, jnp.uint16), ordered=True)
        drop = drawn.astype(jnp.int32) < threshold
    else:
        drop = random_drops(X.shape, _new_key(X) if key is None else key, threshold)
    return _masked(X, drop, scale)


@jax.jit
def _masked(X: Array, drop: Array, scale: float) -> Array:
    return jnp.where(drop, 0, X * scale)  # a product with the mask would make nan of a dropped inf


def _new_key(X: Array) -> Any:
    """Return a key for a mask, or refuse where it would become a constant."""
    key = module_key("dropout")
    if key is None and is_traced(X):
        raise UsageError(
            "Expected a key for dropout_layer, because JAX traces this code and would compile one mask into it. Call "
            "dropout_layer(X, dropout, key=key) with a key among the arguments of the traced function."
        )
    return _keys.integers(2**32, size=2, dtype=np.uint32) if key is None else key


# Data


class DataModule(_data.DataModule):
    """Base of data sets whose batches are arrays of JAX."""

    backend_name = name


class ArrayData(DataModule, _data.ArrayData):
    """Your own arrays as a data set whose batches are arrays of JAX."""


class Digits(DataModule, _data.Digits):
    """scikit-learn's digits, with batches of arrays (N, 8, 8, 1)."""


class FashionMNIST(DataModule, _data.FashionMNIST):
    """Fashion-MNIST, with batches of arrays (N, H, W, 1)."""


def load_data_fashion_mnist(batch_size: int, resize: int | tuple[int, int] | None = None) -> tuple[Any, Any]:
    """Return batches of Fashion-MNIST to train on, reshuffled at each pass, and batches to test on."""
    return loaders(FashionMNIST(batch_size, resize or (28, 28)))


# Models


class Module(BaseModule, FlaxModule):
    """Base of models: a module of Flax that a trainer can train.

    Subclasses declare their hyperparameters as fields. They define a `loss` and `configure_optimizers()`, and the
    network by `setup` and `forward(X)`, or as `self.net`, or in a compact `__call__`.
    """

    backend = sys.modules[__name__]  # type: ignore[assignment]

    def __call__(self, *inputs: Array) -> Array:
        """Return the outputs for inputs (N, ...)."""
        return self.forward(*inputs)

    def forward(self, X: Array) -> Array:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def loss(self, *args: Any) -> Any:
        """Return how wrong the outputs are, given (params, X, y, state): a scalar, or (scalar, dictionary)."""
        raise UsageError(f"Expected {type(self).__name__} to define loss(params, X, y, state). It does not.")

    def training_step(self, params: Any, batch: Batch, state: "State") -> tuple[Any, Any]:
        """Return ((loss of a batch, dictionary of what else came out), gradient), and report the loss."""

        def objective(params: Any) -> tuple[Array, Mapping[str, Any]]:
            return _pair(self.loss(params, batch[:-1], batch[-1], state))

        value, grads = jax.value_and_grad(objective, has_aux=True)(params)
        self._report(value, params, batch, state, train=True)
        return value, grads

    def validation_step(self, params: Any, batch: Batch, state: "State") -> None:
        """Report the loss of a batch that is not trained on."""
        self._report(_pair(self.loss(params, batch[:-1], batch[-1], state)), params, batch, state, train=False)

    def _report(self, value: Any, params: Any, batch: Batch, state: "State", train: bool) -> None:
        """Plot what a step found."""
        self.plot("loss", value[0], train)

    def apply_init(self, inputs: Batch, key: Array | None = None) -> Any:
        """Create parameters from a key, with the shapes that `inputs` need; return them in a dictionary."""
        create(self, inputs, get_key() if key is None else key)
        return self.learned


def _pair(value: Any) -> tuple[Array, Mapping[str, Any]]:
    """Return a loss, and the dictionary of what came with it."""
    loss, extra = value if isinstance(value, tuple) else (value, {})
    return loss, extra if isinstance(extra, Mapping) else {}


class Classifier(Module, BaseClassifier):
    """Base of models that tell classes apart: cross-entropy, accuracy, and SGD with `self.lr`."""

    def loss(
        self, params: Any, X: Batch, Y: Array, state: "State", averaged: bool = True
    ) -> tuple[Array, dict[str, Any]]:
        """Return the cross-entropy of logits with labels (N,), and a dictionary of the logits and new batch statistics.

        Parameters
        ----------
        params
            The parameters, as Flax keeps them.
        X, Y
            A tuple of inputs (N, ...), and labels (N,).
        state
            Tells how the model is applied, and from which key its masks are made.
        averaged
            Whether to return the mean, or the loss of each sample.
        """
        Y_hat, changed = logits(params, X, state)
        losses = optax.softmax_cross_entropy_with_integer_labels(Y_hat.reshape(-1, Y_hat.shape[-1]), Y.reshape(-1))
        return (losses.mean() if averaged else losses), {"logits": Y_hat, **changed}

    def accuracy(self, Y_hat: Array, Y: Array, averaged: bool = True) -> Array:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        hits = (Y_hat.reshape(-1, Y_hat.shape[-1]).argmax(axis=1) == Y.reshape(-1)).astype(jnp.float32)
        return hits.mean() if averaged else hits

    def _report(self, value: Any, params: Any, batch: Batch, state: "State", train: bool) -> None:
        """Plot loss and accuracy; in training, both are under dropout."""
        super()._report(value, params, batch, state, train)
        Y_hat = value[1].get("logits")
        if Y_hat is None:  # a loss of the reader's own kept them: ask again, with the same key and so the same masks
            with sharing_masks(None):
                Y_hat, _ = logits(params, batch[:-1], state)
        self.plot("acc", self.accuracy(Y_hat, batch[-1]), train)

    def configure_optimizers(self) -> Any:
        """Return stochastic gradient descent with the learning rate `self.lr`."""
        return optax.sgd(self.lr)

    def layer_summary(self, X_shape: tuple[int, ...]) -> None:
        """Print the shape of each layer's output for random inputs of a shape."""

        def show(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
            X = method(*args, **kwargs)
            if not isinstance(context.module, (Module, nn.Sequential)):
                print(f"{type(context.module).__name__:<12} output shape: {X.shape}")
            return X

        with nn.intercept_methods(show):
            in_mode(self, training=False).init(get_key(), randn(*X_shape))


def logits(params: Any, X: Batch, state: "State") -> tuple[Array, dict[str, Any]]:
    """Return the outputs of a model, and its batch statistics if they changed."""
    variables = {"params": params, "batch_stats": state.batch_stats}
    return state.apply_fn(variables, *X, mutable=["batch_stats"], rngs={"dropout": state.dropout_rng})


class SGD(HyperParameters):
    """Stochastic gradient descent by hand, as a transformation of gradients in Optax: each becomes minus `lr` times it.

    Optax adds what comes out to the parameters.
    """

    def __init__(self, lr: float):
        self.save_hyperparameters()

    def init(self, params: Any) -> Any:
        """Return what the optimiser remembers from step to step: nothing."""
        return optax.EmptyState()

    def update(self, grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """Return how each parameter changes."""
        return jax.tree.map(lambda grad: -self.lr * grad, grads), state


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    num_outputs: int
    lr: float

    host_init = True

    @nn.compact
    def __call__(self, X: Array) -> Array:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        return nn.Dense(self.num_outputs)(X.reshape(X.shape[0], -1))


class DropoutMLPScratch(Classifier):
    """Two hidden layers, with `dropout_layer` after each activation while training.

    Parameters
    ----------
    num_outputs, num_hiddens_1, num_hiddens_2
        Widths of the layers.
    dropout_1, dropout_2
        Probabilities of dropping an activation.
    lr
        Learning rate.
    training
        Whether to drop anything; while it fits, evaluates or predicts, the trainer decides.
    """

    num_outputs: int
    num_hiddens_1: int
    num_hiddens_2: int
    dropout_1: float
    dropout_2: float
    lr: float
    training: bool = True

    host_init = True

    def setup(self) -> None:
        """Name the layers; Flax calls it."""
        self.lin1 = nn.Dense(self.num_hiddens_1)
        self.lin2 = nn.Dense(self.num_hiddens_2)
        self.lin3 = nn.Dense(self.num_outputs)

    def forward(self, X: Array) -> Array:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H1 = nn.relu(self.lin1(X.reshape(X.shape[0], -1)))
        if self.training:
            H1 = dropout_layer(H1, self.dropout_1)
        H2 = nn.relu(self.lin2(H1))
        if self.training:
            H2 = dropout_layer(H2, self.dropout_2)
        return self.lin3(H2)


class DropoutMLP(Classifier):
    """The same network from Flax's own layers; parameters as in `DropoutMLPScratch`."""

    num_outputs: int
    num_hiddens_1: int
    num_hiddens_2: int
    dropout_1: float
    dropout_2: float
    lr: float
    training: bool = True

    host_init = True

    @nn.compact
    def __call__(self, X: Array) -> Array:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        X = X.reshape(X.shape[0], -1)
        for width, dropout in ((self.num_hiddens_1, self.dropout_1), (self.num_hiddens_2, self.dropout_2)):
            X = nn.relu(nn.Dense(width)(X))
            X = nn.Dropout(dropout, deterministic=not self.training)(X)
        return nn.Dense(self.num_outputs)(X)


# Training: how the one Trainer drives this framework


class State(TrainState):
    """What training carries from step to step; each step returns a new one."""

    batch_stats: Any
    dropout_rng: Array
    steps: "Steps" = struct.field(pytree_node=False)


class Steps:
    """The steps of one training; they are compiled when they first run, once for each shape of batch."""

    def __init__(self, model: Module):
        self.model = model
        self.compile()

    def compile(self) -> None:
        """Forget what was compiled; hyperparameters are constants of the new steps."""
        model, self.hparams = self.model, self.model.hparams
        self.names: list[str] = []  # of the metrics, as they are reported
        learner, judge = in_mode(model, training=True), in_mode(model, training=False)

        def train(state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
            key = jax.random.fold_in(state.dropout_rng, state.step)  # a new one for each step
            seen = state.replace(apply_fn=learner.apply, dropout_rng=key)
            with recording() as metrics:
                value, grads = learner.training_step(state.params, _inputs(batch), seen)
            self.names += metrics
            if clip > 0:
                grads = clip_gradients(clip, grads)
            batch_stats = _pair(value)[1].get("batch_stats", state.batch_stats)
            return state.apply_gradients(grads=grads, batch_stats=batch_stats), metrics

        def epoch(state: State, data: Batch, rows: Array, clip: float) -> tuple[State, Metrics]:
            def body(state: State, row: Array) -> tuple[State, Metrics]:
                return train(state, tuple(samples[row] for samples in data), clip)

            return lax.scan(body, state, rows)

        def evaluate(state: State, batch: Batch) -> Metrics:
            with recording() as metrics:
                judge.validation_step(state.params, _inputs(batch), state.replace(apply_fn=judge.apply))
            self.names += metrics
            return metrics

        train = renewing(train)
        self.train, self.epoch = jax.jit(train, static_argnums=2), jax.jit(epoch, static_argnums=3)
        self.evaluate = jax.jit(evaluate)


def build(model: Module, inputs: Batch, device: jax.Device) -> bool:
    """Put the parameters on the device, and create them if there are none; return whether there were none."""
    new = model.learned is None
    if new:
        create(model, _inputs((*inputs, inputs[0]))[:-1], get_key())
    model.learned = jax.device_put(model.learned, device)
    return new


def init_state(model: Module, optim: Any, seed: int | None) -> State:
    """Put together parameters, optimiser and the key from which dropout's keys are made."""
    variables = model.learned
    key = get_key() if seed is None else jax.random.PRNGKey(seed)
    state = State.create(apply_fn=model.apply, tx=optim, dropout_rng=key, steps=Steps(model), **variables)
    where = next((leaf.device for leaf in jax.tree.leaves(variables)), None)
    return jax.device_put(state.replace(step=jnp.int32(0)), where)


def train_step(state: State, batch: Batch, clip: float) -> tuple[State, Metrics]:
    """Take one step of the optimiser."""
    return _kept(*_steps(state, training=True).train(state, batch, clip))


def train_epoch(state: State, data: Batch, order: np.ndarray, batch_size: int, clip: float) -> tuple[State, Metrics]:
    """Take a step for each `batch_size` entries of `order`; return a vector of each metric, still on the device."""
    whole = len(order) // batch_size * batch_size
    parts = []
    for part, size in ((order[:whole], batch_size), (order[whole:], len(order) - whole)):
        if len(part):
            rows = jax.device_put(part.reshape(-1, size).astype(np.int32), data[0].device)
            state, metrics = _steps(state, training=True).epoch(state, data, rows, clip)
            parts.append(metrics)
    return _kept(state, jax.tree.map(lambda *values: jnp.concatenate(values), *parts))


def eval_step(state: State, batch: Batch) -> Metrics:
    """Return the metrics of one batch, without dropout and gradients."""
    return _in_order(state, _steps(state, training=False).evaluate(state, batch))


def predict(model: Module, X: Array) -> Array:
    """Return the outputs of the model, without dropout and gradients."""
    model.training = False
    return model(*_inputs((X, X))[:-1])


def clip_gradients(grad_clip_val: float, grads: Any) -> Any:
    """Return the gradients, scaled so that their common norm is at most `grad_clip_val`."""
    norm = jnp.sqrt(sum(jnp.vdot(grad, grad) for grad in jax.tree.leaves(grads)))
    shrink = jnp.minimum(1, grad_clip_val / norm)
    return jax.tree.map(lambda grad: grad * shrink, grads)


def _inputs(batch: Batch) -> Batch:
    """Turn stored pixels, uint8, into float32 in [0, 1]."""
    return (*(X.astype(jnp.float32) / 255 if X.dtype == jnp.uint8 else X for X in batch[:-1]), batch[-1])


def _steps(state: State, training: bool) -> Steps:
    """Return the compiled steps, or new ones if someone changed a hyperparameter; let the model know its mode."""
    state.steps.model.training = training
    if state.steps.hparams != state.steps.model.hparams:
        state.steps.compile()
    return state.steps


def _kept(state: State, metrics: Metrics) -> tuple[State, Metrics]:
    """Let the model know what was learned, and pass it on."""
    state.steps.model.learned = {"params": state.params, "batch_stats": state.batch_stats}
    return state, _in_order(state, metrics)


def _in_order(state: State, metrics: Metrics) -> Metrics:
    """Return the metrics in the order in which the step reported them; JAX sorts dictionaries by their keys."""
    return {name: metrics[name] for name in state.steps.names if name in metrics}


# Weights: their names and layouts in files


def get_weights(model: Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters, the fully connected layers' as lin1.weight (outputs, inputs), lin1.bias, ..."""
    flat = traverse_util.flatten_dict(model.learned)
    return {name: numpy(flat[path].T if turned else flat[path]) for name, path, turned in named(model, flat)}


def set_weights(model: Module, weights: dict[str, np.ndarray]) -> None:
    """Assign all parameters."""
    flat = traverse_util.flatten_dict(model.learned)
    parameters = list(named(model, flat))
    shapes = {name: flat[path].shape[::-1] if turned else flat[path].shape for name, path, turned in parameters}
    weights = checked(weights, shapes)
    for name, path, turned in parameters:
        value = weights[name].T if turned else weights[name]
        flat[path] = jax.device_put(jnp.array(value, flat[path].dtype), flat[path].device)
    model.learned = traverse_util.unflatten_dict(flat)

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
from jax import Array
from jax import numpy as jnp
from jax.experimental import io_callback

from d2ldrop import data as _data
from d2ldrop.backend import device_choice
from d2ldrop.board import ProgressBoard
from d2ldrop.classic import (
    Accumulator,
    Animator,
    Timer,
    accuracy,
    evaluate_accuracy,
    evaluate_loss,
    get_fashion_mnist_labels,
    loading,
    predict_ch3,
    train_ch3,
    train_epoch_ch3,
)
from d2ldrop.errors import ArgumentTypeError, UsageError
from d2ldrop.figures import draw_network, show_confusion, show_mistakes
from d2ldrop.hyperparameters import HyperParameters, add_to_class
from d2ldrop.jax.classic import Net, learn, outputs, sgd, total_loss
from d2ldrop.jax.keys import fresh_bits, get_key, is_traced, module_key, random_drops, seed
from d2ldrop.jax.modules import FlaxModule, create, in_mode
from d2ldrop.module import BaseClassifier, BaseModule
from d2ldrop.pictures import plot, plt, set_figsize, show_images, use_svg_display
from d2ldrop.randomness import lanes, odds, shared_generator, sharing_masks
from d2ldrop.trainer import Trainer

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


try_gpu, try_all_gpus = device_choice(cpu, gpu, num_gpus)

# Arrays: the words in which the book's shared cells are written

float32, float64, int32, int64 = jnp.float32, jnp.float64, jnp.int32, jnp.int64
arange, linspace, meshgrid, tensor = jnp.arange, jnp.linspace, jnp.meshgrid, jnp.array
zeros, ones, eye, zeros_like, ones_like = jnp.zeros, jnp.ones, jnp.eye, jnp.zeros_like, jnp.ones_like
exp, log, abs, sin, cos, sinh, cosh, tanh = (
    jnp.exp, jnp.log, jnp.abs, jnp.sin, jnp.cos, jnp.sinh, jnp.cosh, jnp.tanh,
)  # fmt: skip
matmul, batch_matmul, concat, stack, sigmoid = jnp.matmul, jnp.matmul, jnp.concatenate, jnp.stack, jax.nn.sigmoid
reshape, transpose, expand_dims, repeat = jnp.reshape, jnp.transpose, jnp.expand_dims, jnp.repeat
reduce_sum, reduce_mean, argmax, size, to = jnp.sum, jnp.mean, jnp.argmax, jnp.size, jax.device_put


def is_array(X: Any) -> bool:
    """Tell whether `X` is an array of JAX; what `jax.jit` and its like trace counts."""
    return isinstance(X, Array)


def array(X: Any, device: jax.Device | None = None) -> Array:
    """Bring an array of the host, or of JAX, to the device; 64 bits become 32 unless JAX was told to keep them."""
    return jax.device_put(X if is_array(X) else np.asarray(X), device)


def numpy(X: Array) -> np.ndarray:
    """Copy an array to the host; bfloat16, which NumPy lacks, becomes float32."""
    return np.array(X, np.float32 if X.dtype == jnp.bfloat16 else None)


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
    threshold, scale, bits = odds(dropout)
    if not is_array(X):
        X = np.asarray(X)  # type: ignore[assignment]
    if not jnp.issubdtype(X.dtype, jnp.floating):
        if not jnp.issubdtype(X.dtype, jnp.integer) and X.dtype != bool:
            raise ArgumentTypeError(f"Expected X to hold real numbers. Received: {X.dtype}")
        X = X.astype(jnp.zeros(()).dtype)
    if threshold == 0:
        return jnp.asarray(X)
    if (rng := shared_generator()) is not None:
        shape = jax.ShapeDtypeStruct(X.shape, f"uint{max(bits, 8)}")
        drawn = io_callback(partial(lanes, X.shape, rng, bits), shape, ordered=True)
        drop = drawn.astype(jnp.int32) < threshold
    else:
        drop = random_drops(X.shape, _new_key(X) if key is None else key, threshold << 16 - bits)
    return _masked(X, drop, scale)


@jax.jit
def _masked(X: Array, drop: Array, scale: float) -> Array:
    # a product with the mask would make nan of a dropped inf; float16 ends before 65536, the largest scale
    return jnp.where(drop, 0, X * jnp.minimum(scale, jnp.finfo(X.dtype).max))


def _new_key(X: Array) -> Any:
    """Return a key for a mask, or refuse where it would become a constant."""
    key = module_key("dropout")
    if key is None and is_traced(X):
        raise UsageError(
            "Expected a key for dropout_layer, because JAX traces this code and would compile one mask into it. Call "
            "dropout_layer(X, dropout, key=key) with a key among the arguments of the traced function."
        )
    return fresh_bits() if key is None else key


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


load_data_fashion_mnist = loading(FashionMNIST)

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


# Training, and weights in files: the seam's other half is in a room of its own

from d2ldrop.jax.training import (
    State,
    Steps,
    build,
    clip_gradients,
    eval_step,
    get_weights,
    init_state,
    predict,
    set_weights,
    train_epoch,
    train_step,
)

"""The chapter in TensorFlow: `from d2ldrop import tensorflow as d2l`."""

import math
import os
import sys
from contextlib import suppress
from typing import Any

import numpy as np

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
from d2ldrop.errors import ArgumentTypeError
from d2ldrop.figures import draw_network, show_confusion, show_mistakes
from d2ldrop.hyperparameters import HyperParameters, add_to_class
from d2ldrop.module import BaseClassifier, BaseModule
from d2ldrop.pictures import plot, plt, set_figsize, show_images, use_svg_display
from d2ldrop.randomness import lanes, odds, shared_generator
from d2ldrop.tf.quiet import quietly
from d2ldrop.trainer import Trainer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # 0 shows everything
with quietly(stderr=os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0"):
    import tensorflow as tf

    from d2ldrop.tf import bridge
    from d2ldrop.tf.classic import learn, outputs, sgd, total_loss

for _gpu in tf.config.list_physical_devices("GPU"):
    with suppress(RuntimeError, ValueError):  # in use already, or told how much memory to take
        tf.config.experimental.set_memory_growth(_gpu, True)

name = "tf"
channels_last = True

# Devices


def cpu() -> str:
    """Return the name of the CPU, for `with tf.device(...)`."""
    return "/CPU:0"


def gpu(i: int = 0) -> str:
    """Return the name of the GPU number `i`, without looking whether it is there."""
    return f"/GPU:{i}"


def num_gpus() -> int:
    """Count the GPUs that TensorFlow can use."""
    return len(tf.config.list_physical_devices("GPU"))


try_gpu, try_all_gpus = device_choice(cpu, gpu, num_gpus)

# Arrays: the words in which the book's shared cells are written

float32, float64, int32, int64 = tf.float32, tf.float64, tf.int32, tf.int64
arange, linspace, meshgrid, tensor = tf.range, tf.linspace, tf.meshgrid, tf.constant
zeros, ones, eye, zeros_like, ones_like = tf.zeros, tf.ones, tf.eye, tf.zeros_like, tf.ones_like
exp, log, abs, sin, cos, sinh, cosh = tf.exp, tf.math.log, tf.abs, tf.sin, tf.cos, tf.sinh, tf.cosh
tanh, sigmoid, matmul, batch_matmul, concat, stack = tf.tanh, tf.sigmoid, tf.matmul, tf.matmul, tf.concat, tf.stack
reshape, transpose, expand_dims, repeat = tf.reshape, tf.transpose, tf.expand_dims, tf.repeat
reduce_sum, reduce_mean, argmax, astype = tf.reduce_sum, tf.reduce_mean, tf.argmax, tf.cast


def is_array(X: Any) -> bool:
    """Tell whether `X` is a tensor of TensorFlow, or a variable of TensorFlow or Keras."""
    return isinstance(X, (tf.Tensor, tf.Variable, tf.keras.Variable))


def array(X: Any, device: str | None = None) -> tf.Tensor:
    """Bring an array of the host, or a tensor, to the device."""
    with tf.device(device):
        X = tf.convert_to_tensor(X)
        return X if device is None or X.device.endswith(device.lstrip("/")) else tf.identity(X)


to = array


def numpy(X: tf.Tensor) -> np.ndarray:
    """Copy a tensor to the host; bfloat16, which NumPy lacks, becomes float32."""
    X = tf.convert_to_tensor(X)
    return np.asarray((tf.cast(X, tf.float32) if X.dtype == tf.bfloat16 else X).numpy())


def size(X: tf.Tensor) -> int:
    """Count the elements."""
    return int(tf.size(X))


def rand(*shape: int) -> tf.Tensor:
    """Draw float32 uniformly from [0, 1)."""
    return tf.random.uniform(shape)


def randn(*shape: int) -> tf.Tensor:
    """Draw float32 from the standard normal distribution."""
    return tf.random.normal(shape)


def normal(mean: float, std: float, shape: tuple[int, ...]) -> tf.Tensor:
    """Draw float32 from a normal distribution."""
    return tf.random.normal(shape, mean, std)


# Dropout


def seed(seed: int) -> None:
    """Start TensorFlow's randomness afresh, on all devices."""
    tf.random.set_seed(seed)


@tf.autograph.experimental.do_not_convert
def dropout_layer(X: tf.Tensor, dropout: float) -> tf.Tensor:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for tensors of any shape, dtype and device; integers are promoted to float32.
    Randomness comes from TensorFlow's own generator (Philox).

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not real, or `dropout` is not a real number in [0, 1].
    """
    threshold, scale, bits = odds(dropout)
    X = tf.convert_to_tensor(X)
    if X.dtype.is_integer or X.dtype.is_bool:
        X = tf.cast(X, tf.float32)
    if not X.dtype.is_floating:
        raise ArgumentTypeError(f"Expected X to hold real numbers. Received: {X.dtype.name}")
    if threshold == 0:
        return X
    with tf.device(X.device):
        keep = random_lanes(X, bits) > threshold - 1  # 256 or 65536 itself does not fit in the bits
        mask = tf.cast(keep, X.dtype) * min(scale, float(X.dtype.max))  # float16 ends before 65536
        return tf.math.multiply_no_nan(X, mask)  # where the mask is 0, so is the product, even of inf or nan


def random_lanes(X: tf.Tensor, bits: int) -> tf.Tensor:
    """Draw lanes in the shape of `X` from TensorFlow's generator: uint8 or uint16; one bit is 0, or 1 at any place."""
    kind = tf.uint16 if bits == 16 else tf.uint8
    shape = X.shape if X.shape.is_fully_defined() else tf.shape(X)
    if (rng := shared_generator()) is not None:  # also where a function is compiled, this calls back to the host
        drawn = tf.numpy_function(lambda shape: lanes(tuple(shape), rng, bits), [shape], kind)
        return tf.reshape(drawn, shape)
    count = math.prod(X.shape) if X.shape.is_fully_defined() else tf.size(X)
    words = tf.random.uniform([-(-count * bits // 64)], tf.int64.min, tf.int64.max, tf.int64)
    drawn = tf.reshape(tf.bitcast(words, kind), [-1])
    if bits == 1:
        drawn = tf.reshape(tf.bitwise.bitwise_and(drawn, [[1 << k] for k in range(8)]), [-1])
    return tf.reshape(drawn[:count], shape)


# Data


class DataModule(_data.DataModule):
    """Base of data sets whose batches are tensors, with int32 for labels."""

    backend_name = name
    label_dtype = np.int32


class ArrayData(DataModule, _data.ArrayData):
    """Your own arrays as a data set whose batches are tensors."""


class Digits(DataModule, _data.Digits):
    """scikit-learn's digits, with batches of tensors (N, 8, 8, 1)."""


class FashionMNIST(DataModule, _data.FashionMNIST):
    """Fashion-MNIST, with batches of tensors (N, H, W, 1)."""


load_data_fashion_mnist = loading(FashionMNIST)

# Models


class Module(BaseModule, bridge.Model):
    """Base of models: a `tf.keras.Model` that a trainer can train.

    Subclasses define `loss(y_hat, y)`, `configure_optimizers()`, and `forward(X)` or a network `self.net`.
    """

    backend = sys.modules[__name__]

    def forward(self, X: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def apply_init(self, inputs: tuple[tf.Tensor, ...], init: Any = None) -> None:
        """Create variables with the shapes that `inputs` need, then apply the function `init` to each layer."""
        self(*inputs)
        if init is not None:
            for layer in self._flatten_layers(include_self=False):
                init(layer)


class Classifier(Module, BaseClassifier):
    """Base of models that tell classes apart: cross-entropy, accuracy, and SGD with `self.lr`."""

    def loss(self, Y_hat: tf.Tensor, Y: tf.Tensor, averaged: bool = True) -> tf.Tensor:
        """Return the cross-entropy of logits (N, K) with labels (N,): its mean, or per sample if not `averaged`."""
        Y_hat = tf.reshape(Y_hat, (-1, Y_hat.shape[-1]))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.reshape(Y, (-1,)), Y_hat)
        return tf.reduce_mean(losses) if averaged else losses

    def accuracy(self, Y_hat: tf.Tensor, Y: tf.Tensor, averaged: bool = True) -> tf.Tensor:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        guesses = tf.argmax(tf.reshape(Y_hat, (-1, Y_hat.shape[-1])), axis=1)
        hits = tf.cast(guesses == tf.cast(tf.reshape(Y, (-1,)), guesses.dtype), tf.float32)
        return tf.reduce_mean(hits) if averaged else hits

    def configure_optimizers(self) -> Any:
        """Return stochastic gradient descent with the learning rate `self.lr`."""
        return tf.keras.optimizers.SGD(self.lr)

    def layer_summary(self, X_shape: tuple[int, ...]) -> None:
        """Print the shape of each layer's output for random inputs of a shape."""
        X = tf.random.normal(X_shape)
        for layer in self.net.layers:
            X = layer(X)
            print(f"{layer.__class__.__name__:<12} output shape: {tuple(X.shape)}")


class SGD(HyperParameters):
    """Stochastic gradient descent by hand: each parameter minus `lr` times its gradient."""

    def __init__(self, lr: float):
        self.save_hyperparameters()

    def apply_gradients(self, grads_and_vars: Any) -> None:
        """Change the parameters in place."""
        for grad, param in grads_and_vars:
            param.assign_sub(self.lr * tf.convert_to_tensor(grad))


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(num_outputs)])


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
    """

    host_init = True

    def __init__(
        self, num_outputs: int, num_hiddens_1: int, num_hiddens_2: int, dropout_1: float, dropout_2: float, lr: float
    ):
        super().__init__()
        self.save_hyperparameters()
        self.lin1 = tf.keras.layers.Dense(num_hiddens_1, activation="relu")
        self.lin2 = tf.keras.layers.Dense(num_hiddens_2, activation="relu")
        self.lin3 = tf.keras.layers.Dense(num_outputs)

    def forward(self, X: tf.Tensor) -> tf.Tensor:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H1 = self.lin1(tf.reshape(X, (X.shape[0], -1)))
        if self.training:
            H1 = dropout_layer(H1, self.dropout_1)
        H2 = self.lin2(H1)
        if self.training:
            H2 = dropout_layer(H2, self.dropout_2)
        return self.lin3(H2)


class DropoutMLP(Classifier):
    """The same network from Keras' own layers; parameters as in `DropoutMLPScratch`."""

    host_init = True

    def __init__(
        self, num_outputs: int, num_hiddens_1: int, num_hiddens_2: int, dropout_1: float, dropout_2: float, lr: float
    ):
        super().__init__()
        self.save_hyperparameters()
        layers = tf.keras.layers
        self.net = tf.keras.Sequential([
            layers.Flatten(),
            layers.Dense(num_hiddens_1, activation="relu"), layers.Dropout(dropout_1),
            layers.Dense(num_hiddens_2, activation="relu"), layers.Dropout(dropout_2),
            layers.Dense(num_outputs),
        ])  # fmt: skip


# Training, and weights in files: the seam's other half is in a room of its own

from d2ldrop.tf.training import (
    State,
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

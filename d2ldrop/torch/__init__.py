"""The chapter in PyTorch: `from d2ldrop import torch as d2l`."""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
from d2ldrop.torch.classic import learn, outputs, sgd, total_loss
from d2ldrop.trainer import Trainer

name = "torch"
channels_last = False

# Devices


def cpu() -> torch.device:
    """Return the CPU."""
    return torch.device("cpu")


def gpu(i: int = 0) -> torch.device:
    """Return the GPU number `i`, without looking whether it is there."""
    return torch.device("cuda", i)


def num_gpus() -> int:
    """Count the GPUs that PyTorch can use."""
    return torch.cuda.device_count()


try_gpu, try_all_gpus = device_choice(cpu, gpu, num_gpus)

# Arrays: the words in which the book's shared cells are written

float32, float64, int32, int64 = torch.float32, torch.float64, torch.int32, torch.int64
arange, linspace, meshgrid, tensor = torch.arange, torch.linspace, torch.meshgrid, torch.tensor
zeros, ones, eye, zeros_like, ones_like = torch.zeros, torch.ones, torch.eye, torch.zeros_like, torch.ones_like
rand, randn, normal = torch.rand, torch.randn, torch.normal
exp, log, abs, sin, cos, sinh, cosh, tanh = (
    torch.exp, torch.log, torch.abs, torch.sin, torch.cos, torch.sinh, torch.cosh, torch.tanh,
)  # fmt: skip
matmul, batch_matmul, concat, stack, sigmoid = torch.matmul, torch.bmm, torch.cat, torch.stack, torch.sigmoid
reshape, transpose, expand_dims, repeat = torch.reshape, torch.t, torch.unsqueeze, torch.repeat_interleave
reduce_sum, reduce_mean, argmax = torch.sum, torch.mean, torch.argmax


def is_array(X: Any) -> bool:
    """Tell whether `X` is a tensor of PyTorch."""
    return isinstance(X, Tensor)


def array(X: Any, device: torch.device | None = None) -> Tensor:
    """Bring an array of the host, or a tensor, to the device."""
    return X.to(device) if isinstance(X, Tensor) else torch.tensor(X, device=device)


def numpy(X: Tensor) -> np.ndarray:
    """Copy a tensor to the host; bfloat16, which NumPy lacks, becomes float32."""
    X = X.detach().cpu()
    return X.float().numpy() if X.dtype == torch.bfloat16 else X.numpy()


def to(X: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to the device."""
    return X.to(device)


def astype(X: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert the elements to another type."""
    return X.to(dtype)


def size(X: Tensor) -> int:
    """Count the elements."""
    return X.numel()


# Dropout


def seed(seed: int) -> None:
    """Start PyTorch's generators afresh, on all devices."""
    torch.manual_seed(seed)


def dropout_layer(X: Tensor, dropout: float) -> Tensor:
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    The same as `d2ldrop.dropout_layer`, for tensors; randomness comes from PyTorch's generator of the tensor's device.

    Parameters
    ----------
    X
        Any shape, dtype and device; integers are promoted to the default float.
    dropout
        The probability p of dropping an element, a real number in [0, 1].

    Returns
    -------
    Tensor
        Same shape, dtype and device as `X`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not real, or `dropout` is not a real number in [0, 1].
    """
    threshold, scale, bits = odds(dropout)
    if X.is_complex():
        raise ArgumentTypeError(f"Expected X to hold real numbers. Received: {X.dtype}")
    if not X.is_floating_point():
        X = X.to(torch.get_default_dtype())
    if threshold == 0:
        return X
    keep = random_keep(X.shape, X.device, threshold, bits).to(_BITS[X.element_size()])
    factor = torch.tensor(min(scale, torch.finfo(X.dtype).max), dtype=X.dtype)  # float16 ends before 65536
    Y = X * (keep & factor.view(keep.dtype)).view(X.dtype)
    with torch.no_grad():  # the product made nan of a dropped inf; `torch.where` would take four times as long
        Y.view(keep.dtype).bitwise_and_(keep)
    return Y


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def random_keep(shape: torch.Size, device: torch.device, threshold: int, bits: int) -> Tensor:
    """Draw an int32 for each element: -1, which has all bits set, where it stays, and 0 where it is dropped.

    Lanes come from 64-bit words of PyTorch's generator (a Mersenne Twister; on GPUs Philox), and are signed here. A
    lane of one bit is brought to the sign of an integer, and so is the answer whether a longer lane is below its
    threshold, as the difference of the two. Then the sign is moved all over the integer.
    """
    if (rng := shared_generator()) is not None:
        stays = lanes(tuple(shape), rng, bits) >= threshold
        return torch.from_numpy(-np.asarray(stays, np.int32)).to(device)
    count = shape.numel()
    words = torch.empty(-(-count * bits // 64), dtype=torch.int64, device=device).random_(-(2**63), None)
    if bits == 1:
        drawn = words.view(torch.int32) << torch.arange(32, dtype=torch.int32, device=device)[:, None]
    else:
        drawn = words.view(torch.int8 if bits == 8 else torch.int16).to(torch.int32).sub_(2 ** (bits - 1) - threshold)
    return drawn.bitwise_right_shift_(31).view(-1)[:count].view(shape)


# Data


class DataModule(_data.DataModule):
    """Base of data sets whose batches are tensors."""

    backend_name = name


class ArrayData(DataModule, _data.ArrayData):
    """Your own arrays as a data set whose batches are tensors."""


class Digits(DataModule, _data.Digits):
    """scikit-learn's digits, with batches of tensors (N, 1, 8, 8)."""


class FashionMNIST(DataModule, _data.FashionMNIST):
    """Fashion-MNIST, with batches of tensors (N, 1, H, W)."""


load_data_fashion_mnist = loading(FashionMNIST)

# Models


class Module(BaseModule, nn.Module):
    """Base of models: an `nn.Module` that a trainer can train.

    Subclasses define `loss(y_hat, y)`, `configure_optimizers()`, and `forward(X)` or a network `self.net`.
    """

    backend = sys.modules[__name__]

    def forward(self, X: Tensor) -> Tensor:
        """Return the outputs of the network for inputs (N, ...)."""
        return self.net(X)

    def apply_init(self, inputs: tuple[Tensor, ...], init: Any = None) -> None:
        """Create lazy parameters with the shapes that `inputs` need, then apply the function `init` to each layer."""
        self(*inputs)
        if init is not None:
            self.net.apply(init)


class Classifier(Module, BaseClassifier):
    """Base of models that tell classes apart: cross-entropy, accuracy, and SGD with `self.lr`."""

    def loss(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """Return the cross-entropy of logits (N, K) with labels (N,): its mean, or per sample if not `averaged`."""
        Y_hat = Y_hat.reshape(-1, Y_hat.shape[-1])
        return nn.functional.cross_entropy(Y_hat, Y.reshape(-1), reduction="mean" if averaged else "none")

    def accuracy(self, Y_hat: Tensor, Y: Tensor, averaged: bool = True) -> Tensor:
        """Return the fraction of samples whose largest logit is at their label; 0 or 1 each if not `averaged`."""
        hits = (Y_hat.reshape(-1, Y_hat.shape[-1]).argmax(dim=1) == Y.reshape(-1)).float()
        return hits.mean() if averaged else hits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return stochastic gradient descent with the learning rate `self.lr`."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, fused=True)

    def layer_summary(self, X_shape: tuple[int, ...]) -> None:
        """Print the shape of each layer's output for random inputs of a shape."""
        X = torch.randn(*X_shape)
        for layer in self.net:
            X = layer(X)
            print(f"{layer.__class__.__name__:<12} output shape: {tuple(X.shape)}")


class SGD(HyperParameters):
    """Stochastic gradient descent by hand: each parameter minus `lr` times its gradient."""

    def __init__(self, params: Any, lr: float):
        self.save_hyperparameters()
        self.params = list(params)

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters in place."""
        for param in self.params:
            if param.grad is not None:
                param -= self.lr * param.grad

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for param in self.params:
            param.grad = None


class SoftmaxRegression(Classifier):
    """The linear baseline: one affine layer."""

    host_init = True

    def __init__(self, num_outputs: int, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_outputs))


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
        self.lin1 = nn.LazyLinear(num_hiddens_1)
        self.lin2 = nn.LazyLinear(num_hiddens_2)
        self.lin3 = nn.LazyLinear(num_outputs)
        self.relu = nn.ReLU()

    def forward(self, X: Tensor) -> Tensor:
        """Return logits (N, num_outputs) for inputs (N, ...)."""
        H1 = self.relu(self.lin1(X.flatten(start_dim=1)))
        if self.training:
            H1 = dropout_layer(H1, self.dropout_1)
        H2 = self.relu(self.lin2(H1))
        if self.training:
            H2 = dropout_layer(H2, self.dropout_2)
        return self.lin3(H2)


class DropoutMLP(Classifier):
    """The same network from PyTorch's own layers; parameters as in `DropoutMLPScratch`."""

    host_init = True

    def __init__(
        self, num_outputs: int, num_hiddens_1: int, num_hiddens_2: int, dropout_1: float, dropout_2: float, lr: float
    ):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.LazyLinear(num_hiddens_1), nn.ReLU(), nn.Dropout(dropout_1),
            nn.LazyLinear(num_hiddens_2), nn.ReLU(), nn.Dropout(dropout_2),
            nn.LazyLinear(num_outputs),
        )  # fmt: skip


# Training, and weights in files: the seam's other half is in a room of its own

from d2ldrop.torch.training import (
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

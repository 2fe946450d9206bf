"""Devices, randomness, and the array functions in which the book's shared cells are written."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from d2ldrop.errors import naming_extra

with naming_extra("torch"):
    import torch
    from torch import Tensor

# Devices


def cpu() -> torch.device:
    """Return the CPU."""
    return torch.device("cpu")


def gpu(i: int = 0) -> torch.device:
    """Return the GPU number `i`, without looking whether it is there."""
    return torch.device("cuda", i)


def num_gpus() -> int:
    """Return the number of GPUs that PyTorch can use."""
    return torch.cuda.device_count()


# Randomness


def seed(seed: int) -> None:
    """Seed PyTorch's generators, on all devices."""
    torch.manual_seed(seed)


def entropy() -> int:
    """Draw an integer below 2**63 from PyTorch's default generator, that of the CPU."""
    return int(torch.randint(2**63 - 1, (), device="cpu"))


rand, randn, normal = torch.rand, torch.randn, torch.normal

# Arrays

float32, float64, int32, int64 = torch.float32, torch.float64, torch.int32, torch.int64
arange, linspace, meshgrid, tensor = torch.arange, torch.linspace, torch.meshgrid, torch.tensor
zeros, ones, eye, zeros_like, ones_like = torch.zeros, torch.ones, torch.eye, torch.zeros_like, torch.ones_like
exp, log, abs, sin, cos, sinh, cosh, tanh = (
    torch.exp, torch.log, torch.abs, torch.sin, torch.cos, torch.sinh, torch.cosh, torch.tanh,
)  # fmt: skip
matmul, batch_matmul, concat, stack, sigmoid = torch.matmul, torch.bmm, torch.cat, torch.stack, torch.sigmoid
transpose, expand_dims, repeat = torch.t, torch.unsqueeze, torch.repeat_interleave
reduce_sum, reduce_mean, argmax = torch.sum, torch.mean, torch.argmax


def is_array(X: Any) -> bool:
    """Return True if `X` is a tensor of PyTorch."""
    return isinstance(X, Tensor)


def reshape(X: Tensor, *shape: Any) -> Tensor:
    """Return the elements in another shape, given as numbers, or as a tuple of them."""
    return X.reshape(*shape)


def array(X: Any, device: torch.device | None = None) -> Tensor:
    """Copy an array of the host, or a tensor, to the device."""
    return X.to(device) if isinstance(X, Tensor) else torch.tensor(X, device=device)


def numpy(X: Tensor) -> np.ndarray:
    """Return a tensor's values on the host; bfloat16, which NumPy lacks, becomes float32."""
    X = X.detach().cpu()
    host: np.ndarray = X.float().numpy() if X.dtype == torch.bfloat16 else X.numpy()
    return host


@cache  # a step that is recorded on a GPU reads it from where it was
def _table(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device, the same one each time."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def entries(table: Sequence[float], indices: Tensor, like: Tensor) -> Tensor:
    """Return the numbers of a table at indices (N,), in the dtype and on the device of another tensor."""
    return _table(tuple(table), like.dtype, like.device)[indices]


def to(X: Tensor, device: torch.device) -> Tensor:
    """Move the tensor to the device."""
    return X.to(device)


def astype(X: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert the elements to another type."""
    return X.to(dtype)


def size(X: Tensor) -> int:
    """Return the number of elements."""
    return X.numel()

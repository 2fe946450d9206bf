"""Devices, randomness, and the array functions in which the book's shared cells are written."""

from typing import Any

import numpy as np

from d2ldrop.randomness import HostGenerator, shape_of

# Devices: NumPy has only one


def cpu() -> str:
    """Return the CPU."""
    return "cpu"


def gpu(i: int = 0) -> str:
    """Return a name for the GPU number `i`, none of which NumPy can use."""
    return f"gpu:{i}"


def num_gpus() -> int:
    """Return the number of GPUs that NumPy can use: none."""
    return 0


# Randomness

generator = HostGenerator(np.random.SFC64)
"""The generator of initial weights, dropout masks, and the functions below."""


def seed(seed: int) -> None:
    """Seed this adapter's generator."""
    generator.seed(seed)


def entropy() -> int:
    """Draw an integer below 2**63 from this adapter's generator."""
    return int(generator.rng.integers(2**63))


def rand(*shape: Any) -> np.ndarray:
    """Draw float32 uniformly from [0, 1); the shape is numbers, or a tuple of them."""
    return generator.rng.random(shape_of(shape), dtype=np.float32)


def randn(*shape: Any) -> np.ndarray:
    """Draw float32 from the standard normal distribution; the shape is numbers, or a tuple of them."""
    return generator.rng.standard_normal(shape_of(shape), dtype=np.float32)


def normal(mean: float, std: float, size: tuple[int, ...]) -> np.ndarray:
    """Draw float32 from a normal distribution."""
    return generator.rng.normal(mean, std, size).astype(np.float32)


# Arrays

float32, float64, int32, int64 = np.float32, np.float64, np.int32, np.int64
arange, linspace, meshgrid, tensor = np.arange, np.linspace, np.meshgrid, np.array
zeros, ones, eye, zeros_like, ones_like = np.zeros, np.ones, np.eye, np.zeros_like, np.ones_like
exp, log, abs, sin, cos, sinh, cosh, tanh = np.exp, np.log, np.abs, np.sin, np.cos, np.sinh, np.cosh, np.tanh
matmul, batch_matmul, concat, stack = np.matmul, np.matmul, np.concatenate, np.stack
transpose, expand_dims, repeat = np.transpose, np.expand_dims, np.repeat
reduce_sum, reduce_mean, argmax, size = np.sum, np.mean, np.argmax, np.size


def is_array(X: Any) -> bool:
    """Return True if `X` is an array or a scalar of NumPy."""
    return isinstance(X, (np.ndarray, np.generic))


def reshape(X: np.ndarray, *shape: Any) -> np.ndarray:
    """Return the elements in another shape, given as numbers, or as a tuple of them."""
    return np.reshape(X, shape_of(shape))


def array(X: Any, device: str | None = None) -> np.ndarray:
    """Return `X` as an array: there is only one device."""
    return np.asarray(X)


def numpy(X: Any) -> np.ndarray:
    """Return `X` as an array."""
    return np.asarray(X)


def to(X: np.ndarray, device: str) -> np.ndarray:
    """Return `X`: there is only one device."""
    return X


def astype(X: np.ndarray, dtype: Any) -> np.ndarray:
    """Convert the elements to another type."""
    return X.astype(dtype)

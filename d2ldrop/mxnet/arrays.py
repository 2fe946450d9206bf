"""The import of MXNet; devices, randomness, and the array functions in which the book's shared cells are written.

`np` is MXNet's NumPy-like module, as in the book, and `onp` is NumPy, on the host.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as onp  # noqa: ICN001 - see above

from d2ldrop.compat import numpy_with_bool
from d2ldrop.errors import naming_extra, not_real
from d2ldrop.randomness import HostGenerator, shape_of

_first = "mxnet" not in sys.modules  # no one can have seeded it

# The package's __init__ imports this module before any other that needs MXNet.
with naming_extra("mxnet"), numpy_with_bool():
    import mxnet as mx
    from mxnet import np, npx

# From here on, in this thread, arrays may have shape () or no elements, and gluon's layers take and return `np` arrays.
# It changes how all MXNet code in the thread behaves, and the book's readers call it at the top of their notebooks.
npx.set_np()

# Devices


def cpu() -> mx.Context:
    """Return the CPU."""
    return mx.cpu()


def gpu(i: int = 0) -> mx.Context:
    """Return the GPU number `i`, without checking that there is one."""
    return mx.gpu(i)


def num_gpus() -> int:
    """Return the number of GPUs that MXNet can use."""
    return int(mx.context.num_gpus())


# Randomness

host_generator = HostGenerator(onp.random.SFC64)
"""The generator of the dropout masks of arrays on a CPU, five times as fast as MXNet's own."""


if _first:  # MXNet itself starts from the same seed in each process
    mx.random.seed(int(onp.random.SeedSequence().generate_state(1)[0] >> 1))


_own_unseeded: ContextVar[bool] = ContextVar("_own_unseeded", default=False)


@contextmanager
def own_unseeded() -> Iterator[None]:
    """Inside the block, `seed` leaves MXNet's own generators alone."""
    token = _own_unseeded.set(True)
    try:
        yield
    finally:
        _own_unseeded.reset(token)


def seed(seed: int) -> None:
    """Seed MXNet's generators, on all devices, and that of the masks on a CPU."""
    if not _own_unseeded.get():
        mx.random.seed(seed)
    host_generator.seed(seed)


def entropy() -> int:
    """Draw an integer below 2**31 from MXNet's own generator, that of the CPU.

    It seeds the generator of the masks on a CPU, too: so these follow `mx.random.seed`, which knows nothing of it.
    """
    drawn = int(mx.nd.random.randint(0, 2**31 - 1, ctx=mx.cpu()).asscalar())
    host_generator.seed(drawn)
    return drawn


def rand(*shape: Any, **options: Any) -> np.ndarray:
    """Draw uniform numbers in [0, 1), as NumPy's `rand`; the shape may be one tuple, too, as in TensorFlow."""
    return np.random.rand(*shape_of(shape), **options)


def randn(*shape: Any, **options: Any) -> np.ndarray:
    """Draw standard normal numbers, as NumPy's `randn`; the shape may be one tuple, too."""
    return np.random.randn(*shape_of(shape), **options)


normal = np.random.normal

# Arrays

float32, float64, int32, int64 = np.float32, np.float64, np.int32, np.int64
arange, linspace, meshgrid, tensor = np.arange, np.linspace, np.meshgrid, np.array
zeros, ones, eye, zeros_like, ones_like = np.zeros, np.ones, np.eye, np.zeros_like, np.ones_like
exp, log, abs, sin, cos, sinh, cosh, tanh = np.exp, np.log, np.abs, np.sin, np.cos, np.sinh, np.cosh, np.tanh
matmul, batch_matmul, concat, stack, sigmoid = np.matmul, npx.batch_dot, np.concatenate, np.stack, npx.sigmoid
reshape, transpose, swapaxes = np.reshape, np.transpose, np.swapaxes
expand_dims, repeat = np.expand_dims, np.repeat
reduce_sum, reduce_mean, argmax = np.sum, np.mean, np.argmax
numpy, to, astype = np.ndarray.asnumpy, np.ndarray.as_in_ctx, np.ndarray.astype

# MXNet lacks some dtypes; the nearest that holds most of their values takes their place.
_REPLACED = {"int16": "int32", "uint16": "int32", "uint32": "int64", "uint64": "int64", "float128": "float64"}


def is_array(X: Any) -> bool:
    """Return True if `X` is an array of MXNet, or a symbol that stands for one while a block is hybridized."""
    return isinstance(X, (mx.nd.NDArray, mx.sym.Symbol))


def array(X: Any, device: mx.Context | None = None) -> np.ndarray:
    """Copy an array of the host, or of MXNet, to the device; dtypes that MXNet lacks are replaced by others.

    Raises
    ------
    ArgumentTypeError
        If there are no real numbers in it.
    """
    npx.set_np()  # this may be another thread than at import
    if isinstance(X, mx.nd.NDArray):
        return X.as_np_ndarray().as_in_ctx(device or X.ctx)
    X = onp.asarray(X)
    if X.dtype.kind not in "fiub":
        raise not_real(X.dtype)
    return np.array(X, dtype=_REPLACED.get(X.dtype.name, X.dtype.name), ctx=device)


@cache  # or it would be copied to the device for each batch
def _table(numbers: tuple[float, ...], dtype: Any, device: mx.Context) -> np.ndarray:
    """Return numbers as an array on a device, the same one each time."""
    return np.array(numbers, dtype=dtype, ctx=device)


def entries(table: Sequence[float], indices: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the numbers of a table at indices (N,), in the dtype and on the device of another array."""
    return np.take(_table(tuple(table), like.dtype, like.ctx), indices, axis=0, mode="clip")


def size(X: np.ndarray) -> int:
    """Return the number of elements."""
    return int(X.size)

"""Dropout masks: which elements are kept, drawn from few random bits, and their application without a branch.

In the plain form a mask is `torch.rand(X.shape) >= p`, and it is applied as `torch.where(mask, X / (1 - p), 0)`.
What is here gives the same in less time: PyTorch draws a mask one element after the other, on a single core.

An element is kept where a random number u in [0, 1) is at least p. Both are compared bit by bit, 64 elements at once:
whether u >= p is decided by the first binary digit in which they differ. From the last digit of p to the first, that
reads: where the digit is 1, what was kept so far stays if a coin shows 1; where it is 0, a coin that shows 1 keeps as
well. So p = 1/2 needs one coin for an element, p = 1/4 two, and no p more than 16.
"""

import math
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from d2ldrop.errors import ArgumentTypeError, not_an_array, not_real
from d2ldrop.randomness import Odds, axes_of, lanes, no_axes, normals, shape_of_mask, shared_generator

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # integers by their bytes
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # new in PyTorch 2.7


def real_floats(X: Tensor) -> Tensor:
    """Return a tensor of real numbers as floats: integers are promoted to the default float.

    Raises
    ------
    ArgumentTypeError
        If it is no tensor, neither dense nor jagged, or there are complex numbers or floats of 8 bits in it.
    """
    if not isinstance(X, Tensor):
        raise not_an_array(X, "torch")
    if X.layout != (torch.jagged if X.is_nested else torch.strided):
        kind = "nested" if X.is_nested else "not nested"
        raise ArgumentTypeError(f"Expected X to be dense, or nested and jagged. Received: {X.layout}, {kind}")
    if X.is_floating_point() and X.element_size() > 1:
        return X
    if X.is_floating_point() or X.is_complex() or X.is_quantized:
        raise not_real(X.dtype)
    return X.to(torch.get_default_dtype())


def draw_mask(X: Tensor, p: Odds, axes: Iterable[int] = ()) -> Tensor:
    """Draw an int32 for each element of X: -1, which has all bits set, with probability 1 - p, and 0 otherwise.

    Along `axes` the mask has size 1: one draw is shared. The random bits come from PyTorch's generator of the tensor's
    device (a Mersenne Twister; on GPUs Philox).
    """
    shape, count = _size(X, axes)
    if (rng := _host_generator()) is not None:
        keep = lanes(tuple(shape), rng, p.bits) >= p.threshold
        return torch.from_numpy(-np.asarray(keep, np.int32)).to(X.device)
    if p.threshold in (0, 2**p.bits):  # all are kept, or none
        return torch.full(shape, -1 if p.threshold == 0 else 0, dtype=torch.int32, device=X.device)
    if _is_exporting():  # a graph for any batch size cannot be cut from words: that would need a proof of their number
        drawn = torch.randint(2**p.bits, shape, dtype=torch.int32, device=X.device)
        return (p.threshold - 1 - drawn).bitwise_right_shift(31)
    return mask_from_words(_keep_bits(-(-count // 64), p, X.device))[:count].view(shape)


def _size(X: Tensor, axes: Iterable[int]) -> tuple[Any, Any]:
    """Return the shape of a mask for X, and the number of its elements."""
    if not (axes := axes_of(axes)):
        return X.shape, X.numel()
    shape = shape_of_mask(X.shape, axes)
    return shape, math.prod(shape)


def _host_generator() -> np.random.Generator | None:
    """Return the generator of shared masks, if any; a compiler would make its numbers constants, and goes without."""
    return None if torch.compiler.is_compiling() else shared_generator()


def _words(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Draw 64-bit integers, uniform on all of them.

    `random_` is the fast way, as `randint` has to divide. But it changes a tensor in place, which `vmap` forbids, and
    has a name in which `make_fx` writes faulty code. So there it is `randint`, which gives the same bits from the same
    seed: it adds the smallest integer, that is, it flips the highest bit, and here that is flipped back.
    """
    smallest = -(2**63)
    if _is_traced():
        return torch.randint(smallest, 2**63 - 1, shape, dtype=torch.int64, device=device) ^ smallest
    return torch.empty(shape, dtype=torch.int64, device=device).random_(smallest, None)


def _is_traced() -> bool:
    """Return True where a compiler or a transform looks at what is done, so that it must not depend on values."""
    return torch.compiler.is_compiling() or _is_transforming() or bool(torch._C._len_torch_dispatch_stack())


def _is_transforming() -> bool:
    """Return True inside `torch.func`, whose `vmap` cannot view a tensor as another dtype before PyTorch 2.13."""
    return torch._C._are_functorch_transforms_active()


def digits(p: Odds) -> tuple[int, ...]:
    """Return the binary digits of p behind the point, the last first, which is 1.

    Examples
    --------
    >>> from d2ldrop.randomness import odds
    >>> digits(odds(0.5)), digits(odds(0.75)), digits(odds(0.125))
    ((1,), (1, 1), (1, 0, 0))
    """
    threshold, count = p.threshold, p.bits
    while threshold % 2 == 0:
        threshold, count = threshold // 2, count - 1
    return tuple(threshold >> k & 1 for k in range(count))


def _keep_bits(count: int, p: Odds, device: torch.device) -> Tensor:
    """Draw 64-bit words each of whose bits is 1, for "keep", with probability 1 - p."""
    numbers = digits(p)
    keep, *coins = _words((len(numbers), count), device).unbind()  # the last digit is 1, and all was kept before it
    for digit, coin in zip(numbers[1:], coins, strict=True):
        keep = keep & coin if digit else keep | coin
    return keep


def _bytes(words: Tensor) -> Tensor:
    """Cut 64-bit words, a vector, into signed bytes, the lowest bits first."""
    if not _is_transforming():
        return words.view(torch.int8)
    above = torch.arange(56, -1, -8, device=words.device)  # how many bits there are above each byte
    return (words[:, None] << above).bitwise_right_shift(56).to(torch.int8).flatten()


def mask_from_words(keep: Tensor) -> Tensor:
    """Return the bits of 64-bit words, a vector, as int32 masks: -1 for 1, else 0; the lowest bits first.

    Each bit is moved up to become the sign of an integer, which is then moved over all its bits.
    """
    above = torch.arange(31, 23, -1, dtype=torch.int32, device=keep.device)
    return (_bytes(keep).to(torch.int32)[:, None] << above).bitwise_right_shift(31).flatten()


def drawn_eagerly(X: Tensor) -> bool:
    """Return True for a plain tensor on a CPU where nothing traces the code, and frameworks share no masks."""
    return (
        X.device.type == "cpu" and type(X) in (Tensor, nn.Parameter) and not _is_traced() and _host_generator() is None
    )


@cache
def _factors(scale: float, dtype: torch.dtype) -> Tensor:
    """Return for each byte the eight numbers by which its bits multiply: `scale` for 1, else 0; (256, 8)."""
    bits = torch.arange(256, device="cpu")[:, None] >> torch.arange(8, device="cpu") & 1
    return bits.to(dtype) * scale


def drop(X: Tensor, p: Odds, axes: Iterable[int] = ()) -> Tensor:
    """Do the same as `draw_mask` and `masked`, with the same bits, in fewer passes over memory.

    The factors of eight elements are looked up together, in a table of all bytes.
    """
    shape, count = _size(X, axes)
    if p.scale == 0:  # p = 1: zeros, also for inf and nan, of which a product would make nan
        return X.masked_fill(torch.ones((), dtype=torch.bool, device=X.device), 0)
    chosen = _keep_bits(-(-count // 64), p, X.device).view(torch.uint8).to(torch.int32)
    scale = min(p.scale, torch.finfo(X.dtype).max)  # float16 ends before 65536
    factors = _factors(scale, X.dtype).index_select(0, chosen).flatten()[:count].view(shape)
    Y = X * factors
    if not math.isfinite(Y.detach().sum()):  # the product makes nan of a dropped inf
        with torch.no_grad():
            Y.masked_fill_(factors == 0, 0)
    return Y


def masked(X: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Multiply what the mask keeps by `scale`, and set the rest to 0; the gradient is the same mask times `scale`."""
    scale = min(scale, torch.finfo(X.dtype).max)  # float16 ends before 65536
    if _is_exporting() or _is_transforming():  # an exported block without gradients cannot be saved, nor views mapped
        return torch.where(mask != 0, X * scale, 0)
    bits = mask.to(_BITS[X.element_size()])
    factor = torch.full((), scale, dtype=X.dtype, device=X.device)
    Y = X * (bits & factor.view(bits.dtype)).view(X.dtype)
    with torch.no_grad():  # the product made nan of a dropped inf; `torch.where` would take four times as long
        Y.view(bits.dtype).bitwise_and_(bits)
    return Y


def has_own_kernel(X: Tensor, axes: Iterable[int]) -> bool:
    """Return True if `X` is on a GPU, no draw is shared along axes or between frameworks, and nothing is exported."""
    return X.is_cuda and not axes_of(axes) and _host_generator() is None and not _is_exporting()


def drop_on_gpu(X: Tensor, p: Odds) -> Tensor:
    """Do both by PyTorch's own kernel for GPUs, which draws and multiplies in one pass; gradients as in `masked`."""
    Y, mask = torch.native_dropout(X, p.threshold / 2**p.bits, True)
    with torch.no_grad():  # the kernel makes nan of a dropped inf, too
        Y.masked_fill_(~mask, 0)
    return Y


def by_rows(X: Any, values: Tensor) -> Tensor:
    """Return values as a nested tensor whose rows are as long as those of the jagged tensor `X`."""
    Y: Tensor = torch.nested.nested_tensor_from_jagged(values, X.offsets(), X.lengths(), X._ragged_idx)
    return Y


# What other noise is made of


def keep_mask(X: Tensor, p: Odds, axes: Iterable[int] = (), key: Any = None) -> Tensor:
    """Draw a bool for each element of `X`, true with probability 1 - p, which may be 0 or 1; see `draw_mask`."""
    if X.is_nested:
        no_axes(axes)
        return by_rows(X, keep_mask(X.values(), p))
    return draw_mask(X, p, axes) != 0


def normal_like(X: Tensor, key: Any = None) -> Tensor:
    """Draw standard normal numbers in the shape and dtype of `X`, on its device, from where masks are drawn."""
    if X.is_nested:
        return by_rows(X, normal_like(X.values()))
    if (rng := _host_generator()) is not None:
        drawn = normals(tuple(X.shape), rng, X.dtype == torch.float64)
        return torch.from_numpy(drawn).to(X.device, X.dtype)
    wide = torch.promote_types(X.dtype, torch.float32)  # PyTorch draws bfloat16 from 8 bits, which has short tails
    return torch.randn(X.shape, dtype=wide, device=X.device).to(X.dtype)


def where(mask: Tensor, X: Tensor, value: float) -> Tensor:
    """Return `X` where the mask is true, and elsewhere a number, in the dtype of `X`."""
    return torch.where(mask, X, value)

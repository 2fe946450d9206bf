"""Dropout masks: which elements are kept, drawn from few random bits, and their application without a branch.

In the plain form a mask is `torch.rand(X.shape) >= p`, and it is applied as `torch.where(mask, X / (1 - p), 0)`.
What is here gives the same in less time: PyTorch draws a mask one element after the other, on a single core.
"""

import numpy as np
import torch
from torch import Tensor

from d2ldrop.errors import ArgumentTypeError
from d2ldrop.randomness import Odds, lanes, shared_generator

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def real_floats(X: Tensor) -> Tensor:
    """Return a tensor of real numbers as floats: integers are promoted to the default float.

    Raises
    ------
    ArgumentTypeError
        If there are complex numbers in it.
    """
    if X.is_complex():
        raise ArgumentTypeError(f"Expected X to hold real numbers. Received: {X.dtype}")
    return X if X.is_floating_point() else X.to(torch.get_default_dtype())


def draw_mask(X: Tensor, p: Odds) -> Tensor:
    """Draw an int32 for each element of X: -1, which has all bits set, with probability 1 - p, and 0 otherwise.

    The random bits come from PyTorch's generator of the tensor's device (a Mersenne Twister; on GPUs Philox).
    """
    if (rng := shared_generator()) is not None:
        keep = lanes(tuple(X.shape), rng, p.bits) >= p.threshold
        return torch.from_numpy(-np.asarray(keep, np.int32)).to(X.device)
    count = X.numel()
    words = torch.empty(-(-count * p.bits // 64), dtype=torch.int64, device=X.device).random_(-(2**63), None)
    return mask_from_words(words, p)[:count].view(X.shape)


def mask_from_words(words: Tensor, p: Odds) -> Tensor:
    """Return int32 masks (-1 or 0) for all lanes of some 64-bit words, a vector.

    An integer's sign, moved over all its bits, is the mask. For p = 1/2 each bit of the words becomes the sign of one
    integer. Otherwise a lane k, which is signed here, is kept where k < 2**(bits - 1) - threshold: that is true of
    2**bits - threshold of its 2**bits values. The sign of the difference of both sides says so.
    """
    if p.bits == 1:
        signs = words.view(torch.int32) << torch.arange(32, dtype=torch.int32, device=words.device)[:, None]
    else:
        lane = words.view(torch.int8 if p.bits == 8 else torch.int16)
        signs = lane.to(torch.int32).sub_(2 ** (p.bits - 1) - p.threshold)
    return signs.bitwise_right_shift_(31).view(-1)


def masked(X: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Multiply what the mask keeps by `scale`, and set the rest to 0; the gradient is the same mask times `scale`."""
    bits = mask.to(_BITS[X.element_size()])
    factor = torch.tensor(min(scale, torch.finfo(X.dtype).max), dtype=X.dtype)  # float16 ends before 65536
    Y = X * (bits & factor.view(bits.dtype)).view(X.dtype)
    with torch.no_grad():  # the product made nan of a dropped inf; `torch.where` would take four times as long
        Y.view(bits.dtype).bitwise_and_(bits)
    return Y


def drop_on_gpu(X: Tensor, p: Odds) -> Tensor:
    """Do both by PyTorch's own kernel for GPUs, which draws and multiplies in one pass; gradients as in `masked`."""
    Y, mask = torch.native_dropout(X, p.threshold / 2**p.bits, True)
    with torch.no_grad():  # the kernel makes nan of a dropped inf, too
        Y.masked_fill_(~mask, 0)
    return Y

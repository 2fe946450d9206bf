"""Dropout masks: which elements are kept, and what becomes of them.

In the plain form, with u uniform on [0, 1), an element x becomes x / (1 - p) where u >= p, and otherwise 0. Here both
cases are one product, x S with S = (u >= p) / (1 - p), and u is, on a CPU, a lane of a few random bits from NumPy's
SFC64 (see `d2ldrop.randomness`), and elsewhere a float32 from MXNet's own generator.
"""

from typing import Any

import mxnet as mx
import numpy as onp  # noqa: ICN001 - as in the book, `np` is MXNet's
from mxnet import autograd, np

from d2ldrop.errors import ArgumentTypeError, UsageError
from d2ldrop.mxnet.arrays import host_generator, is_array
from d2ldrop.randomness import Odds, lanes, shared_generator


def real_floats(X: np.ndarray) -> np.ndarray:
    """Return an array or symbol of MXNet as floats: integers are promoted to float32, MXNet's default.

    Raises
    ------
    ArgumentTypeError
        If it is no array of MXNet.
    """
    if not is_array(X):
        raise ArgumentTypeError(f"Expected X to be an array of MXNet. Received: {X!r}")
    integers = isinstance(X, mx.nd.NDArray) and onp.dtype(X.dtype).kind != "f"  # a symbol has no dtype yet
    return X.astype("float32") if integers else X


def draw_mask(X: np.ndarray, p: Odds) -> Any:
    """Draw for each element of `X` whether it is kept, independently, with probability 1 - p.

    Returns
    -------
    numpy.ndarray of bool, mxnet.nd.NDArray or mxnet.sym.Symbol
        Shape as `X`, true or 1 where an element is kept. For an array on a CPU the mask is on the host: NumPy draws
        it while MXNet's engine works on what came before. In the graph of a hybridized block it is a symbol, and is
        drawn each time the graph runs.
    """
    rng = shared_generator()
    symbolic = isinstance(X, mx.sym.Symbol)
    if symbolic and rng is not None:
        raise UsageError("Expected a model that is not hybridized, where masks are shared. It is hybridized.")
    if not symbolic and (rng is not None or X.ctx == mx.cpu()):
        return onp.asarray(lanes(X.shape, rng or host_generator.rng, p.bits) >= p.threshold)  # of shape (), too
    F = mx.sym if symbolic else mx.nd
    with autograd.pause():
        H = X.as_nd_ndarray()
        if not symbolic and H.dtype == onp.float16:  # too coarse to draw in
            H = H.astype("float32")
        return F.random.uniform_like(H) >= p.threshold / 2**p.bits


def masked(X: np.ndarray, mask: Any, scale: float) -> np.ndarray:
    """Return `X` times `scale` where the mask is true, and 0 elsewhere, even in place of inf or nan.

    The gradient with respect to `X` is that of a product, dX = dY S with S = mask * scale.
    """
    F = mx.sym if isinstance(X, mx.sym.Symbol) else mx.nd
    H = X.as_nd_ndarray()  # `mx.nd`, the older of MXNet's two namespaces, has the fastest operators for all this
    with autograd.pause():
        S = _factors(H, mask, scale)
    Y = H * S
    # A `where` on the mask itself would take as long as all the rest, as its condition is random. So the mask is a
    # factor, and a dropped inf or nan gives nan. Those are the elements with Y != Y and S == 0, or (Y != Y) > S, as S
    # is 0 or at least 1. They are rare, and so a `where` on them is fast.
    with autograd.pause():
        undefined = Y != Y
        if F is mx.nd:  # in place, it is no part of the gradient, which stays dY S; and allocating memory takes time
            F.broadcast_greater(undefined, S, out=undefined)
            F.where(undefined, S, Y, out=Y)
    if F is mx.sym:
        Y = F.where(undefined > S, S, Y)
    return Y if type(X) in (mx.nd.NDArray, mx.sym.Symbol) else Y.as_np_ndarray()


def _factors(H: Any, mask: Any, scale: float) -> Any:
    """Return mask * scale in the dtype of `H`, on its device; of a symbol the dtype is not known yet."""
    if isinstance(H, mx.sym.Symbol):
        return mask * scale
    scale = min(scale, float(onp.finfo(H.dtype).max))  # the largest scale is 65536, and float16 ends before that
    if not isinstance(mask, onp.ndarray):
        return mask.astype(H.dtype, copy=False) * scale
    factors = onp.multiply(mask, H.dtype(scale), out=onp.empty(H.shape, H.dtype))
    return mx.nd.from_numpy(factors).as_in_context(H.ctx)

"""Dropout masks: which elements are kept, and what becomes of them.

In the plain form, with u uniform on [0, 1), an element x becomes x / (1 - p) where u >= p, and otherwise 0. Here both
cases are one product, x S with S = (u >= p) / (1 - p), and u is, on a CPU, a lane of a few random bits from NumPy's
SFC64 (see `d2ldrop.randomness`), and elsewhere a float32 from MXNet's own generator.
"""

from collections.abc import Iterable
from typing import Any

import mxnet as mx
import numpy as onp  # noqa: ICN001 - as in the book, `np` is MXNet's
from mxnet import autograd, gluon, np

from d2ldrop.errors import UsageError, not_an_array, not_real
from d2ldrop.mxnet.arrays import host_generator, is_array
from d2ldrop.randomness import Odds, axes_of, lanes, normals, shape_of_mask, shared_generator


def real_floats(X: np.ndarray) -> np.ndarray:
    """Return an array, parameter or symbol of MXNet as floats: integers are promoted to float32, MXNet's default.

    Raises
    ------
    ArgumentTypeError
        If it is no array of MXNet, or of other numbers.
    """
    if isinstance(X, gluon.Parameter):
        X = X.data()
    if not is_array(X):
        raise not_an_array(X, "mxnet")
    if isinstance(X, mx.sym.Symbol):  # its dtype is not known yet; but a quotient is float
        quotient = X.as_np_ndarray() / 1
        return quotient.as_nd_ndarray() if type(X) is mx.sym.Symbol else quotient
    if isinstance(X, mx.nd.sparse.BaseSparseNDArray):  # MXNet's own dropout, too, returns a dense array
        X = X.tostype("default")
    dtype = onp.dtype(X.dtype)
    if dtype.kind not in "fiub":
        raise not_real(dtype)
    return X if dtype.kind == "f" else X.astype("float32")


def draw_mask(X: np.ndarray, p: Odds, axes: Iterable[int] = ()) -> Any:
    """Draw for each element of `X` whether it is kept, independently, with probability 1 - p.

    Returns
    -------
    numpy.ndarray of bool, mxnet.nd.NDArray or mxnet.sym.Symbol
        Shape as `X`, but 1 along `axes`, where one draw is shared; true or 1 where an element is kept. For an array on
        a CPU the mask is on the host: NumPy draws it while MXNet's engine works on what came before. In the graph of a
        hybridized block it is a symbol, and is drawn each time the graph runs.
    """
    rng, axes = shared_generator(), axes_of(axes)
    if isinstance(X, mx.sym.Symbol):
        _refuse_shared()
        ones = mx.sym.ones_like(first_along(X, axes))
        return mx.sym.Dropout(ones, p=p.threshold / 2**p.bits, mode="always") > 0  # for p = 1 it is nan
    shape = shape_of_mask(X.shape, axes)
    if rng is not None or X.ctx == mx.cpu():
        return onp.asarray(lanes(shape, rng or host_generator.rng, p.bits) >= p.threshold)  # of shape (), too
    with autograd.pause():
        H = first_along(X, axes)
        if H.dtype == onp.float16:  # too coarse to draw in
            H = H.astype("float32")
        return mx.nd.random.uniform_like(H) >= p.threshold / 2**p.bits


def _refuse_shared() -> None:
    """Raise a UsageError where masks are drawn on the host: a graph cannot do so."""
    if shared_generator() is not None:
        raise UsageError("Expected a model that is not hybridized, where masks are shared. It is hybridized.")


def first_along(X: np.ndarray, axes: Iterable[int]) -> Any:
    """Return the first elements of `X` along some axes, where its size becomes 1, in MXNet's older namespace."""
    H, F, axes = X.as_nd_ndarray(), mx.sym if isinstance(X, mx.sym.Symbol) else mx.nd, axes_of(axes)
    if axes and F is mx.nd:
        shape_of_mask(X.shape, axes)  # checks them
    for axis in axes:
        H = F.slice_axis(H, axis=axis, begin=0, end=1)
    return H


def masked(X: np.ndarray, mask: Any, scale: float) -> np.ndarray:
    """Return `X` times `scale` where the mask is true, and 0 elsewhere, even in place of inf or nan.

    The gradient with respect to `X` is that of a product, dX = dY S with S = mask * scale.
    """
    if isinstance(X, mx.sym.Symbol) and scale > onp.finfo(onp.float16).max:  # its dtype may turn out to be float16
        return masked(masked(X, mask, scale**0.5), mask, scale**0.5)
    with autograd.pause():
        S = _factors(X.as_nd_ndarray(), mask, scale)
    return product(X, S)


def product(X: np.ndarray, S: Any) -> np.ndarray:
    """Return `X` times the factors `S`, which are 0 or at least 1, and 0 where these are, even for inf or nan."""
    F = mx.sym if isinstance(X, mx.sym.Symbol) else mx.nd
    Y = F.broadcast_mul(X.as_nd_ndarray(), S)  # `mx.nd`, the older of MXNet's two namespaces, has the fastest operators
    # A `where` on the mask itself would take as long as all the rest, as its condition is random. So the mask is a
    # factor, and a dropped inf or nan gives nan. Those are the elements with Y != Y and S == 0, or (Y != Y) > S, as S
    # is 0 or at least 1. They are rare, and so a `where` on them is fast.
    with autograd.pause():
        undefined = Y != Y
        if F is mx.nd:  # in place, it is no part of the gradient, which stays dY S; and allocating memory takes time
            F.broadcast_greater(undefined, S, out=undefined)
            F.where(undefined, S if S.shape == Y.shape else F.zeros_like(Y), Y, out=Y)
    if F is mx.sym:
        Y = F.where(F.broadcast_greater(undefined, S), F.zeros_like(Y), Y)
    return Y if type(X) in (mx.nd.NDArray, mx.sym.Symbol) else Y.as_np_ndarray()


def _factors(H: Any, mask: Any, scale: float) -> Any:
    """Return mask * scale in the dtype of `H`, on its device; of a symbol the dtype is not known yet."""
    if isinstance(H, mx.sym.Symbol):
        return mask * scale
    scale = min(scale, float(onp.finfo(H.dtype).max))  # the largest scale is 65536, and float16 ends before that
    if not isinstance(mask, onp.ndarray):
        return mask.astype(H.dtype, copy=False) * scale
    factors = onp.multiply(mask, H.dtype(scale), out=onp.empty(mask.shape, H.dtype))
    return mx.nd.from_numpy(factors).as_in_context(H.ctx)


# What other noise is made of


def keep_mask(X: np.ndarray, p: Odds, axes: Iterable[int] = (), key: Any = None) -> np.ndarray:
    """Draw a bool for each element of `X`, true with probability 1 - p, which may be 0 or 1, on its device.

    See `draw_mask`; here the mask is of the same kind as `X`.
    """
    mask = draw_mask(X, p, axes)
    with autograd.pause():
        mask = np.array(mask, dtype=bool, ctx=X.ctx) if isinstance(mask, onp.ndarray) else mask.as_np_ndarray() > 0
    return mask.as_nd_ndarray() if type(X) in (mx.nd.NDArray, mx.sym.Symbol) else mask


def normal_like(X: np.ndarray, key: Any = None) -> np.ndarray:
    """Draw standard normal numbers in the shape and dtype of `X`, on its device, from where masks are drawn."""
    rng = shared_generator()
    H = X.as_nd_ndarray()
    with autograd.pause():
        if isinstance(X, mx.sym.Symbol):
            _refuse_shared()
            Z = mx.sym.random.normal_like(H)
        elif rng is not None or X.ctx == mx.cpu():
            drawn = normals(X.shape, rng or host_generator.rng, H.dtype == onp.float64)
            Z = np.array(drawn, dtype=H.dtype, ctx=X.ctx).as_nd_ndarray()
        else:
            Z = mx.nd.random.normal_like(H)
    return Z if type(X) in (mx.nd.NDArray, mx.sym.Symbol) else Z.as_np_ndarray()


def where(mask: np.ndarray, X: np.ndarray, value: float) -> np.ndarray:
    """Return `X` where the mask is true, and elsewhere a number, in the dtype of `X`."""
    F = mx.sym if isinstance(X, mx.sym.Symbol) else mx.nd
    if F is mx.nd and X.size == 0:  # MXNet's `where` broadcasts to what is there
        return X
    with (
        autograd.pause()
    ):  # not the number itself: in MXNet 1.9.1, that gives the elements of `X` each other's gradient
        other = F.ones_like(X.as_nd_ndarray()) * float(value)
    Y = F.np.where(mask.as_np_ndarray(), X.as_np_ndarray(), other.as_np_ndarray())
    return Y.as_nd_ndarray() if type(X) in (mx.nd.NDArray, mx.sym.Symbol) else Y

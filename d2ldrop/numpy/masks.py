"""Dropout masks: which elements are kept, drawn from few random bits, and their application without a branch.

In the plain form a mask is `rng.random(shape) >= p`, and it is applied as `np.where(mask, X / (1 - p), 0)`. What is
here gives the same in less time.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.errors import not_an_array, not_real
from d2ldrop.numpy.arrays import generator, is_array
from d2ldrop.randomness import Odds, lanes, normals, odds, shape_of_mask, shared_generator


class Mask(NamedTuple):
    """Which elements are kept, and the factor by which these are multiplied."""

    keep: np.ndarray  # bool
    scale: float  # 1 / (1 - p)


def real_floats(X: np.ndarray) -> np.ndarray:
    """Return an array of real numbers as floats of the machine: integers are promoted to float64, NumPy's default.

    Raises
    ------
    ArgumentTypeError
        If it is no array, or there are other numbers in it, or of more than 64 bits.
    """
    if not is_array(X):
        raise not_an_array(X, "numpy")
    X = np.asanyarray(X)  # a scalar is an array of shape ()
    if X.dtype.kind in "iub":
        return X.astype(np.float64)
    if X.dtype.kind != "f" or X.dtype.itemsize > 8:
        raise not_real(X.dtype)
    return X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))


def draw_mask(X: np.ndarray, p: Odds, axes: Iterable[int] = ()) -> np.ndarray:
    """Draw a bool for each element of `X`, True with probability 1 - p; along `axes`, where its size is 1, one draw."""
    shape = shape_of_mask(X.shape, axes)
    return np.asarray(lanes(shape, shared_generator() or generator.rng, p.bits) >= p.threshold)


def dropout_mask(shape: tuple[int, ...], dropout: float, axes: Iterable[int] = ()) -> Mask:
    """Draw which elements stay, and return with it the factor by which these are scaled."""
    p = odds(dropout)
    if p.threshold == 0:
        return Mask(np.ones(shape_of_mask(shape, axes), bool), p.scale)
    return Mask(draw_mask(np.empty(shape, bool), p, axes), p.scale)  # only the shape counts


def masked(X: np.ndarray, keep: np.ndarray, scale: float) -> np.ndarray:
    """Multiply what is kept by `scale`, and set the rest to 0; along axes where the mask has size 1, it is repeated.

    It is its own backward pass: the gradient with respect to X is the same mask, times the same scale.

    A product with the mask would make nan of a dropped inf, and `np.where` takes ten times as long. So the mask is
    combined with the bits of the numbers: all ones (the integer -1) leave a number as it is, all zeros make it 0.
    """
    bits = f"i{X.dtype.itemsize}"
    M: np.ndarray = np.asarray(-keep.view(np.int8)).astype(bits)
    M = np.bitwise_and(M, np.asarray(X).view(bits), out=M if M.shape == X.shape else None)
    Y = np.asarray(M).view(X.dtype)
    Y *= X.dtype.type(min(scale, float(np.finfo(X.dtype).max)))  # float16 ends before 65536, the largest scale
    return _like(X, Y)


def _like(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return `Y` as an array of the class of `X`: a matrix, say, or a masked array with the same elements masked."""
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.array(Y, mask=np.ma.getmaskarray(X).copy())
    return Y if type(X) is np.ndarray else X.__array_wrap__(Y)


# What other noise is made of


def keep_mask(X: np.ndarray, p: Odds, axes: Iterable[int] = (), key: Any = None) -> np.ndarray:
    """Draw a bool for each element of `X`, True with probability 1 - p, which may be 0 or 1; see `draw_mask`."""
    return draw_mask(X, p, axes)


def normal_like(X: np.ndarray, key: Any = None) -> np.ndarray:
    """Draw standard normal numbers in the shape and dtype of `X`, from where masks are drawn."""
    return np.asarray(normals(X.shape, shared_generator() or generator.rng, X.dtype == np.float64), X.dtype)


def where(mask: np.ndarray, X: np.ndarray, value: float) -> np.ndarray:
    """Return `X` where the mask is True, and elsewhere a number, in the dtype of `X`."""
    return _like(X, np.where(mask, np.asarray(X), X.dtype.type(value)))

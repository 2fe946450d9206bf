"""The layer to use in place of gluon's `Dropout`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import mxnet as mx
from mxnet import autograd
from mxnet.gluon import nn

from d2ldrop.errors import not_an_array
from d2ldrop.mxnet.arrays import is_array
from d2ldrop.mxnet.masks import first_along, product, real_floats
from d2ldrop.randomness import axes_of, odds

NEARLY_ONE = 1 - 257 / 2**24  # for a larger rate, among those of float32, 1 / (1 - rate) is more than float16 holds


class GluonDropout(nn.Dropout):
    """gluon's layer, but zero at p = 1, where gluon's is nan, as it multiplies by 1 / (1 - p).

    It is the fastest, and what the chapter's model is made of; like gluon's, it makes nan of a dropped inf or nan.
    """

    def __init__(self, rate: float, axes: Iterable[int] = (), **kwargs: Any):
        odds(rate, "rate")  # checks it
        super().__init__(float(rate), axes_of(axes), **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: all but the graph of a hybridized layer, which is made again."""
        return {**vars(self), "_cached_graph": (), "_cached_op": None}

    def hybrid_forward(self, F: Any, X: Any) -> Any:
        """Return `X` under dropout in training, and `X` otherwise; F is `mx.nd`, or `mx.sym` while a graph is made."""
        if odds(self._rate, "rate").scale > 0:
            return super().hybrid_forward(F, X)
        return product(X, _zeros_in_training(F.ones_like(X.as_nd_ndarray())))


class Dropout(GluonDropout):
    """Dropout in training, and nothing elsewhere, in place of `gluon.nn.Dropout`; it may be hybridized.

    Parameters
    ----------
    rate
        The probability p of dropping an element, a real number in [0, 1].
    axes
        Axes along which all elements share one draw, such as (2, 3) to drop whole channels of images (N, C, H, W).
    **kwargs
        What all blocks of gluon take: `prefix` and `params`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `rate` is not a real number in [0, 1]; when the layer is called, if the input is no array of real numbers.

    Notes
    -----
    What becomes of each element is what `dropout_layer` says. But all masks come from MXNet's own generator, so that
    `mx.random.seed` repeats them. That one belongs to a thread, and begins in each with the same seed: as for gluon's
    layer, seed it in each thread that you start. Like gluon's, the layer is in training while
    `autograd.is_training()`.
    """

    def forward(self, X: Any) -> Any:
        """Return `X` under dropout in training, and `X` otherwise."""
        if not is_array(X):
            raise not_an_array(X, "mxnet")
        return super().forward(X)

    def hybrid_forward(self, F: Any, X: Any) -> Any:
        """Do so for an array, with F = `mx.nd`, or for a symbol while a graph is made, with F = `mx.sym`."""
        X, p = real_floats(X), odds(self._rate, "rate")
        if p.threshold == 0:
            return X
        with autograd.pause(train_mode=autograd.is_training()):
            ones = F.ones_like(first_along(X, self._axes))
            if p.scale > 0:  # where it is not training, MXNet's dropout of ones is ones
                S = F.Dropout(ones, p=min(p.threshold / 2**p.bits, NEARLY_ONE))
            else:
                S = _zeros_in_training(ones)
        return product(X, S)


def _zeros_in_training(ones: Any) -> Any:
    """Return zeros in training, and ones otherwise.

    A graph cannot ask whether it runs in training. But dropout of ones is 0 or 2 then, and 1 otherwise.
    """
    F = mx.sym if isinstance(ones, mx.sym.Symbol) else mx.nd
    return F.Dropout(ones, p=0.5) == 1


@contextmanager
def not_hybridized(net: nn.Block) -> Iterator[None]:
    """Inside the block, run a network layer by layer, whatever in it was hybridized."""
    blocks: list[Any] = []
    net.apply(lambda block: blocks.append(block) if getattr(block, "_active", False) else None)
    for block in blocks:
        block._active = False
    try:
        yield
    finally:
        for block in blocks:
            block._active = True

"""Randomness: three named streams from one seed, and the random bits behind every dropout mask.

A Bernoulli draw with probability p needs only a few random bits, so a mask is made from *lanes*: one 64-bit word of a
generator gives four of 16 bits, each uniform on 0 ... 65535, and an element is dropped where its lane is below the
threshold round(65536 p). Where fewer bits say p as well, a word has more lanes: eight of 8 bits for multiples of 1/256,
and 64 of 1 bit for 0.5. (PyTorch's adapter compares 64 elements at once, digit by digit, see `torch/masks.py`.) What
is kept is scaled by the keep probability that this threshold really has, so the mean is exact for every p.

In the plain form, u = rand() is compared with p, and an element is kept where u >= p. A lane k of b bits is that same
comparison in integers: u = k / 2**b, and u >= p where k >= 2**b p = threshold.

The words come from published generators: the Mersenne Twister in PyTorch (Matsumoto and Nishimura, 1998), Philox in
TensorFlow, on GPUs, and for shared masks, and Threefry in JAX (both by Salmon, Moraes, Dror and Shaw, Parallel random
numbers: as easy as 1, 2, 3, 2011), and SFC64 in NumPy and for MXNet on a CPU (Doty-Humphrey, PractRand, 2010 on).
"""

import copy
import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.errors import ArgumentError, ArgumentTypeError

__all__ = [
    "LANES",
    "HostGenerator",
    "Odds",
    "Streams",
    "axes_of",
    "initial_weights",
    "integer",
    "lanes",
    "no_axes",
    "normals",
    "odds",
    "of_epoch",
    "probability",
    "shape_of",
    "shape_of_mask",
    "shared_generator",
    "sharing_masks",
    "streams",
]

LANES = 2**16


class Streams(NamedTuple):
    """Independent streams of randomness: changing how one is used leaves the others as they were."""

    weights: np.random.SeedSequence
    order: np.random.SeedSequence
    dropout: np.random.SeedSequence


def streams(seed: int | None) -> Streams:
    """Return the three streams of a seed: initial weights, order of the samples, dropout.

    Parameters
    ----------
    seed
        A non-negative integer, or None for fresh entropy of the operating system.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `seed` is not an integer, or negative.

    Examples
    --------
    >>> a, b = streams(7), streams(7)
    >>> integer(a.order) == integer(b.order), integer(a.order) == integer(a.dropout)
    (True, False)
    """
    if seed is not None and (not isinstance(seed, numbers.Integral) or isinstance(seed, bool)):
        raise ArgumentTypeError(f"Expected seed to be an integer or None. Received: {seed!r}")
    if seed is not None and seed < 0:
        raise ArgumentError(f"Expected seed to be 0 or more. Received: {seed!r}")
    return Streams(*np.random.SeedSequence(seed).spawn(3))


def of_epoch(stream: np.random.SeedSequence, epoch: int) -> np.random.SeedSequence:
    """Return the part of a stream that an epoch (0, 1, ...) draws from; for the first it is the stream itself.

    It does not depend on what was drawn before, so training can begin with any epoch.
    """
    return np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, epoch)) if epoch else stream


def integer(stream: np.random.SeedSequence) -> int:
    """Return the stream's own seed as an integer below 2**31, which every framework accepts."""
    return int(stream.generate_state(1)[0]) >> 1


class HostGenerator:
    """A generator on the host that belongs to an adapter: random per process, forked ones included, until it is seeded.

    Parameters
    ----------
    kind
        NumPy's class of the generator, such as `np.random.SFC64`.
    """

    def __init__(self, kind: Callable[[Any], np.random.BitGenerator]):
        self._kind = kind
        self._shared = np.random.Generator(kind(None))
        self._own: ContextVar[np.random.Generator | None] = ContextVar("_own", default=None)
        if hasattr(os, "register_at_fork"):  # Windows has no fork
            os.register_at_fork(after_in_child=self._renew)

    @property
    def rng(self) -> np.random.Generator:
        """The generator to draw from, here and now."""
        return self._own.get() or self._shared

    @property
    def is_isolated(self) -> bool:
        """Whether this is inside of `isolated`."""
        return self._own.get() is not None

    def seed(self, seed: Any) -> None:
        """Seed it; what NumPy's generators take is allowed."""
        self.rng.bit_generator.state = self._kind(seed).state

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Inside the block, draw from a generator of this thread alone, seeded by this one, which stays as it is."""
        seed = int(copy.deepcopy(self.rng).integers(2**63))
        token = self._own.set(np.random.Generator(self._kind(seed)))
        try:
            yield
        finally:
            self._own.reset(token)

    def _renew(self) -> None:
        """Start from fresh entropy: a forked process must not draw what the others do."""
        self._shared = np.random.Generator(self._kind(None))
        if self.is_isolated:
            self._own.set(np.random.Generator(self._kind(None)))


class Odds(NamedTuple):
    """A dropout probability in lanes: where a lane is below `threshold`, the element is dropped; else it is scaled."""

    threshold: int  # 0 ... 2**bits
    scale: float  # 1 / (1 - p) for p = threshold / 2**bits; 0 for p = 1
    bits: int  # of a lane: 1 where p is 1/2, 8 where it is another multiple of 1/256, otherwise 16

    @property
    def p(self) -> float:
        """The probability that these lanes realise."""
        return self.threshold / (1 << self.bits)


def probability(dropout: Any, name: str = "dropout") -> float:
    """Check a probability, and return it as a number of Python; parameters and errors as for `odds`."""
    p = _as_real(dropout, name)
    if not 0 <= p <= 1:  # also false for nan
        raise ArgumentError(f"Expected {name} to be a number in [0, 1]. Received: {dropout!r}")
    return p


def odds(dropout: Any, name: str = "dropout") -> Odds:
    """Check a dropout probability and express it in lanes.

    Parameters
    ----------
    dropout
        The probability p of dropping an element, a real number in [0, 1]; an array or tensor of one element counts.
    name
        What an error calls it.

    Returns
    -------
    Odds
        The threshold, which realises p to within 2**-16 (exactly for 0, 1, and multiples of 2**-16), the scale
        1 / (1 - p) for the p so realised, and the bits of a lane. A p strictly between 0 and 1 never becomes 0 or 1.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `dropout` is not a number, or not in [0, 1].

    Examples
    --------
    >>> odds(0.25), odds(0.5)
    (Odds(threshold=64, scale=1.3333333333333333, bits=8), Odds(threshold=1, scale=2.0, bits=1))
    >>> odds(1.2)
    Traceback (most recent call last):
    d2ldrop.errors.ArgumentError: Expected dropout to be a number in [0, 1]. Received: 1.2
    """
    p = probability(dropout, name)
    threshold = round(p * LANES)
    if 0 < p < 1:
        threshold = min(max(threshold, 1), LANES - 1)
    scale = LANES / (LANES - threshold) if threshold < LANES else 0.0
    bits = 1 if threshold == LANES // 2 else 16 if threshold % 256 else 8
    return Odds(threshold * 2**bits // LANES, scale, bits)


def _as_real(value: Any, name: str) -> float:
    """Return the value of a real number, or of an array or tensor that holds just one."""
    real = isinstance(value, numbers.Real)
    if real or _holds_one_number(value):
        # 10**400; what a framework traces, or has no values of
        with suppress(TypeError, ValueError, OverflowError, RuntimeError):
            return float(value if real or not hasattr(value, "item") else value.item())
    if real:
        return math.inf
    raise ArgumentTypeError(f"Expected {name} to be a number in [0, 1]. Received: {value!r}")


def _holds_one_number(value: Any) -> bool:
    """Return True if an array or tensor has one element, and that is neither text nor complex."""
    dtype = str(getattr(value, "dtype", "str"))
    other = any(kind in dtype for kind in ("U", "S", "str", "object", "complex"))
    return not other and math.prod(getattr(value, "shape", (0,))) == 1


def lanes(shape: tuple[int, ...], rng: np.random.Generator, bits: int) -> np.ndarray:
    """Draw uniform integers of 1, 8 or 16 bits, as many as fit from each 64-bit word of the generator.

    Parameters
    ----------
    shape
        The shape of the result.
    rng
        Any NumPy generator; it advances by ceil(n bits / 64) 64-bit words.
    bits
        1, 8 or 16.

    Returns
    -------
    numpy.ndarray
        uint8, uniform on 0 and 1 or on all its values, or uint16, uniform on all its values.
    """
    count = math.prod(shape)
    words = rng.integers(0, 2**64, size=-(-count * bits // 64), dtype=np.uint64)
    drawn = np.unpackbits(words.view("u1")) if bits == 1 else words.view(f"u{bits // 8}")
    return drawn[:count].reshape(shape)


def normals(shape: tuple[int, ...], rng: np.random.Generator, double: bool) -> np.ndarray:
    """Draw standard normal numbers: float64 if `double`, else float32, from which narrower types are rounded."""
    return np.asarray(rng.standard_normal(shape, np.float64 if double else np.float32))


def axes_of(axes: Iterable[int]) -> tuple[int, ...]:
    """Return the axes along which a mask is shared as a tuple.

    Raises
    ------
    ArgumentTypeError
        If they are not integers.

    Examples
    --------
    >>> axes_of([2, 3])
    (2, 3)
    """
    if isinstance(axes, tuple) and not axes:  # the usual case
        return axes
    try:
        return tuple(operator.index(axis) for axis in axes)
    except TypeError:
        raise ArgumentTypeError(f"Expected axes to be integers, such as (2, 3). Received: {axes!r}") from None


def no_axes(axes: Iterable[int]) -> None:
    """Refuse shared draws in an array whose rows differ in length.

    Raises
    ------
    ArgumentError
        If there are axes.
    """
    if shared := axes_of(axes):
        raise ArgumentError(f"Expected no axes for an array whose rows differ in length. Received: {shared}")


def shape_of(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape of an array to draw that a function was given, as numbers or as one tuple or list of them.

    Examples
    --------
    >>> shape_of((2, 5)), shape_of(((2, 5),)), shape_of(())
    ((2, 5), (2, 5), ())
    """
    return tuple(arguments[0]) if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)) else arguments


def shape_of_mask(shape: Sequence[int], axes: Iterable[int] = ()) -> tuple[int, ...]:
    """Return the shape of a mask that is the same along some axes of an array: it is 1 there.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If the array has no such axis, or they are not integers.

    Examples
    --------
    >>> shape_of_mask((32, 3, 28, 28), axes=(2, -1))
    (32, 3, 1, 1)
    """
    n, shared = len(shape), axes_of(axes)
    for axis in shared:
        if not -n <= axis < n:
            raise ArgumentError(f"Expected axes of an array of {n} axes. Received: {axis}")
    return tuple(1 if k in shared or k - n in shared else size for k, size in enumerate(shape))


def initial_weights(shapes: Mapping[str, tuple[int, ...]], stream: np.random.SeedSequence) -> dict[str, np.ndarray]:
    """Draw initial weights on the host, so that every framework can start from the same.

    Parameters
    ----------
    shapes
        Shapes by name: `*.weight` (outputs, inputs), each followed by its `*.bias` (outputs,).
    stream
        Seeds the draws.

    Returns
    -------
    dict of str to numpy.ndarray
        float32 in the same names and shapes, uniform on +-1 / sqrt(inputs).

    Notes
    -----
    Source: LeCun, Bottou, Orr and Mueller, Efficient BackProp (1998), for the scale; PyTorch's default.
    """
    rng, drawn, bound = np.random.default_rng(stream), {}, 1.0
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            bound = shape[1] ** -0.5
        drawn[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return drawn


_shared: ContextVar[np.random.Generator | None] = ContextVar("_shared", default=None)


@contextmanager
def sharing_masks(rng: np.random.Generator | None) -> Iterator[None]:
    """Let every framework draw its masks from one generator on the host inside the block.

    Then all of them drop the same elements, and follow the same curve. None changes nothing.
    """
    token = _shared.set(rng)
    try:
        yield
    finally:
        _shared.reset(token)


def shared_generator() -> np.random.Generator | None:
    """Return the generator of the enclosing `sharing_masks`, or None; adapters prefer it to their own."""
    return _shared.get()

"""Data sets in memory, shuffled by sample, with loaders that yield the arrays of a framework."""

import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.backend import AnyBackend, Array
from d2ldrop.data.on_disk import OnDisk, chosen, chunks, stays_on_disk
from d2ldrop.data.parts import Pair, Samples, part
from d2ldrop.data.splits import divided
from d2ldrop.errors import DataError, UsageError
from d2ldrop.hyperparameters import HyperParameters, call_of, positive
from d2ldrop.plots.pictures import fitting, plain_images, show_images
from d2ldrop.registry import backend_of, get_backend

__all__ = [
    "MAX_CLASSES",
    "ArrayData",
    "BatchLoader",
    "DataModule",
    "ImageData",
    "Split",
    "as_floats",
    "as_labels",
    "on_host",
    "same_length",
    "samples",
]

MAX_CLASSES = 2**16
"""Labels are below this: a larger one is more likely a number of something else than a class."""


class BatchLoader:
    """Iterate over arrays of equal length in batches; `len()` counts the batches.

    With `shuffle`, each pass goes through the samples (not the batches) in a new order. The orders come from `rng`;
    where it is None, each comes from the global generator of the framework, which its users may seed.

    Raises
    ------
    ArgumentError, DataError
        If the batch size is no positive integer, or the arrays differ in length.
    """

    rng: np.random.Generator | None = None

    def __init__(self, arrays: tuple[np.ndarray, ...], batch_size: int, shuffle: bool, backend: AnyBackend):
        shapes = [tuple(array.shape) for array in arrays]
        if () in shapes or len({shape[0] for shape in shapes}) != 1:
            raise DataError(f"Expected arrays (N, ...), one or more, of equal length. Received: {shapes}")
        self.arrays, self.shuffle, self.backend = arrays, shuffle, backend
        self.batch_size = positive("batch_size", batch_size)

    def __len__(self) -> int:
        return math.ceil(len(self.arrays[0]) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        count = len(self.arrays[0])
        order = np.arange(count)
        if self.shuffle:
            rng = np.random.default_rng(self.backend.entropy()) if self.rng is None else self.rng
            order = rng.permutation(count)
        for start in range(0, count, self.batch_size):
            chosen = order[start : start + self.batch_size]
            *inputs, labels = (array[chosen] for array in self.arrays)
            yield (*(self.backend.array(as_floats(X)) for X in inputs), self.backend.array(labels))


def as_floats(X: np.ndarray) -> np.ndarray:
    """Return pixels, uint8, as float32 in [0, 1], and arrays of other types as they are."""
    return np.divide(X, 255, dtype=np.float32) if X.dtype == np.uint8 else X


def as_labels(y: np.ndarray, backend: AnyBackend) -> np.ndarray:
    """Return classes as integers of the type that a framework takes, and other numbers as float32."""
    return y.astype(backend.label_dtype if y.dtype.kind in "iub" else np.float32, copy=False)


class DataModule(HyperParameters):
    """Base of data sets: subclasses define `get_dataloader`.

    Parameters
    ----------
    root
        The folder of the data set's files, for subclasses that read some.
    num_workers
        For compatibility with the book; without effect, as everything is in memory.
    """

    backend_name = "numpy"
    """Which framework's arrays the loaders yield."""

    batch_size: int = 64

    def __init__(self, root: str | os.PathLike[str] = "../data", num_workers: int = 0):
        self.save_hyperparameters()

    def __repr__(self) -> str:
        return f"<{call_of(self)}>"

    @property
    def backend(self) -> AnyBackend:
        """The backend named by `backend_name`."""
        return get_backend(self.backend_name)

    def get_dataloader(self, train: bool) -> Any:
        """Return an iterable of batches, with a length: the training samples, or those to validate on."""
        raise UsageError(f"Expected {type(self).__name__} to define get_dataloader(train). It does not.")

    def train_dataloader(self) -> Any:
        """Return the loader of the training samples."""
        return self.get_dataloader(train=True)

    def val_dataloader(self) -> Any:
        """Return the loader of the samples to validate on."""
        return self.get_dataloader(train=False)

    def get_tensorloader(self, tensors: Sequence[Array], train: bool, indices: slice = slice(0, None)) -> BatchLoader:
        """Return a loader over some of the samples of given arrays, shuffled if `train`.

        Parameters
        ----------
        tensors
            Arrays of any framework, of equal length, inputs first.
        train
            Whether to shuffle.
        indices
            Which samples.
        """
        arrays = tuple(backend_of(tensor).numpy(tensor)[indices] for tensor in tensors)
        return BatchLoader(arrays, self.batch_size, shuffle=train, backend=self.backend)


class Split(NamedTuple):
    """The samples of one part of a data set, on the host."""

    X: Any  # (N, ...): uint8 for pixels, or float32; an array, or `OnDisk`
    y: np.ndarray  # (N,): integers, classes; or (N, k): float32, what a regression is to predict


class ArrayData(DataModule):
    """A data set in memory: your own arrays, or the base of the built-in ones.

    Parameters
    ----------
    X, y
        Training samples (N, ...) and labels (N,), arrays of any framework or data frames. Labels are classes, whole
        numbers from 0 on, or the targets of a regression: floating-point numbers, or k numbers for each sample, (N, k).
        Integers in `X` are taken as pixels, 0 to 255, which the model gets as float32 in [0, 1]; other floating-point
        numbers become float32. Of a memory-mapped array (`np.load(path, mmap_mode="r")`, `np.memmap`) of uint8 or
        floating-point numbers, each batch is read from the file when it is needed; so it may exceed the memory.
    X_val, y_val
        Samples to validate on. Without them, a fifth of the training samples is set aside: of each class, and of all
        its samples in an order that is shuffled, always in the same way. In a regression it is a fifth of all. With
        none in them, as in `X[:0], y[:0]`, training has all samples, and nothing is validated.
    batch_size
        The number of samples in a batch.
    class_names
        Names of the labels, for pictures; by default their numbers.
    shuffle
        False to set the last fifth aside, in the order in which the samples come.
    regression
        True if `y` are targets of a regression, False if they are classes. By default they are targets if they have
        the shape (N, k), or are floating-point numbers that are not all whole and at least 0.

    Attributes
    ----------
    is_regression : bool
        Whether `y` are targets. Then they are float32 of shape (N, k), also where they were given as (N,).
    num_outputs : int
        How many outputs a model needs: the number of classes, or k.
    num_classes : int
        The number of classes; not there in a regression.

    Raises
    ------
    DataError
        If the shapes do not fit together, there are no samples, something in `X` or in targets is nan or infinite, or
        classes are not whole numbers from 0 to 65,535.

    Examples
    --------
    >>> import numpy as np
    >>> data = ArrayData(np.zeros((10, 3)), np.arange(10) % 2, batch_size=4)
    >>> [tuple(X.shape) for X, y in data.train_dataloader()]
    [(4, 3), (4, 3)]
    >>> ArrayData(np.zeros((10, 3)), np.linspace(0, 1, 10)).is_regression
    True
    """

    num_classes: int

    def __init__(
        self,
        X: Array,
        y: Array,
        X_val: Array | None = None,
        y_val: Array | None = None,
        batch_size: int = 64,
        class_names: Sequence[str] | None = None,
        shuffle: bool = True,
        regression: bool | None = None,
    ):
        if (X_val is None) != (y_val is None):
            raise DataError("Expected both X_val and y_val, or neither. Received only one.")
        train = _checked(X, y, regression)
        if X_val is None:
            train, val = (Split(chosen(train.X, part), train.y[part]) for part in divided(train.y, shuffle))
        else:
            val = _checked(X_val, y_val, train.y.dtype.kind == "f", least=0)
            if val.y.shape[1:] != train.y.shape[1:]:
                raise DataError(f"Expected y_val of targets {train.y.shape[1:]}. Received: {val.y.shape[1:]}")
            if val.X.shape[1:] != train.X.shape[1:]:
                raise DataError(f"Expected X_val of samples {train.X.shape[1:]}. Received: {val.X.shape[1:]}")
        self._fill(train, val, batch_size, class_names)

    def _fill(self, train: Split, val: Split, batch_size: int, class_names: Sequence[str] | None = None) -> None:
        self.batch_size = positive("batch_size", batch_size)
        self._splits = {True: train, False: val}
        self.is_regression = train.y.dtype.kind == "f"
        self.class_names = []
        if self.is_regression:
            self.num_outputs = train.y.shape[1]
            return
        self.num_outputs = self.num_classes = int(max(train.y.max(), val.y.max(initial=0))) + 1
        self.class_names = list(class_names) if class_names is not None else [str(k) for k in range(self.num_classes)]
        if len(self.class_names) < self.num_classes:
            raise DataError(f"Expected {self.num_classes} class names. Received: {len(self.class_names)}")

    @property
    def on_disk(self) -> bool:
        """Whether samples stay in a file, from which they are read batch by batch."""
        return any(isinstance(split.X, OnDisk) for split in self._splits.values())

    def __repr__(self) -> str:
        if "_splits" not in vars(self):  # a subclass that has not called `_fill`
            return super().__repr__()
        (X, _), (X_val, _) = self._splits[True], self._splits[False]
        kind = f"{self.num_outputs} {'targets' if self.is_regression else 'classes'}"
        return (
            f"<{type(self).__name__}: {len(X)} samples to train on, {len(X_val)} to validate on, "
            f"each {X.shape[1:]} {X.dtype}; {kind}; batch_size={self.batch_size}>"
        )

    def split(self, train: bool, channels_last: bool = False) -> Split:
        """Return the training or validation samples as they are in memory, or in a file.

        Parameters
        ----------
        train
            Which of the two.
        channels_last
            Whether images are (N, H, W, C), as opposed to (N, C, H, W); without effect on other data.
        """
        return self._splits[train]

    @cached_property
    def train(self) -> Pair | Samples:
        """The samples to train on, with `data` and `targets`.

        In TensorFlow and JAX a pair of NumPy arrays, else of a certain length, with samples (input, label) at indices.
        """
        return self._part(train=True)

    @cached_property
    def val(self) -> Pair | Samples:
        """The samples to validate on, in the form of `train`."""
        return self._part(train=False)

    def _part(self, train: bool) -> Pair | Samples:
        return part(*self._splits[train], self.split(train, self.backend.channels_last).X, self.backend)

    def get_dataloader(self, train: bool) -> BatchLoader:
        """Return a loader that yields `(X, y)`, reshuffled at every pass if `train`."""
        X, y = self.split(train, self.backend.channels_last)
        arrays = (X, as_labels(y, self.backend))
        return BatchLoader(arrays, self.batch_size, shuffle=train, backend=self.backend)

    def text_labels(self, indices: Any) -> list[str]:
        """Return the names of labels, given as integers or arrays of them; targets of a regression as numbers."""
        if self.is_regression:
            return [", ".join(f"{value:g}" for value in np.ravel(on_host(target))) for target in indices]
        return [self.class_names[int(index)] for index in indices]

    def visualize(
        self, batch: tuple[Array, Array], nrows: int = 1, ncols: int = 8, labels: Sequence[str] | None = None
    ) -> Any:
        """Draw the first images of a batch with their labels; `labels` overrides the names.

        The images are grey or RGB. The grid is as wide as a notebook's page at most. Returns the matplotlib axes, as
        `show_images` does, and raises the same error for samples that are no images.
        """
        X, y = batch
        names = list(labels) if labels else self.text_labels(y)
        if len(names) == 1 and isinstance(names[0], list):  # as the book's softmax regression has it, [labels]
            names = names[0]
        return show_images(plain_images(X), nrows, ncols, titles=names, scale=fitting(ncols))


class ImageData(ArrayData):
    """A data set of grey images, uint8 or floating, stored as (N, H, W)."""

    def split(self, train: bool, channels_last: bool = False) -> Split:
        """Return images (N, 1, H, W) or, with channels last, (N, H, W, 1), and labels (N,)."""
        X, y = self._splits[train]
        return Split(X[..., np.newaxis] if channels_last else X[:, np.newaxis], y)


def _checked(X: Any, y: Any, regression: bool | None, least: int = 1) -> Split:
    """Return a user's arrays on the host, checked to be samples and their labels, `least` or more."""
    given, X, y = on_host(X), OnDisk(X) if stays_on_disk(X) else samples(X), on_host(y)
    if given.dtype.kind in "iu" and given.dtype != np.uint8 and X.size and X.max() == 1:
        raise DataError('Expected integers in X to be pixels, 0 to 255. Received 0 and 1: pass X.astype("float32").')
    if X.dtype != np.uint8:
        _check_finite("X", X)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if X.ndim < 2 or y.ndim not in (1, 2) or 0 in (*X.shape[1:], *y.shape[1:]):
        raise DataError(
            "Expected X of shape (N, ...) and y of shape (N,), or (N, k) in a regression. "
            f"Received: {X.shape} and {y.shape}"
        )
    numbers = y.dtype.kind in "fiub"
    values = y.astype(np.float64) if numbers else y  # float16 has no MAX_CLASSES
    whole = (values >= 0) & (values < MAX_CLASSES) & (values == np.floor(values)) if numbers else False
    classes = bool(y.ndim == 1 and np.all(whole))
    if regression is None:
        regression = y.ndim == 2 or (y.dtype.kind == "f" and not classes)
    if not regression and not classes:
        hint = " For a regression, pass regression=True." if numbers else ""
        raise DataError(
            f"Expected y to hold whole numbers from 0 to {MAX_CLASSES - 1}, classes. "
            f"Received: {y.dtype} {y.shape}, {y[:5].tolist()} ...{hint}"
        )
    if regression:
        if not numbers:
            raise DataError(f"Expected y to hold the numbers that are to be predicted. Received: {y.dtype}")
        with np.errstate(over="ignore"):  # what is too large becomes inf
            y = np.ascontiguousarray(y if y.ndim == 2 else y[:, None], np.float32)  # (N, 1) as a model's outputs
        _check_finite("y", y)
    return same_length(Split(X, y if regression else y.astype(np.int64)), least)


def _check_finite(name: str, samples: Any) -> None:
    """Raise a DataError that names the first sample with a number that is nan or infinite, if there is one."""
    for start, values in chunks(samples):
        finite = np.isfinite(values)
        if not finite.all():
            k = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))[0]
            found = f"{values[k][~finite[k]][0]} in sample {start + k}"
            raise DataError(f"Expected {name} to hold numbers that are finite, as float32. Received: {found}")


def on_host(X: Any) -> np.ndarray:
    """Return an array of any framework, a data frame, or nested lists, as an array of the host."""
    if hasattr(X, "to_numpy"):
        return np.asarray(X.to_numpy())
    array: np.ndarray = backend_of(X).numpy(X) if hasattr(X, "shape") else np.asarray(X)
    return array


def samples(given: Any) -> np.ndarray:
    """Return samples on the host: pixels as uint8, other numbers as float32.

    Raises
    ------
    DataError
        If there are no real numbers in it, or integers that are no pixels.
    """
    X: np.ndarray = on_host(given)
    if X.dtype.kind not in "fiub":
        raise DataError(f"Expected X to hold numbers. Received: {X.dtype}")
    if X.dtype == np.uint8:
        return X
    if X.dtype.kind in "iu":
        if X.size and not 0 <= X.min() <= X.max() <= 255:
            raise DataError(
                f"Expected integers in X to be pixels, 0 to 255. Received: {X.min()} to {X.max()}. "
                'For other numbers, pass X.astype("float32").'
            )
        return X.astype(np.uint8)
    with np.errstate(over="ignore"):  # what is too large becomes inf, which is looked for later
        return np.ascontiguousarray(X, np.float32)


def same_length(split: Split, least: int = 1) -> Split:
    """Return the samples and labels, if there are as many of one as of the other, and `least` or more."""
    if len(split.X) != len(split.y) or len(split.y) < least:
        received = f"{len(split.X)}, {len(split.y)}"
        raise DataError(f"Expected as many samples as labels, at least {least}. Received: {received}")
    return split

"""Data sets: whole in memory, shuffled by sample, and handed out as arrays of the framework they are for."""

import gzip
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from d2ldrop.backend import Array, Backend, backend, backend_of
from d2ldrop.download import cache_folder, fetch, locate
from d2ldrop.errors import ArgumentError, DataError, UsageError
from d2ldrop.hyperparameters import HyperParameters


class BatchLoader:
    """Iterate over arrays of equal length in batches; `len()` counts the batches.

    With `shuffle`, each pass goes through the samples (not the batches) in a new order.
    """

    def __init__(
        self, arrays: tuple[np.ndarray, ...], batch_size: int, shuffle: bool, backend: Backend, seed: int | None = None
    ):
        self.arrays, self.batch_size, self.shuffle, self.backend = arrays, batch_size, shuffle, backend
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return math.ceil(len(self.arrays[0]) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        count = len(self.arrays[0])
        order = self.rng.permutation(count) if self.shuffle else np.arange(count)
        for start in range(0, count, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield tuple(self.backend.array(as_floats(array[chosen])) for array in self.arrays)


def as_floats(X: np.ndarray) -> np.ndarray:
    """Turn stored pixels, uint8, into float32 in [0, 1]; leave everything else as it is."""
    return np.divide(X, 255, dtype=np.float32) if X.dtype == np.uint8 else X


class DataModule(HyperParameters):
    """Base of data sets: subclasses define `get_dataloader`.

    Parameters
    ----------
    root
        A folder with files, where the data set has any.
    num_workers
        Taken for compatibility with the book: everything is in memory, so no worker processes are needed.
    """

    backend_name = "numpy"
    """Which framework's arrays the loaders yield."""

    label_dtype: Any = np.int64
    """The integers in which that framework likes to have labels."""

    stores_bytes = True
    """Whether pixels lie on the device as uint8, as opposed to float32, which takes four times the memory."""

    batch_size: int = 64

    def __init__(self, root: str | os.PathLike[str] | None = None, num_workers: int = 0):
        self.save_hyperparameters()

    @property
    def backend(self) -> Backend:
        """The adapter named by `backend_name`."""
        return backend(self.backend_name)

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

    X: np.ndarray  # (N, ...): uint8 for pixels, or floating
    y: np.ndarray  # (N,): integers


class ArrayData(DataModule):
    """A data set in memory: your own arrays, or the base of the built-in ones.

    Parameters
    ----------
    X, y
        Training samples (N, ...) and labels (N,), arrays of any framework. Integers in `y` count from 0. An `X` of
        uint8 stands for pixels and reaches the model as float32 in [0, 1]; float64 becomes float32.
    X_val, y_val
        Samples to validate on. Without them, the last fifth of the training samples is set aside.
    batch_size
        How many samples make a batch.
    class_names
        Names of the labels, for pictures; by default their numbers.

    Raises
    ------
    DataError
        If the shapes do not fit together, there are no samples, or labels are not integers from 0 on.

    Examples
    --------
    >>> import numpy as np
    >>> data = ArrayData(np.zeros((10, 3)), np.arange(10) % 2, batch_size=4)
    >>> [tuple(X.shape) for X, y in data.train_dataloader()]
    [(4, 3), (4, 3)]
    """

    def __init__(
        self,
        X: Array,
        y: Array,
        X_val: Array | None = None,
        y_val: Array | None = None,
        batch_size: int = 64,
        class_names: Sequence[str] | None = None,
    ):
        if (X_val is None) != (y_val is None):
            raise DataError("Expected both X_val and y_val, or neither. Received only one.")
        train = _checked(X, y)
        if X_val is None:
            cut = len(train.y) - max(1, len(train.y) // 5)
            if cut == 0:
                raise DataError("Expected at least 2 samples, to set one aside for validation. Received: 1")
            train, val = Split(train.X[:cut], train.y[:cut]), Split(train.X[cut:], train.y[cut:])
        else:
            val = _checked(X_val, y_val)
            if val.X.shape[1:] != train.X.shape[1:]:
                raise DataError(f"Expected X_val of samples {train.X.shape[1:]}. Received: {val.X.shape[1:]}")
        self._fill(train, val, batch_size, class_names)

    def _fill(self, train: Split, val: Split, batch_size: int, class_names: Sequence[str] | None = None) -> None:
        self.batch_size = _positive("batch_size", batch_size)
        self._splits = {
            part: Split(split.X, split.y.astype(self.label_dtype)) for part, split in ((True, train), (False, val))
        }
        self.num_classes = int(max(train.y.max(), val.y.max())) + 1
        self.class_names = list(class_names) if class_names is not None else [str(k) for k in range(self.num_classes)]
        if len(self.class_names) < self.num_classes:
            raise DataError(f"Expected {self.num_classes} class names. Received: {len(self.class_names)}")

    def split(self, train: bool, channels_last: bool = False) -> Split:
        """Return the training or validation samples as they lie in memory.

        Parameters
        ----------
        train
            Which of the two.
        channels_last
            Where images have their axis of channels; it matters to no other kind of data.
        """
        return self._splits[train]

    def get_dataloader(self, train: bool) -> BatchLoader:
        """Return a loader that yields `(X, y)`, reshuffled at every pass if `train`."""
        arrays = self.split(train, self.backend.channels_last)
        return BatchLoader(arrays, self.batch_size, shuffle=train, backend=self.backend)

    def text_labels(self, indices: Any) -> list[str]:
        """Return the names of labels, given as integers or arrays of them."""
        return [self.class_names[int(index)] for index in indices]


class ImageData(ArrayData):
    """A data set of grey images, uint8 or floating, stored as (N, H, W)."""

    def split(self, train: bool, channels_last: bool = False) -> Split:
        """Return images (N, 1, H, W) or, with channels last, (N, H, W, 1), and labels (N,)."""
        X, y = self._splits[train]
        return Split(X[..., np.newaxis] if channels_last else X[:, np.newaxis], y)

    def visualize(
        self, batch: tuple[Array, Array], nrows: int = 1, ncols: int = 8, labels: Sequence[str] | None = None
    ) -> Any:
        """Draw the first images of a batch with their labels; `labels` overrides the names.

        The grid is as wide as a notebook's page at most. Returns the matplotlib axes, as `show_images` does.
        """
        from d2ldrop.pictures import fitting, grey_images, show_images

        X, y = batch
        names = list(labels) if labels else self.text_labels(y)
        return show_images(grey_images(X), nrows, ncols, titles=names, scale=fitting(ncols))


class FashionMNIST(ImageData):
    """Fashion-MNIST: 60,000 training and 10,000 validation images of clothes, 28x28 pixels, in ten classes.

    It is looked for in `root`, then in the folder named by `$D2LDROP_DATA`, then in the user's cache folder, and
    downloaded into the latter otherwise.

    Parameters
    ----------
    batch_size
        How many samples make a batch.
    resize
        Height and width, or one number for both; other sizes than (28, 28) are interpolated when the data are read.
    root
        A folder with the four files as published.
    num_workers
        Taken for compatibility with the book; has no effect.

    Raises
    ------
    DataNotFoundError
        If the files are neither there nor can be downloaded.
    DataError
        If a file is damaged.

    Notes
    -----
    Batches are float32 in [0, 1], (N, 1, H, W) or (N, H, W, 1) as the framework has it; labels are integers.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms, arXiv:1708.07747 (2017).
    """

    SHA256: ClassVar = {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }
    MIRRORS = (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    )
    CLASSES = (
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip

    def __init__(
        self,
        batch_size: int = 64,
        resize: int | tuple[int, int] = (28, 28),
        root: str | os.PathLike[str] | None = None,
        num_workers: int = 0,
    ):
        self.save_hyperparameters()
        self.folder = self.locate(root) or fetch(self.SHA256, self.MIRRORS, cache_folder())
        splits = (
            Split(
                _resized(read_idx(self.folder / f"{part}-images-idx3-ubyte.gz", ndim=3), resize),
                read_idx(self.folder / f"{part}-labels-idx1-ubyte.gz", ndim=1).astype(np.int64),
            )
            for part in ("train", "t10k")
        )
        train, val = (_same_length(split) for split in splits)
        self._fill(train, val, batch_size, self.CLASSES)

    @classmethod
    def locate(cls, root: str | os.PathLike[str] | None = None) -> Path | None:
        """Return the folder on this machine that holds the files, or None."""
        return locate(tuple(cls.SHA256), root)


class Digits(ImageData):
    """scikit-learn's digits: 1,797 real 8x8 images of handwritten digits, inside that package: needs no network.

    The order is shuffled once, always the same way, and the last fifth is for validation.

    Parameters
    ----------
    batch_size
        How many samples make a batch.

    Notes
    -----
    Batches are float32 in [0, 1], (N, 1, 8, 8) or (N, 8, 8, 1) as the framework has it; labels are integers.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI machine learning repository (1998).
    """

    def __init__(self, batch_size: int = 64):
        from sklearn.datasets import load_digits

        self.save_hyperparameters()
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(labels))
        X = (images[order].reshape(-1, 8, 8) / 16).astype(np.float32)
        y = labels[order].astype(np.int64)
        cut = len(y) * 4 // 5
        self._fill(Split(X[:cut], y[:cut]), Split(X[cut:], y[cut:]), batch_size)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read an array of bytes from a gzipped file in the IDX format.

    Parameters
    ----------
    path
        The file.
    ndim
        The number of axes it must have.

    Returns
    -------
    numpy.ndarray
        uint8

    Raises
    ------
    DataError
        If the file is not what it should be; the message names it and says what to do.

    Notes
    -----
    Two zero bytes, the code of the element type (8: unsigned byte), the number of axes, then each axis' length as a
    big-endian 32-bit integer, then the elements. Source: LeCun, Cortes and Burges, The MNIST database.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"Expected {path} to be a gzip file. Remove it to have it fetched again. ({error})") from error
    header = 4 + 4 * ndim
    if content[:4] != bytes((0, 0, 8, ndim)) or len(content) < header:
        raise DataError(
            f"Expected {path} to be an IDX file of bytes with {ndim} axes. Received one that begins with "
            f"{content[:4].hex(' ') or 'nothing'}. Remove it to have it fetched again."
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">i4", count=ndim, offset=4))
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"Expected {path} to hold {math.prod(shape)} elements, shape {shape}. Received "
            f"{len(content) - header}. Remove it to have it fetched again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _resized(images: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Interpolate images (N, H, W) of uint8 to another height and width, bilinearly."""
    if isinstance(size, int):
        size = (size, size)
    height, width = (_positive("resize", side) for side in size)
    if images.shape[1:] == (height, width):
        return images
    from PIL import Image

    resized = np.empty((len(images), height, width), np.uint8)
    for image, target in zip(images, resized, strict=True):
        target[:] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return resized


def _checked(X: Array, y: Array) -> Split:
    """Bring a user's arrays to the host, and check that they make samples and labels."""
    X, y = (backend_of(array).numpy(array) if hasattr(array, "shape") else np.asarray(array) for array in (X, y))
    if X.dtype.kind not in "fiub":
        raise DataError(f"Expected X to hold numbers. Received: {X.dtype}")
    if X.dtype != np.uint8:
        X = X.astype(np.float32)
    if X.ndim < 2 or y.ndim != 1:
        raise DataError(f"Expected X of shape (N, ...) and y of shape (N,). Received: {X.shape} and {y.shape}")
    if y.dtype.kind not in "iu" or (y.size and y.min() < 0):
        raise DataError(f"Expected y to hold integers from 0 on. Received: {y.dtype}, {y[:5]} ...")
    return _same_length(Split(X, y.astype(np.int64)))


def _same_length(split: Split) -> Split:
    if len(split.X) != len(split.y) or not len(split.y):
        raise DataError(f"Expected as many samples as labels, at least 1. Received: {len(split.X)}, {len(split.y)}")
    return split


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ArgumentError(f"Expected {name} to be a positive integer. Received: {value!r}")
    return int(value)

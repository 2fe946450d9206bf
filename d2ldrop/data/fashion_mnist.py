"""Fashion-MNIST, from this machine or from the network."""

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from d2ldrop.data.download import cache_folder, fetch, locate
from d2ldrop.data.idx import read_idx
from d2ldrop.data.modules import ImageData, Split, same_length
from d2ldrop.hyperparameters import positive


class FashionMNIST(ImageData):
    """Fashion-MNIST: 60,000 training and 10,000 validation images of clothes, 28x28 pixels, in ten classes.

    Its files are looked for in `root`, in the folder named by `$D2LDROP_DATA`, and in the user's cache folder, into
    which they are downloaded otherwise.

    Parameters
    ----------
    batch_size
        The number of samples in a batch.
    resize
        Height and width, or one number for both; other sizes than (28, 28) are interpolated when the data are read.
    root
        A folder with the four files as published.
    num_workers
        For compatibility with the book; without effect.

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
        train, val = (same_length(split) for split in splits)
        self._fill(train, val, batch_size, self.CLASSES)

    @classmethod
    def locate(cls, root: str | os.PathLike[str] | None = None) -> Path | None:
        """Return the folder on this machine that holds the files, or None."""
        return locate(tuple(cls.SHA256), root)


def _resized(images: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Interpolate images (N, H, W) of uint8 to another height and width, bilinearly."""
    if isinstance(size, int):
        size = (size, size)
    height, width = (positive("resize", side) for side in size)
    if images.shape[1:] == (height, width):
        return images
    from PIL import Image

    resized = np.empty((len(images), height, width), np.uint8)
    for image, target in zip(images, resized, strict=True):
        target[:] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return resized

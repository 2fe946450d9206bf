"""Fashion-MNIST, from this machine or from the network."""

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from d2ldrop.data.download import fetch
from d2ldrop.data.idx import read_idx
from d2ldrop.data.local import Published, check, find, keras_folder, lacks, locate, places
from d2ldrop.data.modules import ImageData, Split, same_length
from d2ldrop.hyperparameters import positive

__all__ = ["FashionMNIST"]


class FashionMNIST(ImageData):
    """Fashion-MNIST: 60,000 training and 10,000 validation images of clothes, 28x28 pixels, in ten classes.

    Its files are looked for in `root`; without `root`, in the folder named by `$D2LDROP_DATA`, in the user's cache
    folder, and in that of Keras. They may be gzipped, as published, or unpacked, in that folder or, as torchvision lays
    them out, in `FashionMNIST/raw` below it. Those that are missing are downloaded, into `root` or the cache folder.
    The SHA-256 of what is found is checked when it is first used.

    Parameters
    ----------
    batch_size
        The number of samples in a batch.
    resize
        Height and width, or one number for both; other sizes than (28, 28) are interpolated when the data are read.
    root
        The folder of the data set's four files, looked for and downloaded there and nowhere else.
    num_workers
        For compatibility with the book; without effect.

    Raises
    ------
    ArgumentTypeError
        If `root` is no path.
    DataNotFoundError
        If the files are neither there nor can be downloaded.
    DataError
        If a file is damaged, or another data set's.

    Notes
    -----
    Batches are float32 in [0, 1], (N, 1, H, W) or (N, H, W, 1) as the framework has it; labels are integers.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms, arXiv:1708.07747 (2017).
    """

    FILES: ClassVar = {
        "train-images-idx3-ubyte.gz": Published(
            26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": Published(
            29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
        ),
        "t10k-images-idx3-ubyte.gz": Published(
            4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": Published(
            5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
        ),
    }
    UNPACKED: ClassVar = {
        "train-images-idx3-ubyte": Published(
            47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": Published(
            60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": Published(
            7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": Published(10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
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
        self.folder = self.locate(root) or self._fetch(root)
        splits = (
            Split(
                _resized(self._read(f"{part}-images-idx3-ubyte", ndim=3), resize),
                self._read(f"{part}-labels-idx1-ubyte", ndim=1).astype(np.int64),
            )
            for part in ("train", "t10k")
        )
        train, val = (same_length(split) for split in splits)
        self._fill(train, val, batch_size, self.CLASSES)

    @classmethod
    def locate(cls, root: str | os.PathLike[str] | None = None) -> Path | None:
        """Return the folder on this machine that holds the files, or None. Their content is not looked at."""
        return locate(cls.UNPACKED, cls._folders(root))

    @classmethod
    def _folders(cls, root: str | os.PathLike[str] | None) -> list[Path]:
        """Return the folders to look in, best first."""
        folders = [folder for place in places(root) for folder in (place, place / "FashionMNIST" / "raw")]
        return folders if root is not None else [*folders, keras_folder("fashion-mnist")]

    @classmethod
    def _fetch(cls, root: str | os.PathLike[str] | None) -> Path:
        """Download the files that `root`, or else the cache folder, lacks; return that folder."""
        folder = places(root)[-1]
        present = find(cls.UNPACKED, folder)
        missing = {name: file for name, file in cls.FILES.items() if name.removesuffix(".gz") not in present}
        looked = [lacks(cls.UNPACKED, each) for each in cls._folders(root)]
        return fetch(missing, cls.MIRRORS, folder, looked)

    def _read(self, part: str, ndim: int) -> np.ndarray:
        """Read a file of the folder that was found, after its hash was checked."""
        path = find([part], self.folder).get(part, self.folder / f"{part}.gz")
        check(path, (self.FILES | self.UNPACKED)[path.name])
        return read_idx(path, ndim)


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

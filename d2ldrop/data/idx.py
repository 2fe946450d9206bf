"""Files in the IDX format, in which MNIST and data sets like it are published."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from d2ldrop.errors import D2LDropError, DataError, DataNotFoundError

__all__ = ["MAX_RATIO", "read_idx"]

MAX_RATIO = 1032
"""How many bytes a byte of a gzip file can stand for at most."""


def read_idx(path: str | os.PathLike[str], ndim: int, limit: int = 2**30) -> np.ndarray:
    """Read an array of bytes from a file in the IDX format, gzipped or not.

    Parameters
    ----------
    path
        The file.
    ndim
        The number of axes it must have.
    limit
        The number of elements it may have. What the file's first bytes announce is compared with this, and with the
        file's size, before memory is taken.

    Returns
    -------
    numpy.ndarray
        uint8

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    DataError
        If the file is not what it should be; the message names it.

    Notes
    -----
    Two zero bytes, the code of the element type (8: unsigned byte), the number of axes, then each axis' length as a
    big-endian 32-bit integer, then the elements. Source: LeCun, Cortes and Burges, The MNIST database.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for a writer
            raise DataError(f"Expected {path} to be a file. Received a folder, a pipe or a device.")
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if not zipped:
                return _read(file, Path(path), ndim, min(limit, size))
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read(unzipped, Path(path), ndim, min(limit, size * MAX_RATIO))  # type: ignore[arg-type]
    except D2LDropError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataNotFoundError(f"Expected {path} to be a file. Received: {error.strerror}") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"Expected {path} to be a whole IDX file that can be read. Received: {error}") from error


def _read(file: BinaryIO, path: Path, ndim: int, limit: int) -> np.ndarray:
    """Read an array of at most `limit` elements from an open file."""
    header = file.read(4 + 4 * ndim)
    if header[:4] != bytes((0, 0, 8, ndim)) or len(header) < 4 + 4 * ndim:
        raise DataError(
            f"Expected {path} to be an IDX file of bytes with {ndim} axes, gzipped or not. Received one that begins "
            f"with {header[:4].hex(' ') or 'nothing'}."
        )
    shape = tuple(int(n) for n in np.frombuffer(header, ">i4", offset=4))
    count = math.prod(shape)
    if min(shape) < 0 or count > limit:
        raise DataError(f"Expected {path} to hold at most {limit} elements. Received: an announced shape of {shape}")
    elements = np.empty(count, np.uint8)
    received = 0
    for start in range(0, count, 2**20):  # in pieces, as gzip's readinto makes a copy of what is asked for
        received += file.readinto(elements.data[start : start + 2**20])  # type: ignore[attr-defined]
    if received < count or file.read(1):
        raise DataError(
            f"Expected {path} to hold {count} elements, shape {shape}. Received: "
            f"{received if received < count else 'more'}"
        )
    return elements.reshape(shape)

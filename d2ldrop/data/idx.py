"""Files in the IDX format, in which MNIST and data sets like it are published."""

import gzip
import math
from pathlib import Path

import numpy as np

from d2ldrop.errors import DataError


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

"""Data sets in memory: Fashion-MNIST, scikit-learn's digits, and arrays of your own; images of other kinds."""

from d2ldrop.data.binding import data_classes
from d2ldrop.data.digits import Digits
from d2ldrop.data.fashion_mnist import FashionMNIST
from d2ldrop.data.foreign import foreign_images
from d2ldrop.data.idx import read_idx
from d2ldrop.data.modules import (
    ArrayData,
    BatchLoader,
    DataModule,
    ImageData,
    Split,
    as_floats,
    on_host,
    samples,
)

__all__ = [
    "ArrayData",
    "BatchLoader",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "ImageData",
    "Split",
    "as_floats",
    "data_classes",
    "foreign_images",
    "on_host",
    "read_idx",
    "samples",
]

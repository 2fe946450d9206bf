"""Data sets in memory: Fashion-MNIST, scikit-learn's digits, and arrays of your own."""

from d2ldrop.data.binding import data_classes
from d2ldrop.data.digits import Digits
from d2ldrop.data.fashion_mnist import FashionMNIST
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
    "on_host",
    "read_idx",
    "samples",
]

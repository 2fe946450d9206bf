"""Data sets in memory: Fashion-MNIST, scikit-learn's digits, your own arrays and tables; loaders; foreign images."""

from d2ldrop.data.binding import data_classes
from d2ldrop.data.csv_data import CSVData
from d2ldrop.data.digits import Digits
from d2ldrop.data.fashion_mnist import FashionMNIST
from d2ldrop.data.foreign import foreign_images
from d2ldrop.data.idx import read_idx
from d2ldrop.data.loaders import batches_in, loader_data
from d2ldrop.data.modules import (
    ArrayData,
    BatchLoader,
    DataModule,
    ImageData,
    Split,
    as_floats,
    as_labels,
    on_host,
    samples,
)
from d2ldrop.data.on_disk import chunks
from d2ldrop.data.synthetic import SyntheticRegressionData, linear_samples
from d2ldrop.data.tables import TablePreparation, read_table

__all__ = [
    "ArrayData",
    "BatchLoader",
    "CSVData",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "ImageData",
    "Split",
    "SyntheticRegressionData",
    "TablePreparation",
    "as_floats",
    "as_labels",
    "batches_in",
    "chunks",
    "data_classes",
    "foreign_images",
    "linear_samples",
    "loader_data",
    "on_host",
    "read_idx",
    "read_table",
    "samples",
]

"""The data classes of each backend: the same data, with loaders that yield that framework's arrays."""

from typing import Any

from d2ldrop.data.digits import Digits
from d2ldrop.data.fashion_mnist import FashionMNIST
from d2ldrop.data.modules import ArrayData, DataModule
from d2ldrop.data.synthetic import SyntheticRegressionData

__all__ = ["data_classes"]


def data_classes(
    backend_name: str, module: str
) -> tuple[type[DataModule], type[ArrayData], type[Digits], type[FashionMNIST], type[SyntheticRegressionData]]:
    """Return `DataModule`, `ArrayData`, `Digits`, `FashionMNIST` and `SyntheticRegressionData` for a backend.

    Parameters
    ----------
    backend_name
        The name under which the backend is registered.
    module
        The module that will hold the classes under these names.
    """
    base: type[DataModule] = type("DataModule", (DataModule,), {"backend_name": backend_name, "__module__": module})

    def bound(kind: type[Any]) -> Any:
        return type(kind.__name__, (base, kind), {"__module__": module, "__doc__": kind.__doc__})

    base.__doc__ = DataModule.__doc__
    return base, bound(ArrayData), bound(Digits), bound(FashionMNIST), bound(SyntheticRegressionData)

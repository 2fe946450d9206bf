"""A sixth backend, registered from outside: its arrays are a subclass of NumPy's, and are not taken for NumPy's."""

import numpy as np

from d2ldrop import numpy as by_hand
from d2ldrop.backend import by_name
from d2ldrop.data import data_classes
from d2ldrop.functional import load_fashion_mnist_for
from d2ldrop.numpy.backend import NumpyBackend
from d2ldrop.registry import register_backend

globals().update({name: getattr(by_hand, name) for name in by_hand.__all__})  # a reader's names, but for those below


class ToyArray(np.ndarray):
    """An array of the toy framework."""


def is_array(X):
    """Return True if `X` is an array of this framework."""
    return isinstance(X, ToyArray)


def array(X, device=None):
    """Return `X` as an array of this framework."""
    return np.asarray(X).view(ToyArray)


def dropout_layer(X, dropout, **options):
    """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`."""
    Y = by_hand.dropout_layer(X, dropout, **options)
    return X if np.shares_memory(X, Y) else array(Y)


class Module(by_hand.Module):
    """Base of models."""

    backend_name = "toy"


class Classifier(by_hand.Classifier, Module):
    """Base of classification models."""


class SoftmaxRegression(by_hand.SoftmaxRegression, Classifier):
    """The linear baseline."""


class DropoutMLPScratch(by_hand.DropoutMLPScratch, Classifier):
    """The chapter's model."""


class DropoutMLP(by_hand.DropoutMLP, Classifier):
    """The chapter's model from layers."""


class Regressor(by_hand.Regressor, Module):
    """Base of regression models."""


class DropoutMLPRegressor(by_hand.DropoutMLPRegressor, Regressor):
    """The network for real numbers."""


class ToyBackend(NumpyBackend):
    """NumPy under another name, with arrays of its own."""

    name = "toy"
    models = by_name(DropoutMLPScratch, DropoutMLP, DropoutMLPRegressor, SoftmaxRegression)
    is_array, array, dropout_layer = staticmethod(is_array), staticmethod(array), staticmethod(dropout_layer)


backend = ToyBackend()
name, get_weights, set_weights = backend.name, backend.get_weights, backend.set_weights
learn, outputs = backend.learn, backend.outputs
DataModule, ArrayData, Digits, FashionMNIST, SyntheticRegressionData = data_classes(name, __name__)
load_data_fashion_mnist = load_fashion_mnist_for(FashionMNIST)

register_backend("toy", package="numpy", module=__name__)

"""The interface between shared code and adapters: what is loaded when, how a backend is found, what it has."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from crossings import trace

import d2ldrop
from d2ldrop.backend import Backend
from d2ldrop.registry import backend_of, register_backend, registered


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_loads_no_framework_and_no_matplotlib():
    heavy = {
        "torch",
        "tensorflow",
        "keras",
        "jax",
        "flax",
        "optax",
        "mxnet",
        "matplotlib",
        "sklearn",
        "rich",
        "safetensors",
    }
    loaded = run("import sys, d2ldrop; d2ldrop.available(); print(*sys.modules)").split()
    assert not heavy & {name.partition(".")[0] for name in loaded if name.partition(".")[0] != "d2ldrop"}


def test_dropout_of_one_framework_loads_no_other():
    code = "import sys, numpy, d2ldrop; d2ldrop.dropout_layer(numpy.ones(3), 0.5); print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run(code).split()}
    assert not loaded & {"torch", "tensorflow", "jax", "mxnet"}


def test_an_adapter_has_a_backend_of_its_name(d2l):
    assert isinstance(d2l.backend, Backend)
    assert d2ldrop.backend(d2l.name) is d2l
    assert d2l.backend.name == d2l.name
    assert d2l.name in d2ldrop.available()
    assert set(d2l.backend.models) == {"DropoutMLPScratch", "DropoutMLP", "DropoutMLPRegressor", "SoftmaxRegression"}
    for name, kind in d2l.backend.models.items():
        assert getattr(d2l, name) is kind


def test_a_backend_implements_every_abstract_member(d2l):
    kind = type(d2l.backend)
    assert not kind.__abstractmethods__
    for name in Backend.__abstractmethods__:
        assert inspect.getattr_static(kind, name) is not inspect.getattr_static(Backend, name), name
    for name in Backend.__annotations__:
        assert hasattr(d2l.backend, name), name


def test_an_adapter_has_every_name_of_the_book(d2l):
    """The same names in all adapters, as `__all__` lists them; `import *` and completion depend on it."""
    shared = {*d2ldrop.backend("numpy").__all__} - {
        "CrossEntropyLoss", "Dropout", "Flatten", "Layer", "Linear", "ReLU", "Sequential", "affine", "affine_backward",
        "affine_gradients", "cross_entropy", "cross_entropy_backward", "dropout_mask", "masked", "relu",
        "relu_backward", "softmax", "Parameter", "Adam", "AdamW",
    }  # fmt: skip
    assert not {name for name in shared if not hasattr(d2l, name)}
    listed = getattr(d2l, "__all__", shared)
    assert not shared - {*listed}
    assert len(listed) == len({*listed})


def test_backend_rejects_unknown_names():
    with pytest.raises(d2ldrop.BackendError, match=r"Expected a backend among .*numpy.*Received: 'theano'"):
        d2ldrop.backend("theano")


@pytest.fixture
def registry():
    """Let a test register backends; they are forgotten when it ends."""
    from d2ldrop import registry as module

    tables = (module._registry, module._backend_of_type)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.mark.usefixtures("registry")
def test_backend_names_the_extra_of_a_missing_framework():
    register_backend("theano", package="a_package_that_is_not_there", module="nothing")
    assert "theano" in registered()
    assert "theano" not in d2ldrop.available()
    with pytest.raises(ImportError, match=r"pip install '.\[theano\]'"):
        d2ldrop.backend("theano")


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
try:
    {statement}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("statement", "package", "extra"),
    [
        ("from d2ldrop import torch as d2l", "torch", "torch"),
        ("import d2ldrop.torch", "torch", "torch"),
        ("from d2ldrop import tensorflow as d2l", "tensorflow", "tf"),
        ("from d2ldrop import jax as d2l", "jax", "jax"),
        ("from d2ldrop import mxnet as d2l", "mxnet", "mxnet"),
    ],
)
def test_an_import_names_the_extra_of_a_missing_framework(statement, package, extra):
    code = WITHOUT.format(statement=statement, package=package)
    assert run(code) == (
        f"The backend {extra!r} needs the package {package!r}, which is not installed. "
        f"Install it with: pip install '.[{extra}]' in a checkout of d2ldrop\n"
    )


def test_backend_of_finds_the_backend_of_an_array(d2l):
    X = d2l.array(np.ones((2, 3), np.float32))
    assert backend_of(X) is d2l.backend
    assert d2l.is_array(d2ldrop.dropout_layer(X, 0.5))


@pytest.mark.parametrize("X", [[1.0, 2.0], "text", None, 3.0])
def test_dropout_layer_rejects_non_arrays(X):
    with pytest.raises(TypeError, match="Expected an array of one of the frameworks"):
        d2ldrop.dropout_layer(X, 0.5)


def test_every_error_is_a_d2ldrop_error_and_a_builtin_one():
    errors = [getattr(d2ldrop, name) for name in d2ldrop.__all__ if name.endswith("Error")]
    for error in errors:
        assert issubclass(error, d2ldrop.D2LDropError)
        builtin = (ValueError, TypeError, ImportError, FileNotFoundError, RuntimeError, ArithmeticError)
        assert error is d2ldrop.D2LDropError or issubclass(error, builtin)


def test_devices(d2l):
    assert d2l.try_gpu(10_000) == d2l.cpu()
    assert len(d2l.try_all_gpus()) == max(1, d2l.num_gpus())
    if d2l.num_gpus() == 0:
        assert d2l.try_all_gpus() == [d2l.cpu()]
    if d2l.num_gpus() > 1:
        assert d2l.gpu(1) != d2l.gpu(0)


def test_array_vocabulary_of_the_book(d2l):
    X = d2l.reshape(d2l.arange(6), (2, 3))
    assert d2l.size(X) == 6
    assert d2l.numpy(d2l.argmax(X, 1)).tolist() == [2, 2]
    assert float(d2l.reduce_sum(d2l.astype(X, d2l.float32))) == 15
    assert float(d2l.reduce_mean(d2l.astype(X, d2l.float32))) == 2.5
    assert d2l.numpy(d2l.matmul(d2l.ones((2, 3)), d2l.zeros((3, 2)))).tolist() == [[0, 0], [0, 0]]
    assert float(d2l.exp(d2l.zeros((1,)))[0]) == 1
    assert d2l.to(X, d2l.cpu()).shape == X.shape
    assert tuple(d2l.normal(0.0, 1.0, (4, 5)).shape) == (4, 5)
    assert d2l.int32 != d2l.float32
    names = "rand randn zeros_like ones_like concat stack transpose expand_dims tensor eye log tanh linspace"
    assert not [name for name in names.split() if not hasattr(d2l, name)]


@pytest.mark.only_torch
@pytest.mark.only_jax
def test_shared_code_and_adapters_rarely_call_each_other(d2l):
    """They do so to build, to train, to evaluate, for randomness, and to call methods that a reader may override.

    And to copy the weights at the start and after the epoch, a call for each of six parameters and three more; and for
    the shape of two masks. In each of three forward passes the model asks for its hidden layers and its last one, and
    in each of two losses whether classes have weights; and the optimiser is looked up once.
    """
    crossings, _ = trace(d2l.name)
    assert crossings["shared to adapter"] <= 18 + 2 * 9
    own = 12 if d2l.name == "torch" else 26  # each copy of a JAX model is checked
    assert crossings["adapter to shared"] <= own + 3 * 2 + 2

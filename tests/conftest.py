"""Fixtures: `d2l` is each installed adapter; the markers of a test say for which it runs."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import d2ldrop
from d2ldrop.data import FashionMNIST
from d2ldrop.registry import registered

sys.path.insert(0, str(Path(__file__).parent))  # for `backends` and `helpers`

importlib.import_module("toy_backend")  # a sixth backend, which registers itself, passes all tests as well

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

# Doctests are looked for in all files, and these need packages that only their own sessions have.
collect_ignore = [
    "backends",
    "browser.py",
    "crossings.py",
    "estimator_report.py",
    "fuzz.py",
    "helpers.py",
    "kills.py",
    "memory.py",
    "mutants.py",
    "notebooks.py",
    "toy_backend",
    "watching.py",
]
collect_ignore_glob = ["neighbours_*.py"]  # each needs its framework

os.environ.setdefault("D2LDROP_JAX_CACHE", "0")  # tests leave the user's cache folder alone

# Where an environment is made to hold certain backends, it names them: then a missing one is an error, not a gap.
BACKENDS = os.environ["D2LDROP_BACKENDS"].split(",") if "D2LDROP_BACKENDS" in os.environ else d2ldrop.available()
BACKENDS = tuple(dict.fromkeys([*BACKENDS, "toy"]))


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers that say for which backends a test with the fixture `d2l` runs."""
    for name in registered():
        config.addinivalue_line("markers", f"only_{name}: run for {name} (and others so marked) alone")
        config.addinivalue_line("markers", f"skip_{name}: leave {name} out")
        config.addinivalue_line("markers", f"fail_{name}: expected to fail for {name}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the fixture `d2l` once per backend, as its markers allow; with `other`, once per pair."""
    if "other" in metafunc.fixturenames:
        metafunc.parametrize("other", BACKENDS, indirect=True)
    if "d2l" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    some = any(f"only_{name}" in marks for name in registered())
    params = [
        pytest.param(name, id=name, marks=[pytest.mark.xfail(strict=True)] if f"fail_{name}" in marks else [])
        for name in BACKENDS
        if f"skip_{name}" not in marks and (not some or f"only_{name}" in marks)
    ]
    metafunc.parametrize("d2l", params, indirect=True)


@pytest.fixture
def d2l(request: pytest.FixtureRequest) -> Any:
    """Return an adapter."""
    adapter = d2ldrop.backend(request.param)
    if request.node.get_closest_marker("gpu") and not adapter.num_gpus():
        pytest.skip(f"{adapter.name} sees no GPU here")
    return adapter


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Any:
    """Return a second adapter."""
    return d2ldrop.backend(request.param)


@pytest.fixture
def own(d2l: Any) -> Any:
    """Return what tests say in the terms of the adapter's framework."""
    return importlib.import_module(f"backends.{d2l.name}")


@pytest.fixture(scope="session")
def fashion_mnist() -> Path:
    """Return the folder with the real Fashion-MNIST."""
    folder = FashionMNIST.locate()
    if folder is None and os.environ.get("CI"):
        pytest.fail("Fashion-MNIST is missing. Expected its files in the folder that $D2LDROP_DATA names.")
    if folder is None:
        pytest.skip("Fashion-MNIST is not on this machine: `d2ldrop train` fetches it, or set $D2LDROP_DATA")
    return folder


@pytest.fixture
def hparams() -> dict[str, Any]:
    """Return the chapter's hyperparameters."""
    return {
        "num_outputs": 10,
        "num_hiddens_1": 256,
        "num_hiddens_2": 256,
        "dropout_1": 0.5,
        "dropout_2": 0.5,
        "lr": 0.1,
    }


@pytest.fixture
def small() -> dict[str, Any]:
    """Return hyperparameters of a small model."""
    return {
        "num_outputs": 10,
        "num_hiddens_1": 32,
        "num_hiddens_2": 16,
        "dropout_1": 0.25,
        "dropout_2": 0.5,
        "lr": 0.5,
    }


@pytest.fixture
def saved(small: dict[str, Any], tmp_path: Path) -> tuple[Path, Any]:
    """Return a file of weights that NumPy wrote, and the outputs of its model for five images."""
    helpers, by_hand = importlib.import_module("helpers"), d2ldrop.backend("numpy")
    model = helpers.built(by_hand, small)
    d2ldrop.save_weights(model, tmp_path / "w.safetensors", data="digits")
    return tmp_path / "w.safetensors", helpers.predicted(by_hand, model)


@pytest.fixture(params=["dropout_layer", "Dropout"])
def form(request: pytest.FixtureRequest) -> Any:
    """Return dropout in JAX as a function of (X, key), by itself and as a layer of Flax."""
    return importlib.import_module("dropping_jax").FORMS[request.param]


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Make what each test draws the same each time."""
    if "d2l" in request.fixturenames:
        request.getfixturevalue("d2l").seed(0)


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    """Leave no figure open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

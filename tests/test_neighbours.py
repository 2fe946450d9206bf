"""The chapters that lead to dropout, section by section, as their reader writes them, in each framework.

`neighbours_<name>.py` has a function of `d2l` for each section in a dictionary `SECTIONS`, whose keys are those below.
"""

import importlib

import numpy as np
import pytest

from d2ldrop.data import FashionMNIST

WITHOUT_IMAGES = "oo_design synthetic_data linear_scratch linear_concise weight_decay stability k_fold".split()
WITH_IMAGES = "image_data base_classifier softmax_scratch softmax_concise mlp_scratch mlp_concise".split()


@pytest.fixture(scope="session")
def few_images(fashion_mnist):
    """Return the first samples of Fashion-MNIST's files, by the names of these."""
    data = FashionMNIST(root=fashion_mnist)
    parts = {"train": data.split(True, False), "t10k": data.split(False, False)}
    counts = {"train": 2000, "t10k": 500}
    images = {f"{part}-images-idx3-ubyte": split.X[: counts[part], 0].copy() for part, split in parts.items()}
    return images | {f"{part}-labels-idx1-ubyte": split.y[: counts[part]].copy() for part, split in parts.items()}


BY_HAND = ["linear_scratch", "linear_concise", "weight_decay", "k_fold"]


def run(d2l, section):
    """Call what the framework's file has for a section, which asserts what a reader would see."""
    sections = importlib.import_module(f"neighbours_{d2l.name}").SECTIONS
    assert set(sections) == set(BY_HAND if d2l.name == "numpy" else [*WITHOUT_IMAGES, *WITH_IMAGES])
    sections[section](d2l)


@pytest.mark.skip_toy
@pytest.mark.skip_numpy
@pytest.mark.parametrize("section", WITHOUT_IMAGES)
def test_section_runs(d2l, section):
    run(d2l, section)


@pytest.mark.only_numpy
@pytest.mark.parametrize("section", BY_HAND)
def test_section_runs_by_hand(d2l, section):
    run(d2l, section)


@pytest.mark.skip_toy
@pytest.mark.skip_numpy
@pytest.mark.parametrize("section", WITH_IMAGES)
def test_section_on_images_runs(d2l, section, few_images, monkeypatch):
    """`d2l.FashionMNIST` has 2,000 images to train on, and 500 to validate on."""
    monkeypatch.setattr(FashionMNIST, "_read", lambda self, part, ndim: few_images[part])
    data = d2l.FashionMNIST(batch_size=256)
    assert len(data.train_dataloader()) == 8
    assert {int(label) for label in np.unique(few_images["t10k-labels-idx1-ubyte"])} == set(range(10))
    run(d2l, section)

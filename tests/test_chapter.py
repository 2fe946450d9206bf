"""The chapter on the real data: ten epochs at its values reach its accuracy."""

import numpy as np
import pytest

import d2ldrop
from d2ldrop import compare


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_ten_epochs_at_the_chapter_s_values(d2l, kind, hparams, fashion_mnist):
    trainer = d2ldrop.Trainer(10, seed=0, progress=False)
    trainer.fit(getattr(d2l, kind)(**hparams), d2l.FashionMNIST(batch_size=256, root=fashion_mnist))
    assert trainer.history[-1]["val_acc"] >= 0.83


def test_the_older_edition_s_values(d2l, hparams, fashion_mnist):
    trainer = d2ldrop.Trainer(10, seed=0, progress=False)
    model = d2l.DropoutMLPScratch(**{**hparams, "dropout_1": 0.2, "lr": 0.5})
    trainer.fit(model, d2l.FashionMNIST(batch_size=256, root=fashion_mnist))
    assert max(row["val_acc"] for row in trainer.history) >= 0.855


def test_the_same_seed_gives_the_same_curve_everywhere(d2l, fashion_mnist, monkeypatch):
    """With shared masks each framework follows NumPy's losses step by step, for an epoch of the real thing.

    Rounding moves them 2e-7 apart, until some activation that is zero up to rounding gets another sign: that changes a
    gradient, and from there on the curves part, slowly. Which step that is differs from machine to machine.
    """
    monkeypatch.setenv("D2LDROP_DATA", str(fashion_mnist))
    oracle, mine = (
        compare.run(name, "DropoutMLPScratch", "FashionMNIST", epochs=1, seed=0, shared_masks=True)
        for name in ("numpy", d2l.name)
    )
    apart = np.abs(mine.losses / oracle.losses - 1)
    assert len(apart) == 235
    assert np.median(apart[:20]) < 1e-6
    assert apart.max() < 5e-3
    assert mine.accuracy == pytest.approx(oracle.accuracy, abs=0.005)

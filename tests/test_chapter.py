"""The chapter on the real data: ten epochs at its values reach its accuracy."""

import pytest

import d2ldrop


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

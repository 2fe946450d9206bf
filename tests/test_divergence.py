"""Training that diverges, and training that is interrupted: what was learned before is kept, and belongs together."""

import numpy as np
import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import Callback, Trainer


class Weights(Callback):
    """Keeps the weights at the start and after each epoch."""

    def on_fit_start(self, trainer):
        self.kept = [trainer.backend.get_weights(trainer.model)]

    def on_epoch_end(self, trainer):
        self.kept.append(trainer.backend.get_weights(trainer.model))


def same(weights, others):
    return all(np.array_equal(value, others[name]) for name, value in weights.items())


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_divergence_is_an_error_and_the_weights_are_those_from_before(d2l, small, kind):
    seen = Weights()
    trainer, model = Trainer(3, seed=0, progress=False, callbacks=[seen]), getattr(d2l, kind)(**{**small, "lr": 1e9})
    with pytest.raises(d2ldrop.DivergedError, match=r"diverged in epoch 1.*learning rate 1e\+09.*gradient_clip_val"):
        trainer.fit(model, d2l.Digits())
    assert trainer.history == []
    assert same(d2l.get_weights(model), seen.kept[0])


def test_divergence_may_only_warn(d2l, small):
    with pytest.warns(UserWarning, match="Training diverged in epoch"):
        trainer, _ = fitted(d2l, {**small, "lr": 1e9}, epochs=2, on_divergence="warn")
    assert len(trainer.history) == 2
    with pytest.raises(d2ldrop.ArgumentError, match="on_divergence"):
        Trainer(1, on_divergence="ignore")


def test_weights_that_are_not_finite_are_found_where_the_loss_is(d2l, small):
    """ReLU makes 0 of nan in some frameworks, and the loss looks as usual."""

    class Break(Callback):
        def on_epoch_end(self, trainer):
            if trainer.epoch == 1:
                weights = trainer.backend.get_weights(trainer.model)
                weights["lin1.weight"][0, 0] = np.inf
                trainer.backend.set_weights(trainer.model, weights)

    seen = Weights()
    trainer, model = Trainer(4, seed=0, progress=False, callbacks=[seen, Break()]), d2l.DropoutMLPScratch(**small)
    with pytest.raises(d2ldrop.DivergedError, match="diverged in epoch 3"):
        trainer.fit(model, d2l.Digits())
    assert [row["epoch"] for row in trainer.history] == [1, 2]
    assert same(d2l.get_weights(model), seen.kept[2])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, d2ldrop.UsageError])
def test_after_an_interrupt_the_weights_are_those_of_the_last_row(d2l, small, error):
    class Interrupt(Callback):
        def on_refresh(self, trainer):
            if trainer.epoch == 1:
                raise error

    seen = Weights()
    trainer, model = Trainer(4, seed=0, progress=False, callbacks=[seen, Interrupt()]), d2l.DropoutMLPScratch(**small)
    with pytest.raises(error):
        trainer.fit(model, d2l.Digits())
    assert len(trainer.history) == 1
    assert same(d2l.get_weights(model), seen.kept[1])
    assert trainer.evaluate()["val_loss"] == pytest.approx(trainer.history[-1]["val_loss"], rel=1e-5)

"""Callbacks: when their hooks are called, and early stopping."""

import math
from types import SimpleNamespace

import pytest
from helpers import fitted

from d2ldrop import Callback, EarlyStopping


def test_callbacks_are_called_in_order(d2l, small):
    calls = []

    class Log(Callback):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                calls.append(name)
            return super().__getattribute__(name)

    fitted(d2l, small, callbacks=[Log()])
    assert calls == ["on_fit_start", "on_epoch_start", *["on_refresh"] * 3, "on_epoch_end", "on_fit_end"]


def stopped_at(values, **options):
    """Return after how many epochs early stopping ends a training with given values."""
    callback = EarlyStopping(**options)
    trainer = SimpleNamespace(history=[], should_stop=False)
    callback.on_fit_start(trainer)
    for value in values:
        trainer.history.append({callback.monitor: value})
        callback.on_epoch_end(trainer)
        if trainer.should_stop:
            break
    return len(trainer.history)


def test_early_stopping_ends_fit(d2l, small):
    trainer, _ = fitted(d2l, {**small, "lr": 1e-12}, epochs=20, callbacks=[EarlyStopping("val_acc", patience=2)])
    assert len(trainer.history) == 3
    trainer.fit(d2l.DropoutMLPScratch(**{**small, "lr": 1e-12}), d2l.Digits())
    assert len(trainer.history) == 3
    with pytest.raises(ValueError, match=r"Expected a number among .*val_loss.*Received: 'nothing'"):
        fitted(d2l, small, callbacks=[EarlyStopping("nothing")])


def test_early_stopping_waits_for_an_improvement():
    assert stopped_at([5, 4, 3, 2, 1, 0], monitor="val_loss", patience=2) == 6
    assert stopped_at([0, 1, 2, 3, 4, 5], monitor="val_loss", patience=2) == 3
    assert stopped_at([0, 1, 2, 3, 4, 5], monitor="val_acc", patience=2) == 6
    assert stopped_at([5, 4, 3, 2, 1, 0], monitor="val_acc", patience=2) == 3
    assert stopped_at([5, 6, 4, 5, 5, 5], monitor="val_loss", patience=2) == 5
    assert stopped_at([5, 1, 4, 3, 2, 1.5], monitor="val_loss", patience=3) == 5  # 3 is no improvement on 1


def test_early_stopping_counts_only_changes_above_min_delta():
    assert stopped_at([1.0, 0.9, 0.8, 0.7], monitor="val_loss", patience=1, min_delta=0.05) == 4
    assert stopped_at([1.0, 0.9, 0.8, 0.7], monitor="val_loss", patience=1, min_delta=0.2) == 2
    assert stopped_at([0.1, 0.2, 0.3], monitor="val_acc", patience=1, min_delta=0.2) == 2


def test_on_fit_end_runs_after_an_error(d2l, small):
    ended = []

    class Break(Callback):
        def on_epoch_end(self, trainer):
            raise KeyboardInterrupt

        def on_fit_end(self, trainer):
            ended.append(len(trainer.history))

    with pytest.raises(KeyboardInterrupt):
        fitted(d2l, small, epochs=5, callbacks=[Break()])
    assert ended == [1]


@pytest.mark.parametrize("hook", ["on_fit_start", "on_epoch_start", "on_epoch_end"])
def test_training_continues_from_weights_set_in_a_callback(d2l, small, hook):
    """All outputs of a model without weights are 0, so that its loss is log 10, with any mask."""

    def reset(trainer):
        d2l.set_weights(trainer.model, {name: 0 * w for name, w in d2l.get_weights(trainer.model).items()})

    callback = Callback()
    setattr(callback, hook, reset)
    trainer, _ = fitted(d2l, {**small, "lr": 1e-12}, epochs=2, callbacks=[callback])
    assert trainer.history[1]["train_loss"] == pytest.approx(math.log(10), rel=1e-5)
    plain, _ = fitted(d2l, {**small, "lr": 1e-12}, epochs=2)
    assert plain.history[1]["train_loss"] != pytest.approx(math.log(10), rel=1e-4)


def test_weights_set_in_a_callback_stay(d2l, small):
    """Also those that are set after the last step of an epoch."""

    class Reset(Callback):
        def on_refresh(self, trainer):
            if "val_loss" in trainer.epoch_log.means():
                d2l.set_weights(trainer.model, {name: 0 * w for name, w in d2l.get_weights(trainer.model).items()})

    trainer, model = fitted(d2l, small, callbacks=[Reset()])
    assert not any(value.any() for value in d2l.get_weights(model).values())
    assert trainer.evaluate()["val_loss"] == pytest.approx(math.log(10), rel=1e-5)

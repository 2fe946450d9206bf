"""Evaluation and prediction: what they return, and that they leave a training as it is."""

import numpy as np
import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import Callback, Trainer


def test_predict_and_evaluate(d2l, small):
    trainer, model = fitted(d2l, small, epochs=2)
    data = d2l.Digits()
    X, y = data.split(train=False, channels_last=d2l.channels_last)
    logits = trainer.predict(X)
    assert logits.shape == (360, 10)
    assert logits.dtype == np.float32
    assert trainer.evaluate()["val_acc"] == pytest.approx((logits.argmax(axis=1) == y).mean(), abs=1e-6)
    assert trainer.evaluate(model, data) == pytest.approx(trainer.evaluate())
    np.testing.assert_array_equal(logits, trainer.predict(d2l.array(X)))
    for early in (lambda: Trainer(1).predict(X), lambda: Trainer(1).evaluate()):
        with pytest.raises(d2ldrop.UsageError, match="Expected a model"):
            early()


@pytest.mark.parametrize("what", ["other data", "another model", "predictions"])
def test_evaluation_in_a_callback_changes_nothing_of_a_training(d2l, small, what):
    class Evaluate(Callback):
        def __init__(self):
            self.other = d2l.SoftmaxRegression(num_outputs=10, lr=0.1)
            X, y = d2l.Digits().split(False, d2l.channels_last)
            self.X, self.data = X[:20], d2l.ArrayData(X[:50], y[:50], X[50:90], y[50:90], batch_size=10)
            Trainer(1, seed=1, progress=False).fit(self.other, d2l.Digits())

        def on_epoch_end(self, trainer):
            if what == "other data":
                trainer.evaluate(data=self.data)
            elif what == "another model":
                trainer.evaluate(self.other)
            else:
                trainer.predict(self.X)
                trainer.predict(self.X, self.other)

    evaluate = Evaluate()
    plain, expected = fitted(d2l, small, epochs=3)
    trainer, model = fitted(d2l, small, epochs=3, callbacks=[evaluate])
    assert trainer.model is model
    for row, same in zip(trainer.history, plain.history, strict=True):
        assert {key: row[key] for key in ("train_loss", "val_loss")} == {
            key: same[key] for key in ("train_loss", "val_loss")
        }
    for name, value in d2l.get_weights(expected).items():
        np.testing.assert_array_equal(d2l.get_weights(model)[name], value)


def test_evaluation_draws_from_no_generator(d2l, small):
    trainer, _ = fitted(d2l, small)
    X = d2l.Digits().split(False, d2l.channels_last).X
    masks = []
    for evaluate in (lambda: None, trainer.evaluate, lambda: trainer.predict(X)):
        d2l.seed(3)
        evaluate()
        masks.append(d2l.numpy(d2l.dropout_layer(d2l.ones((50, 50)), 0.5)))
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_evaluation_needs_no_optimiser(d2l):
    class Model(d2l.SoftmaxRegression):
        def configure_optimizers(self):
            raise AssertionError("asked for an optimiser")

    assert set(Trainer(1).evaluate(Model(num_outputs=10, lr=0.1), d2l.Digits())) == {"val_loss", "val_acc"}


def test_predict_scales_pixels(d2l, small):
    trainer, _ = fitted(d2l, small)
    X = np.random.default_rng(0).integers(0, 256, d2l.Digits().split(True, d2l.channels_last).X[:9].shape, np.uint8)
    expected = trainer.predict((X / 255).astype(np.float32))
    np.testing.assert_allclose(trainer.predict(X), expected, rtol=1e-5, atol=1e-6)


def test_metrics_weigh_samples(d2l, small):
    """A last batch of one sample must not weigh as much as a whole one."""
    trainer, model = fitted(d2l, small)
    digits = d2l.Digits().split(train=False, channels_last=d2l.channels_last)
    data = d2l.ArrayData(digits.X[:10], digits.y[:10], digits.X[:129], digits.y[:129], batch_size=128)
    logits = np.asarray(d2l.numpy(d2l.backend.predict(model, d2l.array(digits.X[:129]))), np.float64)
    expected = (logits.argmax(axis=1) == digits.y[:129]).mean()
    assert trainer.evaluate(model, data)["val_acc"] == pytest.approx(expected, abs=1e-7)

    class Streamed(d2l.ArrayData):
        def val_dataloader(self):
            return list(super().val_dataloader())

    data = Streamed(digits.X[:10], digits.y[:10], digits.X[:129], digits.y[:129], batch_size=128)
    assert trainer.evaluate(model, data)["val_acc"] == pytest.approx(expected, abs=1e-7)


@pytest.mark.only_mxnet  # its CPU may have several names, which are devices like any others
def test_predictions_move_the_model_to_the_device_of_the_trainer(d2l, small, monkeypatch):
    _, model = fitted(d2l, small)
    X = d2l.Digits().split(False).X[:5]
    expected = d2ldrop.Trainer(1, progress=False).predict(X, model)
    monkeypatch.setattr(d2l.backend, "num_gpus", lambda: 1)
    monkeypatch.setattr(d2l.backend, "gpu", lambda i=0: pytest.importorskip("mxnet").cpu(1))
    received = d2ldrop.Trainer(1, 1, progress=False).predict(X, model)
    np.testing.assert_allclose(received, expected, rtol=1e-6)

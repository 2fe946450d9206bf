"""The chapter's models: dropout while they train and only then, losses, accuracy, optimisers, readers' own classes."""

import numpy as np
import pytest

import d2ldrop
from d2ldrop.training.callbacks import Callback

MODELS = ["DropoutMLPScratch", "DropoutMLP"]


def built(d2l, kind, hparams):
    model = getattr(d2l, kind)(**hparams)
    X = d2l.array(np.random.default_rng(0).random((8, 1, 4, 4), np.float32))
    assert d2l.backend.build(model, (X,), d2l.cpu())
    assert not d2l.backend.build(model, (X,), d2l.cpu())
    return model, X


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_are_random_in_training_and_only_there(d2l, own, kind, small):
    model, X = built(d2l, kind, small)
    own.set_mode(model, True)
    first, second = (d2l.numpy(model(X)) for _ in range(2))
    assert first.shape == (8, 10)
    assert (first != second).any()
    own.set_mode(model, False)
    np.testing.assert_array_equal(d2l.numpy(model(X)), d2l.numpy(model(X)))
    np.testing.assert_array_equal(d2l.numpy(model(X)), d2l.numpy(d2l.backend.predict(model, X)))


@pytest.mark.parametrize("kind", MODELS)
def test_fit_trains_under_dropout(d2l, kind, small):
    """With everything dropped, all outputs are the last bias and the first layers never learn."""
    data = d2l.Digits()
    model = getattr(d2l, kind)(**{**small, "dropout_1": 1.0, "dropout_2": 1.0})
    trainer = d2ldrop.Trainer(1, seed=0, progress=False)
    trainer.prepare_data(data)
    trainer.prepare_model(model)
    before = d2l.get_weights(model)
    trainer.fit(model, data)
    after = d2l.get_weights(model)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {"lin3.bias"}
    assert len(np.unique(trainer.predict(data.split(train=False, channels_last=d2l.channels_last).X), axis=0)) > 1


@pytest.mark.parametrize("kind", MODELS)
def test_masks_of_layers_and_steps_are_independent(d2l, kind):
    """A step on one sample changes only the weights that lead out of units which were kept: half of them, at random."""
    width, steps = 1000, 6
    Model = getattr(d2l, kind)
    model = Model(num_outputs=10, num_hiddens_1=width, num_hiddens_2=width, dropout_1=0.5, dropout_2=0.5, lr=0.1)
    model.plot_train_per_epoch = steps
    X, y = np.ones((steps, 16), np.float32), np.zeros(steps, np.int64)
    data = d2l.ArrayData(X, y, X, y, batch_size=1)
    masks = []

    class Look(Callback):
        def on_fit_start(self, trainer):  # from small positive weights, ReLU lets all units pass
            weights = d2l.get_weights(model)
            self.before = {name: 0.1 * abs(value) for name, value in weights.items()} | {
                "lin3.weight": weights["lin3.weight"]
            }
            d2l.set_weights(model, self.before)

        def on_refresh(self, trainer):
            after = d2l.get_weights(model)
            masks.append([(after[name] != self.before[name]).any(axis=0) for name in ("lin2.weight", "lin3.weight")])
            self.before = after

    trainer = d2ldrop.Trainer(1, seed=0, progress=False)
    trainer.prepare_data(data)
    trainer.prepare_model(model)
    trainer.callbacks = [Look()]
    trainer.fit(model, data)
    drawn = [mask for step in masks[:steps] for mask in step]
    assert len(drawn) == 2 * steps
    limit = 5 * 0.5 * width**0.5
    for k, mask in enumerate(drawn):
        assert abs(mask.sum() - width / 2) < limit
        for other in drawn[:k]:
            assert abs((mask == other).sum() - width / 2) < limit


def test_loss_and_accuracy(d2l, own, small):
    model, _ = built(d2l, "DropoutMLP", small)
    Y_hat = d2l.array(np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]], np.float32)))
    Y = d2l.array(np.array([0, 1, 2]))
    expected = -np.log([0.7, 0.1, 0.4])
    losses, loss = (own.losses_of(d2l, model, Y_hat, Y, averaged) for averaged in (False, True))
    np.testing.assert_allclose(d2l.numpy(losses), expected, rtol=1e-5)
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-5)
    assert d2l.numpy(model.accuracy(Y_hat, Y, averaged=False)).tolist() == [1, 0, 1]
    assert float(model.accuracy(Y_hat, Y)) == pytest.approx(2 / 3)


def test_hparams_hold_the_arguments(d2l, small):
    model = d2l.DropoutMLPScratch(**small)
    assert model.hparams == small
    assert model.dropout_2 == 0.5


def test_layer_summary(d2l, small, capsys):
    shape = (2, 4, 4, 1) if d2l.channels_last else (2, 1, 4, 4)
    d2l.DropoutMLP(**small).layer_summary(shape)
    lines = capsys.readouterr().out.splitlines()
    assert any("(2, 32)" in line for line in lines)
    assert "(2, 10)" in lines[-1]


def test_the_linear_baseline_learns(d2l):
    trainer = d2ldrop.Trainer(5, seed=0, progress=False)
    trainer.fit(d2l.SoftmaxRegression(num_outputs=10, lr=0.5), d2l.Digits())
    assert trainer.history[-1]["val_acc"] > 0.85


def test_sgd_agrees_with_the_framework(d2l, own):
    """The from-scratch optimiser, given to the trainer, does what the framework's own one does."""
    weights = []
    for by_hand_ in (False, True):

        class Model(d2l.SoftmaxRegression):
            by_hand = by_hand_

            def configure_optimizers(self):
                if not self.by_hand:
                    return super().configure_optimizers()
                return d2l.SGD(self.lr) if own.GRADIENTS_ARE_VALUES else d2l.SGD(self.parameters(), self.lr)

        model = Model(num_outputs=10, lr=0.2)
        d2ldrop.Trainer(1, seed=0, progress=False).fit(model, d2l.Digits())
        weights.append(d2l.get_weights(model))
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], rtol=1e-5, atol=1e-6)


def test_missing_methods_raise_usage_errors(d2l):
    class Bare(d2l.Module):
        pass

    for method in (lambda: Bare().loss(None, None), Bare().configure_optimizers, lambda: Bare().plot("a", 1, True)):
        with pytest.raises(d2ldrop.UsageError, match="Expected"):
            method()


@pytest.mark.only_numpy
def test_custom_layer_by_hand(d2l):
    class Scale(d2l.Layer):
        def forward(self, X):
            return 2 * X

        def backward(self, dY):
            return 2 * dY

    class Model(d2l.Classifier):
        def __init__(self, num_outputs, lr):
            self.save_hyperparameters()
            self.net = d2l.Sequential(d2l.Flatten(), Scale(), d2l.Linear(16), d2l.ReLU(), d2l.Linear(num_outputs))

    trainer = d2l.Trainer(max_epochs=5, seed=0, progress=False)
    trainer.fit(Model(num_outputs=10, lr=0.3), d2l.Digits())
    assert trainer.history[-1]["val_acc"] > 0.8

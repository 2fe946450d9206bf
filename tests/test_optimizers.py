"""Optimisers: what they do, that all backends do the same, and schedules of their learning rates."""

import functools
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import Callback, LRSchedule
from d2ldrop import numpy as by_hand

SETTINGS = {
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "lr": 0.005, "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.005, "weight_decay": 10.0},
}
THIRD = 479  # of the digits: where steps are compiled, one for the rest of the samples would take as long again
RATES = (1.0, 0.0, 0.2)  # of three epochs, in multiples of the first; without a step, memory goes on


def trained(d2l, small, settings, kind="DropoutMLPScratch"):
    """Return the loss of each step, and the weights, of a training with shared masks and a schedule."""
    model = getattr(d2l, kind)(**{**small, **settings, "lr": 1.0})  # the schedule sets another rate
    losses = []

    class Losses(Callback):
        def on_epoch_end(self, trainer):
            losses.extend(trainer.epoch_log["train_loss"][0])

    rates = LRSchedule(lambda epoch: settings["lr"] * RATES[epoch])
    trainer = d2l.Trainer(3, seed=0, shared_masks=True, callbacks=[rates, Losses()], progress=False)
    trainer.fit(model, d2l.Digits(batch_size=THIRD))
    return np.array(losses), d2l.get_weights(model)


@functools.cache
def by_the_oracle(name):
    """Return the same of NumPy."""
    small = {"num_outputs": 10, "num_hiddens_1": 32, "num_hiddens_2": 16, "dropout_1": 0.25, "dropout_2": 0.5}
    return trained(by_hand, small, SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_all_backends_take_the_same_steps(d2l, small, name):
    losses, weights = trained(d2l, small, SETTINGS[name])
    expected, its = by_the_oracle(name)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for key, value in its.items():
        np.testing.assert_allclose(weights[key], value, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_optimizers_by_hand_follow_pytorchs_formulas(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    settings = SETTINGS[name]
    layer = by_hand.Linear(4)
    layer.W, layer.b = rng.standard_normal((3, 4)), rng.standard_normal(4)
    twins = [torch.tensor(value, requires_grad=True) for value in (layer.W, layer.b)]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    other = kind(twins, **{key: value for key, value in settings.items() if key != "optimizer"})
    model = SimpleNamespace(parameters=layer.parameters, **settings)
    optim = by_hand.Classifier.configure_optimizers(model)
    for _ in range(5):
        layer.dW, layer.db = rng.standard_normal((3, 4)), rng.standard_normal(4)
        for twin, grad in zip(twins, (layer.dW, layer.db), strict=True):
            twin.grad = torch.tensor(grad)
        optim.step()
        other.step()
    for twin, value in zip(twins, (layer.W, layer.b), strict=True):
        np.testing.assert_allclose(value, twin.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "rmsprop"}, "Expected optimizer to be one of sgd, adam, adamw. Received: 'rmsprop'"),
        ({"weight_decay": -0.1}, "Expected weight_decay to be a number of at least 0. Received: -0.1"),
        ({"momentum": 1.5}, r"Expected momentum to be a number in \[0, 1\]. Received: 1.5"),
        ({"optimizer": "adam", "momentum": 0.9}, "Expected momentum to be 0 with the optimizer adam. Received: 0.9"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_the_first_step(d2l, small, settings, message):
    with pytest.raises(d2ldrop.ArgumentError, match=message):
        d2l.DropoutMLP(**small, **settings)
    with pytest.raises(d2ldrop.ArgumentError, match=message):  # attributes of a reader's own model
        d2l.Classifier.configure_optimizers(SimpleNamespace(lr=0.1, **settings))


# Schedules


def own_sgd(d2l, kind):
    """Return a kind of models that is trained with SGD by hand."""

    class ByHand(kind):
        def configure_optimizers(self):
            return d2l.SGD(self.lr) if d2l.name in ("tf", "jax") else d2l.SGD(self.parameters(), self.lr)

    return ByHand


@pytest.mark.parametrize("by", ["its own", "hand"])
def test_a_schedule_sets_the_rate_of_each_epoch_without_compiling_again(d2l, own, small, by):
    kind = d2l.SoftmaxRegression if by == "its own" else own_sgd(d2l, d2l.SoftmaxRegression)
    traces, weights, rates = [], [], (0.5, 0.25, 0.0, 0.125)

    class Counted(kind):
        def training_step(self, *args):
            traces.append(1)
            return super().training_step(*args)

    class Look(Callback):
        def on_epoch_end(self, trainer):
            weights.append(d2l.get_weights(trainer.model))
            traces.append(0)

    trainer = d2l.Trainer(4, seed=0, callbacks=[LRSchedule(rates.__getitem__), Look()], progress=False)
    trainer.fit(Counted(num_outputs=10, lr=1.0), d2l.Digits(batch_size=THIRD))
    changes = [max(np.abs(b[name] - a[name]).max() for name in b) for a, b in pairwise(weights)]
    assert changes[1] == 0
    assert 0 < changes[2] < 0.6 * changes[0]
    if own.TRACES_STEPS:
        assert 1 not in traces[traces.index(0) :]


def test_a_schedule_of_one_rate_changes_nothing(d2l):
    options = {"kind": "SoftmaxRegression", "epochs": 2, "data": d2l.Digits(batch_size=THIRD)}
    _, plain = fitted(d2l, {"num_outputs": 10, "lr": 0.3}, **options)
    _, scheduled = fitted(d2l, {"num_outputs": 10, "lr": 0.1}, callbacks=[LRSchedule(lambda epoch: 0.3)], **options)
    for name, value in d2l.get_weights(plain).items():
        np.testing.assert_array_equal(d2l.get_weights(scheduled)[name], value)


@pytest.mark.parametrize("value", [float("nan"), -0.1, float("inf"), "0.1", None])
def test_a_rate_that_is_no_rate_is_refused(small, value):
    with pytest.raises(ValueError, match=r"Expected the learning rate of epoch 0 to be a number of at least 0\. "):
        fitted(by_hand, small, callbacks=[LRSchedule(lambda epoch: value)])
    with pytest.raises(d2ldrop.ArgumentTypeError, match=r"Expected schedule to be a function of the epoch\. Rec"):
        LRSchedule(value)


def test_an_optimizer_without_a_rate_is_refused(d2l, small):
    class Fixed(d2l.SoftmaxRegression):
        def configure_optimizers(self):
            idle = {"step": lambda: None, "zero_grad": lambda: None}
            return SimpleNamespace(init=lambda params: (), params=[], **idle)

    with pytest.raises(d2ldrop.UsageError, match=r"Expected an optimiser whose learning rate can be set.*SimpleNam"):
        d2l.Trainer(1, progress=False, callbacks=[LRSchedule(float)]).fit(Fixed(10, 0.1), d2l.Digits())


def test_a_divergence_names_the_rate_of_the_schedule(small):
    with pytest.raises(d2ldrop.DivergedError, match=r"with the learning rate 1e\+09"):
        fitted(by_hand, small, callbacks=[LRSchedule(lambda epoch: 1e9)])

"""Activations before and after the mask: what is recorded is right, and training does not notice."""

import math

import numpy as np
import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import ActivationStats, Checkpoint
from d2ldrop.data import as_floats
from d2ldrop.training.activations import masked_activations

KINDS = ["DropoutMLPScratch", "DropoutMLP"]


@pytest.fixture
def seen(d2l, small, request):
    """Return the activations of a new model for 1000 samples, its weights, its inputs, and how often it drops."""
    model = getattr(d2l, request.param)(**small)
    X = as_floats(d2l.Digits().split(True, d2l.channels_last).X[:1000])
    d2l.backend.build(model, (X[:2],), d2l.cpu(), seed=0)
    layers = masked_activations(model, d2l.backend.array(X, d2l.cpu()))
    return layers, d2l.get_weights(model), X.reshape(len(X), -1), (small["dropout_1"], small["dropout_2"])


@pytest.mark.parametrize("seen", KINDS, indirect=True)
def test_activations_are_those_that_numpy_computes_from_the_weights(seen):
    layers, weights, inputs, rates = seen
    assert len(layers) == len(rates)
    for k, ((before, after), p) in enumerate(zip(layers, rates, strict=True), start=1):
        expected = np.maximum(inputs @ weights[f"lin{k}.weight"].T + weights[f"lin{k}.bias"], 0)
        np.testing.assert_allclose(before, expected, rtol=1e-4, atol=1e-4)
        kept = after != 0
        np.testing.assert_allclose(after[kept], before[kept] / (1 - p), rtol=1e-5)
        count = (before > 0).sum()
        assert abs(kept.sum() - (1 - p) * count) < 5 * math.sqrt(p * (1 - p) * count)
        # given h, the sum of h'^2 has the mean sum(h^2) / (1 - p), and a variance as follows; that of h' is close to it
        h = before.astype(float)
        variance, mean = h.var(), h.mean()
        spread = math.sqrt((h**4).sum() * p / (1 - p) ** 3) / h.size + 2 * mean * math.sqrt(p * (h**2).mean() / h.size)
        assert abs(after.var(dtype=float) - (variance / (1 - p) + p / (1 - p) * mean**2)) < 5 * spread
        inputs = after


@pytest.mark.skip_numpy  # it has no such layer
@pytest.mark.skip_toy
def test_batch_normalisation_is_as_in_evaluation(d2l, own):
    model, X = own.with_batch_norm(d2l)(lr=0.1), as_floats(d2l.Digits().split(True, d2l.channels_last).X[:50])
    d2l.backend.build(model, (X[:2],), d2l.cpu(), seed=0)
    placed = d2l.backend.array(X, d2l.cpu())
    _, outputs = d2l.backend.linear_calls(model, placed)[-1]
    expected = d2l.numpy(d2l.backend.predict(model, placed))  # the model has no dropout
    np.testing.assert_allclose(d2l.numpy(outputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.only_mxnet
def test_layers_that_are_not_trained_are_looked_at_as_well(d2l, small):
    model = d2l.DropoutMLPScratch(**small)
    X = d2l.backend.array(as_floats(d2l.Digits().split(True).X[:50]), d2l.cpu())
    d2l.backend.build(model, (X[:2],), d2l.cpu(), seed=0)
    expected = [before.shape for before, _ in masked_activations(model, X)]
    model.lin1.weight.grad_req = "null"
    assert [before.shape for before, _ in masked_activations(model, X)] == expected
    assert "forward" not in vars(model.lin1)


def test_rows_say_what_is_seen_and_training_does_not_notice(d2l, small):
    stats = ActivationStats(samples=500)
    options = {"epochs": 2, "kind": "DropoutMLP", "data": d2l.Digits(batch_size=479)}  # a third
    trainer, watched = fitted(d2l, small, callbacks=[stats], **options)
    _, plain = fitted(d2l, small, **options)
    for name, value in d2l.get_weights(plain).items():
        np.testing.assert_array_equal(d2l.get_weights(watched)[name], value)

    keys = [(row["epoch"], row["layer"], row["when"]) for row in stats.rows]
    assert keys == [(epoch, k, when) for epoch in (1, 2) for k in (1, 2) for when in ("before", "after")]
    X = d2l.Digits().split(True, d2l.channels_last).X
    X = as_floats(X[np.random.default_rng(0).permutation(len(X))[:500]]).reshape(500, -1)
    weights = d2l.get_weights(plain)
    H = np.maximum(X @ weights["lin1.weight"].T + weights["lin1.bias"], 0)
    row = stats.rows[4]
    assert (row["mean"], row["variance"]) == pytest.approx((H.mean(), H.var()), rel=1e-4)
    assert stats.rows[5]["variance"] > row["variance"]

    drawn = []
    for seed in (3, 4):
        d2l.seed(seed)
        stats.on_epoch_end(trainer)
        drawn.append(d2l.numpy(d2l.rand(4)))
    assert stats.rows[8:12] == stats.rows[12:] == stats.rows[4:8]  # its own masks are repeatable,
    assert (drawn[0] != drawn[1]).all()  # and the user's generator is not seeded


def test_rows_of_a_resumed_training_are_complete(small, tmp_path):
    d2l = d2ldrop.backend("numpy")
    whole, first, resumed = (ActivationStats(100) for _ in range(3))
    fitted(d2l, small, epochs=3, callbacks=[whole])
    fitted(d2l, small, epochs=2, callbacks=[first, Checkpoint(tmp_path)])
    trainer = d2l.Trainer(3, seed=0, progress=False, callbacks=[resumed, Checkpoint(tmp_path)])
    trainer.fit(d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path)
    assert resumed.rows == whole.rows
    fitted(d2l, small, epochs=3, callbacks=[resumed])
    assert resumed.rows == whole.rows  # and not those of both trainings


def test_what_has_no_hidden_layers_is_refused(d2l):
    model = d2l.SoftmaxRegression(num_outputs=10, lr=0.1)
    with pytest.raises(d2ldrop.UsageError, match=r"Expected a model with fully connected hidden layers.*Softmax"):
        d2l.Trainer(1, progress=False, callbacks=[ActivationStats()]).fit(model, d2l.Digits())


def test_data_that_cannot_be_looked_at_are_refused(small):
    d2l = d2ldrop.backend("numpy")
    data = d2l.Digits()

    class Loaded(d2l.DataModule):
        def get_dataloader(self, train):
            return data.get_dataloader(train)

    with pytest.raises(d2ldrop.UsageError, match=r"Expected data in arrays, as in ArrayData\. Received: Loaded"):
        fitted(d2l, small, data=Loaded(), callbacks=[ActivationStats()])

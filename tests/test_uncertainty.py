"""Predictions under many masks: their exact mean, their measures, and that they leave all else as it is."""

import itertools
import math

import numpy as np
import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import Callback
from d2ldrop.training.batches import EVAL_BATCH
from d2ldrop.uncertainty import MCPrediction, MCRegression, entropy, softmax

KINDS = ["DropoutMLPScratch", "DropoutMLP"]

# A network of 2 + 2 hidden units has 16 masks

TINY = {"num_outputs": 3, "num_hiddens_1": 2, "num_hiddens_2": 2, "dropout_1": 0.5, "dropout_2": 0.25, "lr": 0.1}


def tiny_weights():
    rng = np.random.default_rng(1)
    shapes = [(2, 4), (2, 2), (3, 2)]
    weights = {f"lin{k}.weight": 2 * rng.standard_normal(shape) for k, shape in enumerate(shapes, start=1)}
    return {**weights, **{f"lin{k}.bias": rng.standard_normal(shape[0]) for k, shape in enumerate(shapes, start=1)}}


def all_outputs(X, weights):
    """Return the outputs under each of the masks, (16, N, 3), and the probabilities of the masks."""
    W1, W2, W3, b1, b2, b3 = (weights[f"lin{k}.{kind}"] for kind in ("weight", "bias") for k in (1, 2, 3))
    outputs, chances = [], []
    for kept in itertools.product([0, 1], repeat=4):
        H1 = np.maximum(X @ W1.T + b1, 0) * kept[:2] / 0.5
        H2 = np.maximum(H1 @ W2.T + b2, 0) * kept[2:] / 0.75
        outputs.append(H2 @ W3.T + b3)
        chances.append(math.prod(0.5 for _ in kept[:2]) * math.prod(0.75 if k else 0.25 for k in kept[2:]))
    return np.array(outputs), np.array(chances)


def within(drawn, values, chances, count):
    """Check the mean of `count` draws against the values that it may have, of given probabilities."""
    mean = np.tensordot(chances, values, 1)
    deviation = np.sqrt(np.tensordot(chances, (values - mean) ** 2, 1) / count)
    assert (np.abs(drawn - mean) <= 5 * deviation + 1e-5).all()
    assert deviation.max() < 0.02  # or there is nothing to see
    return mean


@pytest.mark.parametrize("kind", KINDS)
def test_means_over_masks_are_those_over_all_masks(d2l, kind):
    weights, count = tiny_weights(), 2000
    model = getattr(d2l, kind)(**TINY)
    d2l.set_weights(model, weights)
    X = np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)
    result = d2l.mc_predict(model, X, samples=count, seed=0)
    outputs, chances = all_outputs(X, weights)
    P = softmax(outputs)
    assert chances.sum() == 1
    mean = within(result.probabilities, P, chances, count)
    expected = within(result.expected_entropy, entropy(P), chances, count)
    shares = np.tensordot(chances, np.eye(3)[P.argmax(axis=2)], 1)  # of the masks, for each class
    np.testing.assert_allclose(result.variation_ratio, 1 - shares.max(axis=1), atol=5 * 0.5 / np.sqrt(count))
    np.testing.assert_allclose(result.entropy, entropy(result.probabilities), rtol=1e-12)
    np.testing.assert_allclose(result.mutual_information, result.entropy - result.expected_entropy, atol=1e-12)
    np.testing.assert_allclose(result.mutual_information, entropy(mean) - expected, atol=0.05)
    assert result.mutual_information.max() > 0.1


def test_means_and_deviations_of_a_regression_model(d2l):
    class Regressor(d2l.DropoutMLPScratch):
        is_regression = True

    weights, count = tiny_weights(), 2000
    model = Regressor(**TINY)
    d2l.set_weights(model, weights)
    X = np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)
    result = d2l.mc_predict(model, X, samples=count, seed=0)
    assert isinstance(result, MCRegression)
    outputs, chances = all_outputs(X, weights)
    mean = np.tensordot(chances, outputs, 1)
    deviation = np.sqrt(np.tensordot(chances, (outputs - mean) ** 2, 1))
    assert (np.abs(result.mean - mean) <= 5 * deviation / np.sqrt(count) + 1e-5).all()
    np.testing.assert_allclose(result.std, deviation, rtol=0.15, atol=1e-5)
    (single,) = {*d2l.mc_predict(model, X, samples=1).std.ravel()}
    assert single == 0
    with pytest.raises(d2ldrop.UsageError, match=r"Expected a classifier\. Received: Regressor"):
        d2l.predict_proba(model, X)


# One stream of masks


@pytest.fixture(name="X")
def some_digits(d2l):
    """Return 360 images of digits."""
    return d2l.Digits().split(train=False, channels_last=d2l.channels_last).X


def built(model, X):
    """Return a model for digits with the weights that it begins with; to train it would take longer."""
    model.backend.build(model, (X[:1],), model.backend.cpu(), seed=0)
    model.input_shape = X.shape[1:]
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_the_result_bit_by_bit(d2l, small, X, kind):
    model = built(getattr(d2l, kind)(**small), X)
    first, same, other, *drawn = (d2l.mc_predict(model, X[:50], samples=5, seed=seed) for seed in (3, 3, 4, None, None))
    assert first._fields == MCPrediction._fields
    for value, again in zip(first, same, strict=True):
        np.testing.assert_array_equal(value, again)
        assert value.dtype == np.float64
    assert [value.shape for value in first] == [(50, 10), *[(50,)] * 4]
    assert len({result.probabilities.tobytes() for result in (first, other, *drawn)}) == 4


@pytest.mark.parametrize("reader", [0, 1], ids=["scratch", "concise"])
def test_models_of_a_reader(d2l, own, X, reader):
    model = built(own.readers_models(d2l)[reader](num_outputs=10, num_hiddens=32, dropout=0.5, lr=0.5), X)
    first, same = (d2l.mc_predict(model, X[:20], samples=10, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities, same.probabilities)
    assert (first.mutual_information > 0).all()
    assert len({result.probabilities.tobytes() for result in (first, d2l.mc_predict(model, X[:20], 10, seed=2))}) == 2


@pytest.fixture
def calls(d2l, monkeypatch):
    """Return a list to which the outputs of each call of the network are added."""
    sample, found = d2l.backend.sample, []

    def spy(model, X):
        outputs = sample(model, X)
        found.append(d2l.numpy(outputs))
        return outputs

    monkeypatch.setattr(d2l.backend, "sample", spy)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_has_a_mask_of_its_own(d2l, small, X, calls, kind):
    model = built(getattr(d2l, kind)(**{**small, "num_hiddens_1": 128, "dropout_1": 0.5, "dropout_2": 0}), X)
    d2l.mc_predict(model, np.concatenate([X[:1]] * 2), samples=1500, seed=0)
    assert [len(rows) for rows in calls] == [1500, 1500]
    assert len({row.tobytes() for rows in calls for row in rows}) == 3000  # no mask comes twice


def test_calls_are_of_bounded_size(d2l, small, X, calls):
    model = built(d2l.DropoutMLP(**small), X)
    X = np.concatenate([X] * 13)
    for count, samples, expected in ((4500, 2, [*[EVAL_BATCH] * 4, 1000]), (7, 601, [7 * 201] * 3)):
        calls.clear()
        result = d2l.mc_predict(model, X[:count], samples, seed=0)
        assert [len(rows) for rows in calls] == expected
        assert len(result.entropy) == count
    P = softmax(np.concatenate(calls)).reshape(-1, 7, 10)[:601]
    np.testing.assert_allclose(result.probabilities, P.mean(axis=0), rtol=1e-12)


# What does not change


def test_without_dropout_masks_do_not_disagree(d2l, small, X):
    for kind, hparams in (
        ("DropoutMLPScratch", {**small, "dropout_1": 0, "dropout_2": 0}),
        ("SoftmaxRegression", {"num_outputs": 10, "lr": 0.5}),
    ):
        model = built(getattr(d2l, kind)(**hparams), X)
        result = d2l.mc_predict(model, X[:30], samples=10, seed=0)
        np.testing.assert_allclose(result.probabilities, d2l.predict_proba(model, X[:30]), rtol=1e-5)
        np.testing.assert_allclose(result.mutual_information, 0, atol=1e-9)
        np.testing.assert_array_equal(result.variation_ratio, 0)


@pytest.mark.skip_numpy
@pytest.mark.skip_toy
def test_batch_normalisation_is_as_in_evaluation(d2l, own, X):
    model = built(own.with_batch_norm(d2l)(lr=0.1), X)
    before = d2l.get_weights(model)
    result = d2l.mc_predict(model, X[:30], samples=10, seed=0)
    np.testing.assert_allclose(result.probabilities, d2l.predict_proba(model, X[:30]), rtol=1e-5)
    np.testing.assert_allclose(result.mutual_information, 0, atol=1e-9)
    for name, value in d2l.get_weights(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_goes_on_as_if_nothing_had_been_predicted(d2l, small, X, kind):
    class Predict(Callback):
        def on_refresh(self, trainer):
            d2l.mc_predict(trainer.model, X[:20], samples=3)

        def on_epoch_end(self, trainer):
            d2l.mc_predict(trainer.model, X[:20], samples=3, seed=trainer.epoch)

    y = np.arange(256) % 10
    options = {"epochs": 2, "kind": kind, "data": d2l.ArrayData(X[:256], y, X[256:], y[: len(X) - 256])}
    _, plain = fitted(d2l, small, **options)
    _, model = fitted(d2l, small, **options, callbacks=[Predict()])
    for name, value in d2l.get_weights(plain).items():
        np.testing.assert_array_equal(d2l.get_weights(model)[name], value)


def test_what_is_drawn_later_does_not_depend_on_it(d2l, small, X):
    model = built(d2l.DropoutMLPScratch(**small), X)
    masks = []
    for predicts, seed in ((False, 0), (True, 0), (True, 1), (True, None)):
        d2l.seed(3)
        if predicts:
            d2l.mc_predict(model, X[:20], 5, seed)
        masks.append(d2l.numpy(d2l.dropout_layer(d2l.ones((50, 50)), 0.5)))
    exactly = d2l.name not in ("tf", "mxnet")  # whose generators can be seeded, but not read and put back
    for mask in masks[2:] + masks[:exactly]:
        np.testing.assert_array_equal(mask, masks[1])


@pytest.mark.only_torch
def test_the_mode_of_each_module_is_put_back(d2l, small, X):
    model = built(d2l.DropoutMLP(**small), X)
    model.train()
    model.net[0].eval()
    before = [module.training for module in model.modules()]
    d2l.mc_predict(model, X[:2], samples=1)
    assert [module.training for module in model.modules()] == before
    with pytest.raises(RuntimeError):
        d2l.backend.sample(model, d2l.ones((2, 3)))
    assert [module.training for module in model.modules()] == before


# What it takes


def test_pixels_are_scaled(d2l, small, X):
    model = built(d2l.DropoutMLPScratch(**small), X)
    pixels = np.random.default_rng(0).integers(0, 256, X[:9].shape, np.uint8)
    floats = (pixels / 255).astype(np.float32)
    for predict in (d2l.predict_proba, lambda *inputs: d2l.mc_predict(*inputs, samples=4, seed=0).probabilities):
        np.testing.assert_allclose(predict(model, pixels), predict(model, floats), rtol=1e-4, atol=1e-6)


def test_probabilities_without_dropout(d2l, small, X):
    model = built(d2l.DropoutMLP(**small), X)
    P = d2l.predict_proba(model, X)
    np.testing.assert_allclose(P, softmax(d2ldrop.Trainer(1).predict(X, model)), rtol=1e-12)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-12)
    assert P.dtype == np.float64
    np.testing.assert_array_equal(d2l.predict_proba(model, d2l.array(X)), P)
    one = d2l.predict_proba(model, X[0])
    np.testing.assert_allclose(one, P[:1], rtol=1e-5)
    weights = {name: 1e4 * value for name, value in d2l.get_weights(model).items()}
    d2l.set_weights(model, weights)
    for P in (d2l.predict_proba(model, X), d2l.mc_predict(model, X, samples=2).probabilities):
        np.testing.assert_allclose(P.sum(axis=1), 1)


@pytest.mark.parametrize("samples", [0, -1, 1.5, True, "3", None])
def test_samples_are_a_positive_integer(d2l, samples):
    model = d2l.SoftmaxRegression(num_outputs=10, lr=0.1)
    with pytest.raises(d2ldrop.ArgumentError, match="Expected samples to be a positive integer"):
        d2l.mc_predict(model, np.zeros((2, 64)), samples)


def test_mc_predict_says_what_is_wrong(d2l, small, X):
    model, X = built(d2l.DropoutMLP(**small), X), np.zeros((2, 64), np.float32)
    for error, message, call in (
        (d2ldrop.DataError, r"at least one sample in X. Received: \(0, ", lambda: d2l.mc_predict(model, X[:0])),
        (d2ldrop.DataError, r"as in training. Received: \(2, 63\)", lambda: d2l.mc_predict(model, X[:, 1:])),
        (d2ldrop.DataError, r"as in training. Received: \(2, 63\)", lambda: d2l.predict_proba(model, X[:, 1:])),
        (d2ldrop.ArgumentError, "seed to be 0 or more. Received: -1", lambda: d2l.mc_predict(model, X, seed=-1)),
        (d2ldrop.ArgumentTypeError, "seed to be an integer or None", lambda: d2l.mc_predict(model, X, seed="a")),
        (d2ldrop.ArgumentError, "Received the class DropoutMLP", lambda: d2l.mc_predict(d2l.DropoutMLP, X)),
        (d2ldrop.UsageError, "DropoutMLP, which was never called", lambda: d2l.mc_predict(d2l.DropoutMLP(**small), X)),
        (d2ldrop.UsageError, "which was never called", lambda: d2l.predict_proba(d2l.DropoutMLP(**small), X)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()

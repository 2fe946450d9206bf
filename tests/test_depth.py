"""The chapter's networks with any number of hidden layers, weights of classes, and real numbers to learn."""

import copy
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import save_file

import d2ldrop
from d2ldrop import Trainer, load_model, read_weights, save_weights
from d2ldrop import numpy as by_hand
from d2ldrop.randomness import sharing_masks

MODELS = ["DropoutMLPScratch", "DropoutMLP"]
DEPTHS = {0: ([], []), 1: ([7], [0.5]), 3: ([9, 8, 7], [0.2, 0.5, 0.25])}
RNG = np.random.default_rng(0)
X, Y, T = RNG.random((60, 5), np.float32), RNG.integers(0, 3, 60), RNG.standard_normal((60, 3)).astype(np.float32)


def made(d2l, kind, depth=3, **more):
    widths, dropouts = DEPTHS[depth]
    return getattr(d2l, kind)(**{"num_outputs": 3, "num_hiddens": widths, "dropouts": dropouts, "lr": 0.1, **more})


def built(d2l, kind, depth=3, **more):
    model = made(d2l, kind, depth, **more)
    d2l.backend.build(model, (d2l.array(X[:2]),), d2l.cpu())
    return model


def outputs(d2l, model):
    return d2l.numpy(d2l.backend.predict(model, d2l.array(X)))


def targets(d2l, labels, batch_size=20):
    """Return data with real numbers as labels, from loaders of the reader's own."""

    class Targets(d2l.DataModule):
        def __init__(self):
            self.batch_size = batch_size

        def get_dataloader(self, train):
            return self.get_tensorloader((d2l.array(X), d2l.array(labels)), train)

    return Targets()


def fitted(model, data, epochs=1, **options):
    trainer = Trainer(epochs, **{"seed": 0, "progress": False, **options})
    trainer.fit(model, data)
    return trainer


# Depth


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", MODELS)
def test_networks_of_any_depth_are_those_of_numpy(d2l, kind, depth):
    model, oracle = built(d2l, kind, depth), built(by_hand, "DropoutMLP", depth)
    weights = d2l.get_weights(model)
    widths = [5, *DEPTHS[depth][0], 3]
    shapes = {f"lin{k}.weight": (widths[k], widths[k - 1]) for k in range(1, depth + 2)}
    assert {name: value.shape for name, value in weights.items() if name.endswith("weight")} == shapes
    assert sum(value.size for value in weights.values()) == sum((a + 1) * b for a, b in pairwise(widths))
    d2l.set_weights(model, by_hand.get_weights(oracle))
    np.testing.assert_allclose(outputs(d2l, model), outputs(by_hand, oracle), rtol=1e-5, atol=1e-6)


def test_the_two_forms_make_the_same_network(d2l, small):
    two = {name: small[name] for name in ("num_outputs", "lr")}
    lists = {"num_hiddens": [32, 16], "dropouts": np.array([0.25, 0.5])}
    for kind in MODELS:
        models = [getattr(d2l, kind)(**small), getattr(d2l, kind)(**two, **lists)]
        assert models[0].hparams == small
        assert models[1].hparams == {**two, "num_hiddens": (32, 16), "dropouts": (0.25, 0.5)}
        for model in models:
            assert (model.hidden_widths, model.hidden_dropouts) == ((32, 16), (0.25, 0.5))
    losses = [fitted(model, (X, Y)).history[0]["train_loss"] for model in models]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", MODELS)
def test_each_hidden_layer_drops_its_own_share_in_fit(d2l, kind):
    """From small positive weights, ReLU lets all units pass: a step changes the weights out of those that are kept."""
    width, rates = 1000, (0.2, 0.5, 0.75)
    model = getattr(d2l, kind)(num_outputs=3, num_hiddens=[width] * 3, dropouts=rates, lr=0.1)
    d2l.backend.build(model, (d2l.array(X[:1]),), d2l.cpu())
    weights = d2l.get_weights(model)
    before = {name: 0.1 * abs(value) for name, value in weights.items()} | {"lin4.weight": weights["lin4.weight"]}
    d2l.set_weights(model, before)
    fitted(model, d2l.ArrayData(X[:1], Y[:1], X[:1], Y[:1]))
    after = d2l.get_weights(model)
    for k, rate in enumerate(rates, start=2):
        kept = (after[f"lin{k}.weight"] != before[f"lin{k}.weight"]).any(axis=0)
        assert abs(kept.sum() - width * (1 - rate)) < 5 * (width * rate * (1 - rate)) ** 0.5


@pytest.mark.parametrize("form", ["two numbers", "lists"])
def test_probabilities_can_be_changed_between_fits(d2l, small, form):
    data = d2l.ArrayData(X, Y, X, Y, batch_size=60)
    if form == "two numbers":
        model = d2l.DropoutMLPScratch(**small)
        fitted(model, data)
        model.dropout_1 = 1.0
    else:
        model = built(d2l, "DropoutMLPScratch")
        model.dropouts = [1.0, 0.5, 0.5]
    before = d2l.get_weights(model)
    fitted(model, data)
    after = d2l.get_weights(model)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert not changed & {"lin1.weight", "lin1.bias", "lin2.weight"}
    assert ("lin3.bias" if form == "two numbers" else "lin4.bias") in changed


WEIGHTS = (0.5, 2.0, 1.0)


@pytest.mark.skip_numpy
def test_with_shared_masks_deep_networks_follow_the_curve_of_numpy(d2l):
    """With weights of classes, too; a last batch is smaller."""
    histories = []
    for backend in (by_hand, d2l):
        model = made(backend, "DropoutMLPScratch", class_weights=WEIGHTS)
        trainer = fitted(model, backend.ArrayData(X, Y, X, Y, batch_size=25), 3, shared_masks=True)
        histories.append([[row["train_loss"], row["val_loss"], row["val_acc"]] for row in trainer.history])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-4)


@pytest.mark.parametrize("kind", [*MODELS, "DropoutMLPRegressor"])
def test_gradients_of_deep_networks_by_hand(kind):
    model = built(by_hand, kind, **({} if kind == "DropoutMLPRegressor" else {"class_weights": WEIGHTS}))
    labels = T if kind == "DropoutMLPRegressor" else Y
    for param in model.parameters():
        setattr(param.layer, param.name, param.value.astype(np.float64))
    model.train()

    def loss():
        with sharing_masks(np.random.Generator(np.random.Philox(1))):
            return float(model.loss(model(X.astype(np.float64)), labels))

    loss()
    model.backward(model.dloss)
    step, rng = 1e-6, np.random.default_rng(2)
    for param in model.parameters():
        for index in {tuple(rng.integers(0, n) for n in param.value.shape) for _ in range(8)}:
            losses = []
            for shift in (step, -2 * step):
                param.value[index] += shift
                losses.append(loss())
            param.value[index] += step
            slope = (losses[0] - losses[1]) / (2 * step)
            np.testing.assert_allclose(param.grad[index], slope, rtol=1e-5, atol=1e-9)


# Weights of classes


@pytest.mark.parametrize("kind", ["DropoutMLP", "SoftmaxRegression"])
def test_weights_of_classes_weigh_the_mean(d2l, own, kind):
    hparams = made(d2l, "DropoutMLP").hparams if kind == "DropoutMLP" else {"num_outputs": 3, "lr": 0.1}
    Z = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
    y = np.array([0, 1, 2, 2, 1, 1])
    each = np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(6), y]
    model = getattr(d2l, kind)(**hparams, class_weights=np.array(WEIGHTS))
    weights = np.array(WEIGHTS)[y]
    losses, loss = (own.losses_of(d2l, model, d2l.array(Z), d2l.array(y), averaged) for averaged in (False, True))
    np.testing.assert_allclose(d2l.numpy(losses), weights * each, rtol=1e-4)
    assert float(loss) == pytest.approx((weights * each).sum() / weights.sum(), rel=1e-4)
    model.class_weights = [0, 1, 0]
    assert float(own.losses_of(d2l, model, d2l.array(Z[:1]), d2l.array(y[:1]), True)) == 0  # and not nan


# Real numbers


@pytest.mark.parametrize("shape", [(60,), (60, 3)], ids=str)
def test_the_regressor_learns_by_the_squared_loss(d2l, shape):
    labels = T.reshape(-1)[: np.prod(shape)].reshape(shape)
    rows, curves = labels.reshape(60, -1), []
    for backend in (by_hand, d2l):
        model = made(backend, "DropoutMLPRegressor", num_outputs=rows.shape[1], dropouts=[0, 0, 0])
        trainer = fitted(model, targets(backend, labels), 2)
        assert {key for key in trainer.history[0] if key.startswith(("train_", "val_"))} == {"train_loss", "val_loss"}
        curves.append([row[key] for row in trainer.history for key in ("train_loss", "val_loss")])
    assert model.is_regression
    assert not isinstance(model, d2l.Classifier)
    assert curves[1][-1] == pytest.approx(((outputs(d2l, model) - rows) ** 2).mean() / 2, rel=1e-5)
    assert curves[1][-1] < curves[1][1]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


# Arguments

WRONG = {
    "both": ({"num_hiddens_1": 8}, "Expected either num_hiddens_1, .*or num_hiddens and dropouts. Received: num_h"),
    "none": ({"num_hiddens": None, "dropouts": None}, "Received: none of them"),
    "half of the lists": ({"dropouts": None}, "Expected either .*Received: num_hiddens$"),
    "half of the numbers": (
        {"num_hiddens": None, "dropouts": None, "num_hiddens_1": 8, "num_hiddens_2": 8},
        "Expected dropout_1 to be a number, unless num_hiddens and dropouts are given. Received: None",
    ),
    "lengths": ({"dropouts": [0.5]}, "Expected as many numbers in num_hiddens as in dropouts. Received: 3 and 1"),
    "a width": ({"num_hiddens": [8, 0, 4]}, r"Expected num_hiddens\[1\] to be a positive integer. Received: 0"),
    "a probability": ({"dropouts": (0, 0, 2)}, r"Expected dropouts\[2\] to be a number in \[0, 1\]. Received: 2"),
    "no list": ({"num_hiddens": 3}, "Expected num_hiddens to be a list of numbers. Received: 3"),
    "text": ({"num_hiddens": "abc"}, "Expected num_hiddens to be a list of numbers. Received: 'abc'"),
    "no rate": ({"lr": None}, "Expected lr to be a number of at least 0. Received: None"),
    "decay": ({"weight_decay": -1}, "Expected weight_decay to be a number of at least 0. Received: -1"),
    "momentum": ({"momentum": np.nan}, "Expected momentum to be a number of at least 0. Received: nan"),
    "optimizer": ({"optimizer": "SGD"}, "Expected optimizer to be one of sgd, adam, adamw. Received: 'SGD'"),
    "classes": ({"class_weights": [1, 2]}, "Expected class_weights to be 3 numbers. Received: 2"),
    "a class": (
        {"class_weights": [1, -1, 1]},
        r"Expected class_weights\[1\] to be a number of at least 0. Received: -1",
    ),
    "a dictionary": ({"class_weights": {0: 1, 1: 2, 2: 3}}, "Expected class_weights to be a list of numbers"),
    "zeros": ({"class_weights": [0, 0, 0]}, "Expected class_weights that are not all 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused_in_one_sentence(d2l, name):
    more, message = WRONG[name]
    for kind in MODELS:
        with pytest.raises(d2ldrop.ArgumentError, match=message) as caught:
            made(d2l, kind, **more)
        assert "\n" not in str(caught.value)


def test_what_is_no_option_or_has_no_meaning_is_refused(d2l):
    with pytest.raises(d2ldrop.ArgumentError, match="Expected no class_weights, as a regression has no classes"):
        made(d2l, "DropoutMLPRegressor", class_weights=[1, 1, 1])
    for kind in (d2l.DropoutMLP, d2l.SoftmaxRegression):
        with pytest.raises(TypeError, match="weight_deca"):
            kind(num_outputs=3, lr=0.1, weight_deca=1)


def test_options_are_attributes_and_kept_unless_they_are_defaults(d2l, small):
    for options in ({"optimizer": "adamw", "class_weights": (1.0,) * 10}, {"weight_decay": 0.01, "momentum": 0.9}):
        model = d2l.DropoutMLP(**small, **{k: np.array(v) if k == "class_weights" else v for k, v in options.items()})
        assert model.hparams == {**small, **options}
        assert [getattr(model, name) for name in options] == [*options.values()]
    for plain in (d2l.DropoutMLP(**small, weight_decay=0, momentum=0.0), d2l.SoftmaxRegression(3, 0.1)):
        assert (plain.weight_decay, plain.momentum, plain.optimizer, plain.class_weights) == (0, 0, "sgd", None)
        assert not {"weight_decay", "momentum", "optimizer", "class_weights"} & {*plain.hparams}


# Files, copies


@pytest.mark.parametrize("kind", [*MODELS, "DropoutMLPRegressor"])
def test_models_of_any_depth_travel_in_files(d2l, kind, tmp_path):
    more = {"weight_decay": 0.1, "optimizer": "adam"}
    more |= {} if kind == "DropoutMLPRegressor" else {"class_weights": WEIGHTS}
    model = built(d2l, kind, **more)
    save_weights(model, tmp_path / "w")
    for backend in (d2l, by_hand):
        loaded = load_model(tmp_path / "w", backend.name)
        assert type(loaded) is getattr(backend, kind)
        assert loaded.hparams == model.hparams
        np.testing.assert_allclose(outputs(backend, loaded), outputs(d2l, model), rtol=1e-5, atol=1e-6)
    save_weights(loaded, tmp_path / "w")
    np.testing.assert_array_equal(outputs(d2l, load_model(tmp_path / "w", d2l.name)), outputs(d2l, model))


def test_files_of_older_versions_load(d2l, small, tmp_path):
    """They have the hyperparameters of the chapter, and no options."""
    weights = by_hand.get_weights(
        built(by_hand, "DropoutMLP", 1, num_hiddens=[32, 16], dropouts=[0.5] * 2, num_outputs=10)
    )
    about = {"class": "DropoutMLPScratch", "hparams": small, "backend": d2l.name}
    save_file(weights, tmp_path / "w", {"d2ldrop": json.dumps(about)})
    model = load_model(tmp_path / "w")
    assert model.hparams == small
    np.testing.assert_array_equal(d2l.get_weights(model)["lin3.weight"], weights["lin3.weight"])
    save_weights(model, tmp_path / "again")
    assert read_weights(tmp_path / "again")[1] == about


FORGED = [
    {"num_hiddens": value} for value in ([9, 8], [9, 8, 7, 6], [9, 8, True], [9, 8, "7"], [9, 8, 7.0], 3, "987", None)
]
FORGED += [{"num_hiddens": value} for value in ([1] * 100_000, [10**4000, 8, 7], [[9], 8, 7], {"9": 1})]
FORGED += [{"dropouts": value} for value in ([0.5], [0.5, 0.5, 1.5], [0.5, 0.5, None], 0.5, [float("nan")] * 3, "abc")]
FORGED += [{"optimizer": value} for value in ("x" * 10_000, None, ["adam"], 3)]
FORGED += [{"class_weights": value} for value in ([1, 2], [1, 2, -1], [0, 0, 0], "abc", [1, 2, "3"], {}, [1] * 100_000)]
FORGED += [{"weight_decay": -1}, {"momentum": "0.9"}, {"momentum": None}, {"dropout_1": 0.5}, {"nesterov": True}]


@pytest.mark.parametrize("change", FORGED, ids=lambda change: str(change)[:40])
def test_forged_lists_and_options_are_refused(d2l, change, tmp_path):
    model = built(by_hand, "DropoutMLP")
    about = {"class": "DropoutMLP", "hparams": {**model.hparams, **change}, "backend": d2l.name}
    save_file(by_hand.get_weights(model), tmp_path / "w", {"d2ldrop": json.dumps(about)})
    with pytest.raises(d2ldrop.WeightsError) as caught:
        load_model(tmp_path / "w")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(tmp_path) in str(caught.value)
    if len(str(change)) > 200_000:  # refused before anything is made of each entry
        assert "to be a list" in str(caught.value)


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLPRegressor"])
def test_models_of_any_depth_are_copied_and_pickled(d2l, kind):
    model = built(d2l, kind, optimizer="adam")
    model.dropouts = [0.0, 0.0, 0.5]
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(outputs(d2l, copied), outputs(d2l, model))
        assert copied.hidden_dropouts == (0, 0, 0.5)
        assert (copied.hidden_widths, copied.optimizer) == ((9, 8, 7), "adam")


@pytest.mark.only_numpy
@pytest.mark.only_torch
def test_trainings_of_any_depth_are_resumed(d2l, tmp_path):
    def train(epochs, folder=tmp_path / "resumed", depth=3):
        model = made(d2l, "DropoutMLPScratch", depth, class_weights=WEIGHTS)
        trainer = Trainer(epochs, seed=0, progress=False, callbacks=[d2ldrop.Checkpoint(folder)])
        trainer.fit(model, (X, Y), resume=folder)
        return d2l.get_weights(model)

    whole = train(2, tmp_path / "whole")
    train(1)
    for name, value in train(2).items():
        np.testing.assert_array_equal(value, whole[name])
    with pytest.raises(d2ldrop.CheckpointError, match="num_hiddens"):
        train(3, depth=1)


@pytest.mark.only_tf
@pytest.mark.parametrize("kind", [*MODELS, "DropoutMLPRegressor"])
def test_keras_saves_models_of_any_depth(d2l, kind, tmp_path):
    import tensorflow as tf

    model = built(d2l, kind, optimizer="adam")
    model.compile(tf.keras.optimizers.SGD(0.1), loss="mse")  # sets `model.optimizer`, which is Keras' own name for it
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert loaded.hparams == model.hparams
    assert loaded.hparams["optimizer"] == "adam"
    np.testing.assert_array_equal(outputs(d2l, loaded), outputs(d2l, model))

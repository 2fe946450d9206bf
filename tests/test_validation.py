"""What is wrong is said before the first step, in one class of error and one sentence for all backends."""

import numpy as np
import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import EarlyStopping, Trainer

HYPERPARAMETERS = {
    "dropout_1": (1.5, -0.1, np.nan, "x", None, 10**400),
    "dropout_2": (1.01, np.inf, [0.1, 0.2]),
    "num_hiddens_1": (0, -5, 2.0, "8", None, True, 2.5),
    "num_outputs": (0, 10.0),
    "lr": (-0.1, None, np.nan, np.inf, "fast", True),
}


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_hyperparameters_are_checked_at_construction(d2l, small, kind, name):
    for value in HYPERPARAMETERS[name]:
        with pytest.raises(d2ldrop.D2LDropError, match=f"Expected {name} to be a .*Received: "):
            getattr(d2l, kind)(**{**small, name: value})


def test_numbers_of_numpy_are_hyperparameters(d2l, small, tmp_path):
    y = d2l.Digits().split(True).y
    given = {**small, "num_outputs": y.max() + 1, "num_hiddens_1": np.int32(32), "dropout_1": np.float32(0.25)}
    for kind in ("DropoutMLPScratch", "DropoutMLP"):
        trainer, model = fitted(d2l, given, kind=kind)
        expected, _ = fitted(d2l, small, kind=kind)
        assert trainer.history[0]["val_loss"] == expected.history[0]["val_loss"]
        d2ldrop.save_weights(model, tmp_path / "w.safetensors")
        assert d2ldrop.read_weights(tmp_path / "w.safetensors")[1]["hparams"] == small


@pytest.mark.parametrize("part", [True, False], ids=["training", "validation"])
def test_labels_without_an_output_are_refused(d2l, small, part):
    X, y = d2l.Digits().split(True)
    low = y < 5
    samples = [X[low], y[low], X[low], y[low]]
    samples[0 if part else 2], samples[1 if part else 3] = X, y
    model = d2l.DropoutMLPScratch(**{**small, "num_outputs": 5})
    with pytest.raises(d2ldrop.DataError, match=r"labels below 5, .*labels up to 9: .*num_outputs=10"):
        Trainer(1, progress=False).fit(model, d2l.ArrayData(*samples))
    trainer = Trainer(1, progress=False)
    trainer.fit(model, d2l.ArrayData(X[low], y[low]))
    with pytest.raises(d2ldrop.DataError, match="labels below 5"):
        trainer.evaluate(data=d2l.ArrayData(X[low], y[low], X, y))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_samples_that_are_not_finite_are_refused(d2l, bad):
    X, y = np.zeros((20, 3)), np.arange(20) % 2
    X[7, 1] = bad
    for arguments in ((X, y), (np.zeros((20, 3)), y, X, y)):
        with pytest.raises(d2ldrop.DataError, match=r"finite, as float32\. Received: .* in sample 7"):
            d2l.ArrayData(*arguments)


class Frame:
    """What pandas' data frames have, and polars'."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def to_numpy(self):
        return self.values


def test_the_same_pixels_in_other_forms_are_the_same(d2l, small):
    pixels = (d2l.Digits().split(True).X[:, 0] * 255).astype(np.uint8)
    y = d2l.Digits().split(True).y
    histories = []
    for X, labels in (
        (pixels, y),
        (pixels.astype(np.int64), y.astype(float)),
        (Frame(pixels.astype(np.int16)), y[:, None]),
        (pixels.tolist(), y.tolist()),
        (d2l.array(pixels.astype(np.int32)), d2l.array(y)),
    ):
        trainer, _ = fitted(d2l, small, data=d2l.ArrayData(X, labels))
        histories.append(trainer.history[0]["val_loss"])
    assert len(set(histories)) == 1
    assert d2l.ArrayData(np.random.default_rng(0).random((9, 2)), np.arange(9) % 2 == 0).num_classes == 2


def test_fit_takes_a_pair_of_arrays(d2l, small):
    X, y = d2l.Digits().split(True)
    expected, _ = fitted(d2l, small, data=d2l.ArrayData(X, y))
    trainer, _ = fitted(d2l, small, data=(X, y))
    assert trainer.history[0]["val_loss"] == expected.history[0]["val_loss"]


def test_what_fit_cannot_take_is_refused_with_what_to_write(d2l, small):
    model, trainer = d2l.DropoutMLP(**small), Trainer(1, progress=False)
    for wrong in ([], iter([]), np.zeros((3, 2)), d2l.Digits, None, [1, 2, 3]):
        with pytest.raises(d2ldrop.ArgumentError, match=r"Expected data.*Received"):
            trainer.fit(model, wrong)
    with pytest.raises(d2ldrop.ArgumentError, match=r"Received the class DropoutMLP: write DropoutMLP\(\.\.\.\)"):
        trainer.fit(d2l.DropoutMLP, d2l.Digits())
    for wrong in (None, "model", 3):
        with pytest.raises(d2ldrop.ArgumentError, match="Expected model to be a Module"):
            trainer.fit(wrong, d2l.Digits())
    with pytest.raises(d2ldrop.ArgumentError, match=r"Received the class EarlyStopping: write EarlyStopping\(\)"):
        Trainer(1, callbacks=[EarlyStopping])
    for wrong in (3, [3]):
        with pytest.raises(d2ldrop.ArgumentError, match="Expected callbacks to be"):
            Trainer(1, callbacks=wrong)
    for name, value in (("max_epochs", 0), ("max_epochs", 1.5), ("num_gpus", -1), ("gradient_clip_val", -1)):
        with pytest.raises(d2ldrop.ArgumentError, match=f"Expected {name} to be a .*Received: {value}"):
            Trainer(**{"max_epochs": 1, name: value})


def test_predict_takes_what_fit_takes(d2l, small):
    data = d2l.Digits()
    trainer, _ = fitted(d2l, small, data=data)
    X = data.split(False, d2l.channels_last).X
    expected = trainer.predict(X)
    assert expected.dtype == np.float32
    forms = {
        "float64": X.astype(np.float64),
        "reversed": X[::-1][::-1],
        "a framework's": d2l.array(X),
        "without the axis of channels": X.reshape(-1, 8, 8),
        "rows": X.reshape(-1, 64),
        "nested lists": X.tolist(),
        "a data frame": Frame(X.reshape(-1, 64)),
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(trainer.predict(form), expected, err_msg=name)
    # A row of a product may be rounded in another way at another place.
    np.testing.assert_allclose(trainer.predict(X[::-1]), expected[::-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trainer.predict(X.astype(np.float16)), expected, atol=0.05)
    np.testing.assert_allclose(trainer.predict(X[3]), expected[3:4], rtol=1e-5, atol=1e-6)
    assert trainer.predict(X[:0]).shape == (0, 10)
    np.testing.assert_array_equal(trainer.predict(np.rint(X).astype(int)), trainer.predict(np.rint(X)))  # no pixels
    for wrong, message in (
        (X.astype(complex), "X to hold numbers"),
        (np.zeros((3, 7)), r"X to hold samples .*Received: \(3, 7\)"),
    ):
        with pytest.raises(d2ldrop.DataError, match=message):
            trainer.predict(wrong)


def test_integers_are_pixels_in_predict_where_they_were_in_fit(d2l, small):
    pixels = (d2l.Digits().split(True).X * 255).astype(np.uint8)
    trainer, _ = fitted(d2l, small, data=d2l.ArrayData(pixels, d2l.Digits().split(True).y))
    np.testing.assert_array_equal(trainer.predict(pixels[:9].astype(np.int64)), trainer.predict(pixels[:9]))
    with pytest.raises(d2ldrop.DataError, match="pixels, 0 to 255"):
        trainer.predict(np.full((2, 1, 8, 8), 300))


def test_the_first_batch_of_a_readers_own_loader_is_checked(d2l, small):
    class Loaded(d2l.DataModule):
        def __init__(self, batches):
            self.batches, self.batch_size = batches, 4

        def get_dataloader(self, train):
            return self.batches

    X, y = np.zeros((4, 1, 8, 8), np.float32), np.arange(4)
    for batches, message in (
        ([], "at least one batch"),
        ([(np.full_like(X, np.nan), y)], "Expected inputs that are finite"),
        ([(X, y + 9)], "Expected labels below 10"),
    ):
        own = [tuple(map(d2l.array, batch)) for batch in batches]
        with pytest.raises(d2ldrop.DataError, match=message):
            Trainer(1, progress=False).fit(d2l.DropoutMLPScratch(**small), Loaded(own))


def test_validation_has_its_part_of_each_class(d2l):
    X, y = d2l.Digits().split(True)
    order = np.argsort(y, kind="stable")
    data = d2l.ArrayData(X[order], y[order])
    counts = [np.bincount(data.split(train).y, minlength=10) for train in (True, False)]
    assert len(data.split(False).y) == len(y) // 5
    np.testing.assert_allclose(counts[1] / sum(counts), 0.2, atol=0.01)
    again = d2l.ArrayData(X[order], y[order])
    np.testing.assert_array_equal(data.split(False).X, again.split(False).X)
    rows = {X.tobytes() for train in (True, False) for X in data.split(train).X}
    assert rows == {row.tobytes() for row in X}, "each sample is in one of the two parts"
    last = d2l.ArrayData(X[order], y[order], shuffle=False)
    np.testing.assert_array_equal(last.split(False).y, y[order][-len(y) // 5 + 1 :])


def test_data_sorted_by_class_are_learnt(d2l, small):
    X, y = d2l.Digits().split(True)
    order = np.argsort(y, kind="stable")
    accuracies = [
        fitted(d2l, small, 6, data=d2l.ArrayData(X[order], y[order], batch_size=32, shuffle=shuffle))[0].history[-1]
        for shuffle in (True, False)
    ]
    assert accuracies[0]["val_acc"] > 0.8 > 0.5 > accuracies[1]["val_acc"]


def test_without_samples_to_validate_on_training_has_all(d2l):
    X, y = (part[:40] for part in d2l.Digits().split(True))
    trainer = Trainer(1, seed=0, progress=False)
    trainer.fit(d2l.SoftmaxRegression(num_outputs=10, lr=0.1), d2l.ArrayData(X, y, X[:0], y[:0], batch_size=40))
    assert trainer.epoch_log["train_loss"][1] == [40]
    assert not [key for key in trainer.history[0] if key.startswith("val_")]
    with pytest.raises(d2ldrop.DataError, match="Expected samples to validate on"):
        trainer.evaluate()


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP", "SoftmaxRegression"])
def test_samples_of_another_size_than_the_model_was_made_for_are_refused(d2l, small, kind, loaded, tmp_path):
    hparams = {"num_outputs": 10, "lr": 0.1} if kind == "SoftmaxRegression" else small
    trainer, model = fitted(d2l, hparams, kind=kind)
    if loaded:
        d2ldrop.save_weights(model, tmp_path / "w")
        model = d2ldrop.load_model(tmp_path / "w")
    X, y = np.random.default_rng(0).random((40, 3), np.float32), np.arange(40) % 10
    before = d2l.get_weights(model)
    for use in (
        lambda: trainer.predict(X, model),
        lambda: trainer.predict(X[:0], model),
        lambda: trainer.evaluate(model, d2l.ArrayData(X, y)),
        lambda: d2ldrop.Trainer(1, progress=False).fit(model, d2l.ArrayData(X, y)),
    ):
        with pytest.raises(d2ldrop.DataError, match=r"Expected X to hold samples \(.*as in training. Received: \("):
            use()
    for name, value in d2l.get_weights(model).items():
        np.testing.assert_array_equal(value, before[name])
    images = d2l.Digits().split(False, d2l.channels_last).X
    assert trainer.predict(images, model).shape == (len(images), 10)
    d2ldrop.Trainer(1, progress=False).fit(model, d2l.Digits())

"""Regression: what counts as targets, how they are set aside, and training, evaluation and logs without accuracy."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

import d2ldrop
from d2ldrop import ArrayData, Callback, DataError, EarlyStopping, HistoryLog, Trainer

NUMPY = d2ldrop.backend("numpy")
WIDTHS = {"num_hiddens": [16], "dropouts": [0.1]}


@pytest.fixture(scope="module")
def diabetes():
    """Return scikit-learn's data on diabetes, whose targets are whole numbers as floats, standardised."""
    X, y = load_diabetes(return_X_y=True)
    return X * 20, (y - y.mean()) / y.std()


@pytest.mark.parametrize(
    ("y", "regression", "targets"),
    [
        (np.linspace(0, 1, 10), None, 1),
        (np.linspace(0, 1, 10).astype(np.float16), None, 1),
        (np.arange(10.0) - 5, None, 1),
        (np.arange(20.0).reshape(10, 2), None, 2),
        (np.arange(20).reshape(10, 2), None, 2),
        (np.linspace(0, 1, 10)[:, None].tolist(), None, 1),
        (np.arange(10.0), None, None),
        (np.arange(10.0)[:, None], None, None),
        (np.arange(10), None, None),
        (np.arange(10.0), True, 1),
        (np.arange(10) - 5, True, 1),
        (np.arange(10) % 2 == 0, True, 1),
        (np.arange(10.0), False, None),
    ],
)
def test_targets_and_classes_are_told_apart(y, regression, targets):
    data = ArrayData(np.zeros((10, 3)), y, regression=regression)
    assert data.is_regression == (targets is not None)
    assert data.num_outputs == (targets or 10)
    for train, count in ((True, 8), (False, 2)):
        labels = data.split(train).y
        assert labels.shape == ((count, targets) if targets else (count,))
        assert labels.dtype == (np.float32 if targets else np.int64)
    assert hasattr(data, "num_classes") == (targets is None)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.full(10, 0.5), {"regression": False}, r"whole numbers from 0 .*pass regression=True"),
        (
            np.array([*range(9), np.nan]),
            {},
            r"y to hold numbers that are finite, as float32\. Received: nan in sample 9",
        ),
        (np.array([*range(9), np.inf]), {"regression": True}, "Received: inf in sample 9"),
        (np.array([*range(9), 1e300]), {"regression": True}, "Received: inf in sample 9"),
        (np.array(list("abcdefghij")), {"regression": True}, "y to hold the numbers"),
        (np.zeros((10, 0)), {}, "y of shape"),
        (np.zeros((10, 2, 2)), {}, "y of shape"),
        (np.zeros(0), {"regression": True}, "as many samples as labels"),
    ],
)
def test_wrong_targets_are_refused(y, options, message):
    with pytest.raises(DataError, match=message):
        ArrayData(np.zeros((10, 3)), y, **options)


def test_validation_targets_are_as_many_as_those_of_training():
    X, y = np.zeros((4, 3)), np.linspace(0, 1, 4)
    assert ArrayData(X, y, X, np.arange(4)).split(False).y.dtype == np.float32  # of the same kind, whatever they are
    with pytest.raises(DataError, match=r"y_val of targets \(1,\)\. Received: \(2,\)"):
        ArrayData(X, y, X, np.zeros((4, 2)))
    with pytest.raises(DataError, match="whole numbers from 0"):
        ArrayData(X, np.arange(4), X, y)


def test_a_shuffled_fifth_is_set_aside():
    y = np.arange(100) + 0.5
    data, again = ArrayData(y[:, None], y), ArrayData(y[:, None], y)
    parts = [data.split(train).y[:, 0] for train in (True, False)]
    assert [len(part) for part in parts] == [80, 20]
    assert sorted(np.concatenate(parts)) == y.tolist()
    assert parts[1].min() < 20 < 80 < parts[1].max()  # not the last fifth
    np.testing.assert_array_equal(parts[1], again.split(False).y[:, 0])
    np.testing.assert_array_equal(data.split(False).X, data.split(False).y)
    np.testing.assert_array_equal(ArrayData(y[:, None], y, shuffle=False).split(False).y[:, 0], y[80:])


def test_loaders_yield_targets(d2l):
    data = d2l.ArrayData(np.zeros((10, 3)), np.linspace(0, 1, 20).reshape(10, 2), batch_size=4)
    batches = [(d2l.numpy(X), d2l.numpy(y)) for X, y in data.train_dataloader()]
    assert [y.shape for _, y in batches] == [(4, 2), (4, 2)]
    assert {y.dtype.name for _, y in batches} == {"float32"}
    assert data.text_labels(np.array([[0.5, 2], [1, 0.25]])) == ["0.5, 2", "1, 0.25"]


def fit(d2l, data, epochs=5, callbacks=(), **options):
    model = d2l.DropoutMLPRegressor(num_outputs=1, lr=0.1, **WIDTHS)
    trainer = Trainer(epochs, seed=0, callbacks=callbacks, **{"progress": False, **options})
    trainer.fit(model, data)
    return trainer


def test_training_learns_and_has_no_accuracy(d2l, diabetes, tmp_path, capsys):
    """The squared loss of standardised targets is 0.5 before training, and about 0.25 for a linear model."""
    log, rows = HistoryLog(tmp_path / "h.csv"), []

    class Look(Callback):
        def on_epoch_end(self, trainer):
            rows.append(trainer.history[-1])

    X, y = diabetes
    data = d2l.ArrayData(X, y, batch_size=32)
    trainer = fit(d2l, data, callbacks=[log, Look(), EarlyStopping("val_loss", patience=5)], progress=True)
    assert set(rows[0]) == {"epoch", "train_loss", "val_loss", "seconds", "samples_per_second"}
    assert "val_loss 0." in capsys.readouterr().err  # the bar
    assert trainer.history[-1]["val_loss"] < 0.32
    assert set(trainer.model.board.curves) == {"train_loss", "val_loss"}
    X, y = data.split(False)
    residuals = trainer.predict(X) - y
    expected = trainer.evaluate()
    assert set(expected) == {"val_loss"}
    assert expected["val_loss"] == pytest.approx((residuals**2).mean() / 2, rel=1e-4)
    assert (tmp_path / "h.csv").read_text().startswith("epoch,train_loss,val_loss,seconds")


def test_a_pair_of_arrays_is_what_the_model_predicts(diabetes):
    """Whole numbers, which would be classes, are targets for a regressor."""
    X, y = diabetes
    whole = np.floor(y - y.min())
    assert not ArrayData(X, whole).is_regression
    trainer = fit(NUMPY, (X, whole), epochs=1)
    assert trainer.data.is_regression


def test_a_resumed_regression_is_the_same(diabetes, tmp_path):
    data = NUMPY.ArrayData(*diabetes, batch_size=64)
    whole = fit(NUMPY, data, epochs=3)
    fit(NUMPY, data, epochs=2, callbacks=[d2ldrop.Checkpoint(tmp_path)])
    model = NUMPY.DropoutMLPRegressor(num_outputs=1, lr=0.1, **WIDTHS)
    resumed = Trainer(3, seed=0, progress=False, callbacks=[d2ldrop.Checkpoint(tmp_path)])
    resumed.fit(model, data, resume=tmp_path)
    for name, value in NUMPY.get_weights(whole.model).items():
        np.testing.assert_array_equal(NUMPY.get_weights(model)[name], value)


def test_classifiers_and_regressors_refuse_what_is_for_the_other(d2l, small):
    X = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    classes, targets = np.arange(20) % 2, np.linspace(0, 1, 20)
    classifier = d2l.DropoutMLP(**small)
    regressor = d2l.DropoutMLPRegressor(num_outputs=2, lr=0.1, **WIDTHS)
    for model, y, message in (
        (classifier, targets, "Expected classes for the classifier DropoutMLP.*use a regressor"),
        (classifier, np.eye(2)[classes], r"y\.argmax\(axis=1\) if they are one-hot"),
        (regressor, classes, "Expected floating-point targets for the regressor DropoutMLPRegressor"),
        (regressor, targets, r"Expected 2 targets per sample.*Received 1: .*num_outputs=1"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            Trainer(1, progress=False).fit(model, d2l.ArrayData(X, y))
        assert "\n" not in str(raised.value)
        with pytest.raises(DataError, match=message):
            Trainer(1, progress=False).evaluate(model, d2l.ArrayData(X, y))


@pytest.mark.only_torch
def test_a_readers_own_regression(d2l, diabetes):
    """As in the book: a `Module` with a squared loss, which says nothing of what it predicts."""
    import torch

    class LinearRegression(d2l.Module):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.LazyLinear(1)

        def loss(self, y_hat, y):
            return ((y_hat - y) ** 2 / 2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr)

    trainer = Trainer(5, seed=0, progress=False)
    trainer.fit(LinearRegression(lr=0.1), d2l.ArrayData(*diabetes, batch_size=32))
    assert trainer.history[-1]["val_loss"] < 0.32  # with y of shape (N,), the difference would be of shape (N, N)

"""Names that the book's chapters before dropout use, beside those of models, and what is said of those that we lack."""

import importlib
import re
import sys

import numpy as np
import pytest

import d2ldrop
from d2ldrop import compat
from d2ldrop.data import Digits
from d2ldrop.errors import ArgumentError, DataError, UsageError
from d2ldrop.missing import ELSEWHERE


def weights(d2l):
    return d2l.array(np.array([2.0, -3.4], np.float32))


def check_linear(X, y, noise):
    """Check that inputs are standard normal, and that the labels are those of `weights` with the bias 4.2."""
    assert X.mean() == pytest.approx(0, abs=0.15)
    assert X.std() == pytest.approx(1, abs=0.15)
    residuals = y[:, 0] - X @ np.array([2.0, -3.4]) - 4.2
    assert residuals.std() == pytest.approx(noise, rel=0.2)
    assert residuals.mean() == pytest.approx(0, abs=noise / 2)


def test_synthetic_regression_data(d2l):
    data = d2l.SyntheticRegressionData(w=weights(d2l), b=4.2, noise=0.5, num_train=300, num_val=100, batch_size=64)
    assert d2l.is_array(data.X)
    X, y = d2l.numpy(data.X), d2l.numpy(data.y)
    assert (X.shape, y.shape) == ((400, 2), (400, 1))
    assert X.dtype == y.dtype == np.float32
    check_linear(X, y, 0.5)
    np.testing.assert_array_equal(np.ravel(d2l.numpy(data.w)), np.float32([2, -3.4]))  # what was passed
    assert [len(y) for _, y in data.train_dataloader()] == [64, 64, 64, 64, 44]
    validation = np.concatenate([d2l.numpy(X) for X, _ in data.val_dataloader()])
    np.testing.assert_array_equal(validation, X[300:])
    other = d2l.SyntheticRegressionData(w=weights(d2l), b=4.2)
    assert not np.array_equal(d2l.numpy(other.X)[:400], X)
    d2l.seed(0)
    again = d2l.SyntheticRegressionData(w=weights(d2l), b=4.2, noise=0.5, num_train=300, num_val=100)
    np.testing.assert_array_equal(d2l.numpy(again.X), X)


def test_synthetic_data_checks_its_numbers(d2l):
    with pytest.raises(ArgumentError, match="num_train to be a positive integer"):
        d2l.SyntheticRegressionData(weights(d2l), 4.2, num_train=0)
    with pytest.raises(ArgumentError, match="noise to be a number of at least 0"):
        d2l.SyntheticRegressionData(weights(d2l), 4.2, noise=-1)
    for num_val in (-1, 2.5, True, np.nan, None):
        with pytest.raises(ArgumentError, match="num_val to be an integer of at least 0"):
            d2l.SyntheticRegressionData(weights(d2l), 4.2, num_val=num_val)
        with pytest.raises(ArgumentError, match="num_examples to be an integer of at least 0"):
            d2l.synthetic_data(weights(d2l), 4.2, num_val)


@pytest.mark.parametrize("wrong", [None, "ab", [], [np.nan], [1e300], [1j], [[1], [2, 3]]], ids=repr)
def test_weights_of_synthetic_data_are_finite_numbers(wrong):
    d2l = d2ldrop.backend("numpy")
    with pytest.raises(ArgumentError, match="Expected w to be finite real numbers"):
        d2l.SyntheticRegressionData(wrong, 4.2)
    with pytest.raises(ArgumentError, match="Expected b to be finite real numbers"):
        d2l.SyntheticRegressionData([2, -3.4], wrong)
    with pytest.raises(ArgumentError, match="Expected b to be a single number"):
        d2l.SyntheticRegressionData([2, -3.4], [1, 2])


def test_load_array_checks_what_it_is_given(d2l):
    X, y = d2l.array(np.ones((10, 1), np.float32)), d2l.array(np.ones(10, np.float32))
    for arrays in ((), (X, y[:5]), (X[:5], y)):
        with pytest.raises(DataError, match="of equal length"):
            d2l.load_array(arrays, 4)
    with pytest.raises(DataError, match="of equal length"):
        d2l.DataModule().get_tensorloader((X, y[:5]), train=False)
    for batch_size in (0, -1, 2.5, "4"):
        with pytest.raises(ArgumentError, match="batch_size to be a positive integer"):
            d2l.load_array((X, y), batch_size)


def test_accuracies_broadcast_no_labels(d2l):
    scores, labels = d2l.array(np.eye(4, 3, dtype=np.float32)), d2l.array(np.array([0, 1, 2, 1]))
    assert d2l.accuracy(scores, labels) == d2l.accuracy(d2l.array(np.array([0, 1, 2, 0])), labels) == 3
    with pytest.raises(ArgumentError, match="Expected scores"):
        d2l.accuracy(d2l.reshape(labels, (4, 1)), labels)
    for y in (d2l.reshape(labels, (4, 1)), labels[:1], labels[:3]):
        for y_hat in (scores, labels):
            with pytest.raises(ArgumentError, match=r"Expected labels \(4,\) for predictions \(4"):
                d2l.accuracy(y_hat, y)
        for evaluate in (d2l.evaluate_accuracy, d2l.evaluate_accuracy_gpu):
            with pytest.raises(ArgumentError, match=r"Expected labels \(4,\)"):
                evaluate(lambda X: X, [(scores, y)])


def test_loaders_without_batches_are_refused(d2l):
    for evaluate in (d2l.evaluate_accuracy, d2l.evaluate_accuracy_gpu):
        with pytest.raises(DataError, match=r"Expected batches of samples\. Received none"):
            evaluate(lambda X: X, [])
    for evaluate in (lambda: d2l.evaluate_loss(None, [], None), lambda: d2l.train_epoch_ch3(None, [], None, None)):
        with pytest.raises(DataError, match=r"Expected batches of samples\. Received none"):
            evaluate()


def test_functions_of_linear_regression(d2l):
    X, y = d2l.synthetic_data(weights(d2l), 4.2, 1000)
    assert d2l.is_array(X)
    check_linear(d2l.numpy(X), d2l.numpy(y), 0.01)
    ordered = list(d2l.load_array((X, y), 300, is_train=False))
    assert [len(y) for _, y in ordered] == [300, 300, 300, 100]
    np.testing.assert_array_equal(d2l.numpy(ordered[1][0]), d2l.numpy(X)[300:600])
    shuffled = np.concatenate([d2l.numpy(y) for _, y in d2l.load_array((X, y), 300)])
    assert not np.array_equal(shuffled, d2l.numpy(y))
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(d2l.numpy(y), axis=0))
    y_hat = d2l.linreg(X, d2l.reshape(weights(d2l), (2, 1)), 4.2)
    losses = d2l.numpy(d2l.squared_loss(y_hat, d2l.reshape(y, (-1,))))
    assert losses.shape == (1000, 1)
    np.testing.assert_allclose(losses, (d2l.numpy(y_hat) - d2l.numpy(y)) ** 2 / 2, rtol=1e-5)
    assert losses.mean() == pytest.approx(0.01**2 / 2, rel=0.2)


def test_parts_of_a_data_set(d2l):
    data = d2l.Digits()
    own = Digits()
    for part, train in ((data.train, True), (data.val, False)):
        X, y = own.split(train)
        images, labels = part.data, part.targets
        as_host = np.asarray if d2l.channels_last else d2l.numpy
        np.testing.assert_array_equal(as_host(images), X[:, 0])
        np.testing.assert_array_equal(as_host(labels), y)
    if d2l.channels_last:  # a pair of arrays
        assert len(data.train[0]) == len(data.train[1]) == 1437
        assert data.train[0][0].shape == (8, 8)
        return
    assert (len(data.train), len(data.val)) == (1437, 360)
    image, label = data.val[-1]
    assert tuple(image.shape) == (1, 8, 8)
    assert label == own.split(False).y[-1]
    np.testing.assert_array_equal(d2l.numpy(image)[0], own.split(False).X[-1, 0])
    assert tuple(data.train[:3][0].shape) == (3, 1, 8, 8)
    with pytest.raises(IndexError):
        data.val[360]


def test_pixels_of_a_sample_are_floats(d2l):
    if not d2l.channels_last:
        sample, label = d2l.ArrayData(np.full((5, 2), 255, np.uint8), np.arange(5) % 2).val[0]
        assert d2l.numpy(sample).tolist() == [1.0, 1.0]
        assert label in (0, 1)


def test_root_is_the_books(d2l):
    assert d2l.DataModule().root == "../data"


def small_net(d2l):
    if d2l.name == "torch":
        nn = importlib.import_module("torch").nn
        return nn.Sequential(d2l.FlattenLayer(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    if d2l.name == "tf":
        keras = importlib.import_module("tensorflow").keras
        layers = [keras.layers.Flatten(), keras.layers.Dense(16, "relu"), keras.layers.Dense(10)]
        return lambda: keras.Sequential(layers)
    nn = importlib.import_module("mxnet.gluon.nn")
    net = nn.Sequential()
    net.add(nn.Dense(16, activation="relu"), nn.Dense(10))
    return net


@pytest.mark.only_torch
@pytest.mark.only_tf
@pytest.mark.only_mxnet
def test_train_ch6(d2l):
    data, net = d2l.Digits(32), small_net(d2l)
    device = d2l.cpu()
    history = d2l.train_ch6(net, data.train_dataloader(), data.val_dataloader(), 3, 0.3, device)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["test_acc"] > 0.8
    if d2l.name != "tf":  # there the net stays inside
        accuracy = d2l.evaluate_accuracy_gpu(net, data.val_dataloader())
        assert accuracy == pytest.approx(history[-1]["test_acc"])
        assert d2l.evaluate_accuracy_gpu(net, data.val_dataloader(), device) == accuracy


@pytest.mark.only_torch
@pytest.mark.only_tf
@pytest.mark.only_mxnet
def test_train_ch6_checks_its_numbers(d2l):
    for lr in (-1.0, np.nan, "x"):
        with pytest.raises(ArgumentError, match="Expected lr to be a number of at least 0"):
            d2l.train_ch6(None, [], [], 1, lr)
    for num_epochs in (-1, 1.5, None):
        with pytest.raises(ArgumentError, match="Expected num_epochs to be an integer of at least 0"):
            d2l.train_ch3(None, [], [], None, num_epochs, None)


@pytest.mark.only_mxnet
def test_gradients_of_zero_stay_zero(d2l):
    param = d2l.zeros(2)
    param.attach_grad()
    for theta in (0, 1):
        d2l.grad_clipping(type("Net", (), {"params": [param]}), theta)
        assert d2l.numpy(param.grad).tolist() == [0, 0]


@pytest.mark.only_torch
@pytest.mark.only_tf
@pytest.mark.only_mxnet
def test_grad_clipping(d2l):
    big, small = np.float32([3, 0]), np.float32([0, 4])
    if d2l.name == "tf":
        clipped = d2l.grad_clipping([d2l.array(big), d2l.array(small)], 1)
    else:
        params = [d2l.zeros(2), d2l.zeros(2)]
        net = type("Net", (), {"params": params})
        if d2l.name == "torch":
            params[0].grad, params[1].grad = d2l.array(big), d2l.array(small)
        else:
            for param, values in zip(params, (big, small), strict=True):
                param.attach_grad()
                param.grad[:] = d2l.array(values)
        d2l.grad_clipping(net, 10)
        assert d2l.numpy(params[0].grad).tolist() == [3, 0]  # shorter ones stay
        d2l.grad_clipping(net, 1)
        clipped = [param.grad for param in params]
        for theta in (-1, np.nan, "1", None):
            with pytest.raises(ArgumentError, match="Expected theta to be a number of at least 0"):
                d2l.grad_clipping(net, theta)
    np.testing.assert_allclose([d2l.numpy(grad) for grad in clipped], [[0.6, 0], [0, 0.8]], rtol=1e-5)


@pytest.mark.only_tf
def test_gradients_that_are_none_are_not_clipped(d2l):
    none, clipped = d2l.grad_clipping([None, d2l.array(np.float32([3, 4]))], 1)
    assert none is None
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-5)
    with pytest.raises(ArgumentError, match="Expected theta to be a number of at least 0"):
        d2l.grad_clipping([clipped], -1)


@pytest.mark.parametrize("shape", [(3, 3), (0, 1, 3, 3), (1, 1, 0, 3)])
def test_heatmaps_are_a_grid_of_matrices(shape):
    with pytest.raises(DataError, match=r"Expected matrices \(rows, columns, H, W\)"):
        d2ldrop.backend("numpy").show_heatmaps(np.ones(shape), "keys", "queries")


def test_heatmaps_share_a_scale(d2l):
    matrices = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    axes = d2l.show_heatmaps(d2l.array(matrices), "keys", "queries", titles=["first", "second"])
    assert axes.shape == (1, 2)
    assert [axis.get_title() for axis in axes[0]] == ["first", "second"]
    assert (axes[0, 0].get_ylabel(), axes[0, 1].get_xlabel()) == ("queries", "keys")
    assert {axis.images[0].get_clim() for axis in axes[0]} == {(0, 23)}


def test_set_axes(d2l):
    _, axes = d2l.plt.subplots()
    axes.plot([1, 2], [1, 2])
    d2l.set_axes(axes, "x", "f", (0, 3), None, "linear", "log", ["curve"])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim(), axes.get_yscale()) == ("x", "f", (0, 3), "log")
    assert axes.get_legend().get_texts()[0].get_text() == "curve"


@pytest.mark.skip_toy
@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("train_ch13", "nearest is Trainer"), ("FashonMNIST", "nearest is FashionMNIST"), ("Vocab", "__all__ lists")],
)
def test_a_name_that_is_missing_is_answered(d2l, asked, nearest):
    with pytest.raises(AttributeError, match=f"Received: '{asked}', which it lacks.*{nearest}"):
        getattr(d2l, asked)
    assert not hasattr(d2l, "__wrapped__")  # Python's own questions get Python's answer


def test_the_answers_name_classes_that_exist():
    public = {*d2ldrop.backend("numpy").__all__, *d2ldrop.__all__, "LinearRegression"}
    firsts = [re.match(r"\w+", answer)[0] for answer in ELSEWHERE.values()]
    named = {first for first in firsts if first[0].isupper()}
    assert "Trainer" in named
    assert named <= public


@pytest.fixture
def installed(monkeypatch):
    """Let `d2l` be found for one test."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "d2l"]:
        monkeypatch.delitem(sys.modules, name)
    compat.install()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "d2l"]:
        del sys.modules[name]


def test_notebooks_of_the_books_package_find_this_one(installed, d2l):
    spec = d2l.__spec__
    name = {"tf": "tensorflow"}.get(d2l.name, d2l.name)
    assert importlib.import_module(f"d2l.{name}") is d2l
    assert d2l.__spec__ is spec
    assert getattr(importlib.import_module("d2l"), name) is d2l
    compat.install()  # once more
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("d2l.paddle")


def test_install_comes_before_the_books_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "d2l", sys)  # some other module
    with pytest.raises(UsageError, match="before 'd2l' is imported"):
        compat.install()

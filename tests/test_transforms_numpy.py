"""Dropout by hand, where NumPy's arrays are of other kinds than usual, and the `Dropout` layer of NumPy."""

import copy
import math
import pickle
import threading
import warnings

import numpy as np
import pytest

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

pytestmark = pytest.mark.only_numpy
DTYPES = ["float16", "float32", "float64"]


def check(*results, p=0.5, draws=None):
    """Check that arrays are 0 or 1 / (1 - p), about as often as they should be, and differ from one another."""
    for Y in results:
        np.testing.assert_allclose(np.asarray(Y)[Y != 0], 1 / (1 - p), rtol=1e-3 if Y.dtype == np.float16 else 1e-4)
        assert abs((Y != 0).mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / (draws or Y.size))
    assert len({Y.tobytes() for Y in results}) == len(results)


def training(d2l, p, **options):
    """Return a layer that drops."""
    layer = d2l.Dropout(p, **options)
    layer.train()
    return layer


# Kinds of arrays


@pytest.mark.parametrize("dtype", DTYPES)
def test_read_only_and_strided_arrays(d2l, dtype):
    X = np.ones((60, 70), dtype)
    X.flags.writeable = False
    for view in (X, X.T, X[::-2, ::3], np.asfortranarray(X), np.broadcast_to(X[:1], (500, 70))):
        before = view.copy()
        Y = d2l.dropout_layer(view, 0.3)
        check(Y, d2l.dropout_layer(view, 0.3), p=0.3)
        assert (Y.dtype, Y.shape, Y.flags.writeable) == (view.dtype, view.shape, True)
        np.testing.assert_array_equal(view, before)


def test_byte_swapped_arrays_become_those_of_the_machine(d2l):
    for kind in ("f2", "f4", "f8", "i4"):
        for p in (0, 0.5, 1):
            Y = d2l.dropout_layer(np.ones(200, np.dtype(kind).newbyteorder()), p)
            assert Y.dtype == (np.float64 if kind == "i4" else kind)
            assert set(Y.tolist()) == {0: {1.0}, 0.5: {0.0, 2.0}, 1: {0.0}}[p]


def test_masked_arrays_stay_masked(d2l):
    X = np.ma.array(np.ones((40, 50), np.float32), mask=np.random.default_rng(0).random((40, 50)) < 0.1)
    for p in (0, 0.5, 1):
        Y = d2l.dropout_layer(X, p)
        assert isinstance(Y, np.ma.MaskedArray)
        np.testing.assert_array_equal(Y.mask, X.mask)
    Y = d2l.dropout_layer(X, 0.5)
    check(Y.data)
    Y[0, 0] = np.ma.masked
    Y.mask[1, 1] = ~X.mask[1, 1]
    assert Y.mask[1, 1] != X.mask[1, 1]  # it is not the mask of X itself


def test_subclasses_stay_what_they_are(d2l, tmp_path):
    class Measured(np.ndarray):
        unit = None

        def __array_finalize__(self, made_from):
            self.unit = getattr(made_from, "unit", None)

    X = np.ones((30, 40), np.float32).view(Measured)
    X.unit = "m"
    Y = d2l.dropout_layer(X, 0.5)
    assert (type(Y), Y.unit) == (Measured, "m")
    check(np.asarray(Y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # NumPy advises against matrices
        assert isinstance(d2l.dropout_layer(np.matrix(np.ones((3, 4))), 0.5), np.matrix)
    fields = np.ones(600, [("a", np.float32), ("b", np.int32)]).view(np.recarray)
    check(np.asarray(d2l.dropout_layer(fields.a, 0.5)))
    stored = np.memmap(tmp_path / "X", np.float32, "w+", shape=(30, 40))
    stored[:] = 1
    Y = d2l.dropout_layer(stored, 0.5)
    check(Y)
    assert not isinstance(Y, np.memmap)  # it is in memory, as for NumPy's own functions
    assert (stored == 1).all()


def test_scalars_and_arrays_without_axes(d2l):
    for X in (np.float32(3), np.array(3, np.float32), np.float16(3), np.float64(3), np.array(3, np.float16)):
        results = [d2l.dropout_layer(X, p) for p in (0, 1, *[0.5] * 20)]
        assert all(type(Y) is np.ndarray and Y.shape == () and Y.dtype == X.dtype for Y in results)
        assert [results[0], results[1]] == [3, 0]
        assert {float(Y) for Y in results[2:]} <= {0.0, 6.0}


@pytest.mark.parametrize("X", [[1.0, 2.0], (1.0,), 3.0, 3, None, "text", range(3)], ids=repr)
def test_what_is_no_array_is_refused(d2l, X):
    message = rf"Expected X to be an array of numpy\. Received: {type(X).__name__}\. "
    with pytest.raises(d2ldrop.errors.ArgumentTypeError, match=message):
        d2l.dropout_layer(X, 0.5)


@pytest.mark.parametrize("dtype", ["complex64", "U3", "S2", "O", "M8[s]", "m8[s]", "f4, f4", "V4", "longdouble"])
def test_other_numbers_are_refused(d2l, dtype):
    X = np.zeros(3, dtype)
    if X.dtype == np.float64:
        pytest.skip("a long double is a double on this machine")
    for p in (0, 0.5, 1):
        with pytest.raises(d2ldrop.errors.ArgumentTypeError, match="Expected X to hold real numbers of 16 to 64 bits"):
            d2l.dropout_layer(X, p)


# Axes


@pytest.mark.parametrize("axes", [(0,), (1,), (-1,), (2, 3), (-2, -1), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_draw_is_shared_along_axes(d2l, axes, dtype):
    d2l.seed(0)
    X = np.ones((20, 30, 4, 5), dtype)
    Y = d2l.dropout_layer(X, 0.3, axes=axes)
    assert (Y.dtype, Y.shape) == (X.dtype, X.shape)
    first = np.take(Y, [0], axes[0])
    for axis in axes[1:]:
        first = np.take(first, [0], axis)
    np.testing.assert_array_equal(Y, np.broadcast_to(first, Y.shape))
    if first.size > 1:
        check(Y, p=0.3, draws=first.size)


def test_axes_leave_other_masks_as_they_are(d2l):
    X, drawn = np.ones((7, 9)), []
    for options in ({}, {"axes": ()}):
        d2l.seed(4)
        drawn.append(d2l.dropout_layer(X, 0.3, **options))
    np.testing.assert_array_equal(*drawn)
    assert d2l.dropout_layer(np.ones((3, 0)), 0.5, axes=(1,)).shape == (3, 0)


def test_axes_that_are_not_there_are_refused(d2l):
    for axes in ((2,), (0, -3)):
        with pytest.raises(d2ldrop.errors.ArgumentError, match="Expected axes of an array of 2 axes"):
            d2l.dropout_layer(np.ones((2, 3)), 0.5, axes=axes)
        with pytest.raises(d2ldrop.errors.ArgumentError, match="Expected axes of an array of 2 axes"):
            training(d2l, 0.5, axes=axes)(np.ones((2, 3)))


def test_a_dropped_inf_is_zero_along_axes(d2l):
    Y = d2l.dropout_layer(np.full((200, 5), np.nan), 0.5, axes=(1,))
    assert ((Y == 0).all(axis=1) | np.isnan(Y).all(axis=1)).all()
    assert 0 < (Y == 0).sum() < Y.size


# The draws of other noise


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3, 0), (300, 40)], ids=str)
def test_draws_for_other_noise(d2l, dtype, shape):
    d2l.seed(1)
    X, backend = np.full(shape, 5, dtype), d2l.backend
    Z = backend.normal_like(X)
    assert (type(Z), Z.shape, Z.dtype) == (np.ndarray, shape, X.dtype)
    for p, axes in ((0, ()), (0.3, ()), (1, ()), (0.3, tuple(range(len(shape)))[-1:])):
        mask = backend.keep_mask(X, odds(p), axes)
        assert (type(mask), mask.dtype) == (np.ndarray, bool)
        assert mask.shape == tuple(1 if k in axes else n for k, n in enumerate(shape))
        assert p not in (0, 1) or (mask == (p == 0)).all()
        Y = backend.where(mask, X, -1.5)
        assert (type(Y), Y.shape, Y.dtype) == (np.ndarray, np.broadcast_shapes(mask.shape, shape), X.dtype)
        np.testing.assert_array_equal(Y, np.where(mask, 5, -1.5) + np.zeros(shape))
    if X.size > 1:
        mask, Z = backend.keep_mask(X, odds(0.3)), Z.astype(np.float64)
        assert abs(mask.mean() - 0.7) < 5 * math.sqrt(0.21 / X.size)
        assert abs(Z.mean()) < 5 / math.sqrt(X.size)
        assert abs(Z.var() - 1) < 5 * math.sqrt(2 / X.size)


def test_draws_for_other_noise_come_from_where_masks_do(d2l):
    X, drawn = np.ones((5, 6), np.float32), []
    for seed in (3, 3, 4):
        d2l.seed(seed)
        drawn.append([d2l.backend.normal_like(X).tobytes() for _ in range(2)])
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 4
    shared = []
    for seed in (5, 6):
        d2l.seed(seed)
        with sharing_masks(np.random.default_rng(0)):
            shared.append(d2l.backend.normal_like(X))
    np.testing.assert_array_equal(*shared)


# The layer


def test_the_layer_drops_in_training_alone(d2l):
    d2l.seed(0)
    layer, X = d2l.Dropout(0.3), np.ones((60, 70), np.float32)
    assert layer(X) is X
    assert layer.backward(X) is X
    layer.train()
    check(layer(X), layer(X), p=0.3)
    layer.train(False)
    assert layer(X) is X


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [(), (1,), (-1, 0)], ids=str)
@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_forward_and_backward_of_the_layer_are_one_mask(d2l, dtype, axes, p):
    layer, X = training(d2l, p, axes=axes), np.ones((20, 6, 30), dtype)
    Y, dX = layer(X), layer.backward(np.ones_like(X))
    assert Y.dtype == dX.dtype == X.dtype
    np.testing.assert_array_equal(Y, dX)
    assert set(np.unique((Y * (1 - p)).round(2)).tolist()) <= {0.0, 1.0}
    bad = layer(np.full_like(X, np.inf))
    assert not np.isnan(bad).any()
    if p == 1:
        assert not Y.any()
        assert not bad.any()


def test_the_layer_takes_integers_and_swapped_bytes(d2l):
    layer = training(d2l, 0.5)
    check(layer(np.ones(600, np.int32)), layer(np.ones(600, bool)), layer(np.ones(600, ">f8")))
    assert layer.backward(np.ones(600, ">f4")).dtype == np.float32
    for X in ([1.0, 2.0], None):
        with pytest.raises(d2ldrop.errors.ArgumentTypeError, match="Expected X to be an array of numpy"):
            layer(X)


@pytest.mark.parametrize("p", [1.2, -0.1, math.nan, "0.5", None, [0.5], 10**400], ids=lambda p: str(p)[:4])
def test_the_layer_refuses_an_impossible_rate_at_once(d2l, p):
    with pytest.raises(d2ldrop.D2LDropError, match="Expected dropout to be a number in"):
        d2l.Dropout(p)


def test_the_layer_prints_itself(d2l):
    assert [repr(d2l.Dropout(0.5)), repr(d2l.Dropout(0.5, axes=(2, 3)))] == [
        "Dropout(0.5)",
        "Dropout(0.5, axes=(2, 3))",
    ]


def test_gradients_of_a_network_with_shared_masks_are_those_of_differences(d2l):
    """With the same masks again, the loss is a function like any other."""
    X = np.random.default_rng(0).standard_normal((6, 5))
    net = d2l.Sequential(d2l.Linear(8), d2l.Dropout(0.4, axes=(0,)), d2l.Linear(4), d2l.Dropout(0.5, axes=(1,)))

    def loss(X):
        d2l.seed(2)
        return (net(X) ** 2).sum() / 2

    net(X)
    net.train()
    for layer in net.sequence[::2]:
        layer.W, layer.b = layer.W.astype(np.float64), layer.b.astype(np.float64)
    loss(X)
    d2l.seed(2)
    dX, differences = net.backward(net(X)), np.zeros_like(X)
    for place in np.ndindex(X.shape):
        step = np.zeros_like(X)
        step[place] = 1e-6
        differences[place] = (loss(X + step) - loss(X - step)) / 2e-6
    assert np.abs(dX).max() > 0.01
    np.testing.assert_allclose(dX, differences, atol=1e-6)


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_of_the_layer(d2l, way):
    layer = training(d2l, 0.5, axes=(1,))
    layer(np.ones((50, 60)))
    copied, X = way(layer), np.ones((600, 7))
    assert "mask" not in vars(copied)
    assert copied.training
    check(copied(X), layer(X), draws=600)
    Y = copied(X)
    np.testing.assert_array_equal(Y, np.broadcast_to(Y[:, :1], Y.shape))


def test_threads_draw_masks_of_their_own(d2l):
    d2l.seed(0)
    layers, X, drawn = [training(d2l, 0.5) for _ in range(8)], np.ones((40, 50)), {}

    def run(k):
        drawn[k] = [layers[k](X) for _ in range(5)] + [d2l.dropout_layer(X, 0.5)]
        layers[k].same = np.array_equal(layers[k](X), layers[k].backward(X))

    threads = [threading.Thread(target=run, args=[k]) for k in range(len(layers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(*(Y for k in range(len(layers)) for Y in drawn[k]))
    assert all(layer.same for layer in layers)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_mean_smallest_and_largest_of_what_the_layer_returns(d2l, p):
    d2l.seed(3)
    Y = training(d2l, p)(np.ones((300, 400)))
    assert Y.max() == pytest.approx(1 / (1 - p), rel=2**-16 / (1 - p))
    assert Y.min() == (0 if p else 1)
    assert abs(Y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / Y.size) + 1e-12

"""The other noise layers, in every backend: statistics against their formulas, gradients, dtypes, errors."""

import math
import warnings

import numpy as np
import pytest

import d2ldrop
from d2ldrop import noise
from d2ldrop.randomness import odds, sharing_masks

LAYERS = {
    "gaussian_dropout_layer": 0.3,
    "alpha_dropout_layer": 0.3,
    "channel_dropout_layer": 0.3,
    "input_noise": 0.5,
}


WRONG_SHAPES = [((2, 5, 3), (3, 3)), ((2, 3), (1, 4)), ((2, 1), (3, 4)), ((2, 3), (3,)), ((3,), (3, 4))]


def layer(name):
    return getattr(d2ldrop, name)


def host(d2l, X):
    return np.asarray(d2l.numpy(X), np.float64)


def with_key(d2l):
    """Return the keyword that JAX needs where a gradient is taken."""
    return {"key": d2l.get_key()} if d2l.backend.takes_keys else {}


def assert_moments(sample, mean, variance, fourth):
    """Check mean and variance within five standard errors, given the fourth central moment."""
    n = sample.size
    assert abs(sample.mean() - mean) < 5 * math.sqrt(variance / n)
    tolerance = 5 * math.sqrt((fourth - variance**2) / n) + 1e-6 * variance  # the latter where the square is constant
    assert abs(((sample - mean) ** 2).mean() - variance) < tolerance


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_gaussian_dropout_has_the_mean_and_variance_of_dropout(d2l, p):
    d2l.seed(0)
    Y = host(d2l, d2ldrop.gaussian_dropout_layer(3 * d2l.ones((400, 500)), p))
    variance = 9 * p / (1 - p)
    assert_moments(Y, 3, variance, 3 * variance**2)
    assert (Y != 0).all()
    assert_moments(host(d2l, d2ldrop.dropout_layer(3 * d2l.ones((400, 500)), p)), 3, variance, 81 * _fourth(p))


def _fourth(p):
    """Return the fourth central moment of a factor of dropout: 0 with probability p, else 1 / (1 - p)."""
    return p + (1 - p) * (p / (1 - p)) ** 4


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_0_and_variance_1(d2l, p):
    d2l.seed(1)
    X = np.random.default_rng(0).standard_normal((500, 600)).astype(np.float32)
    Y = host(d2l, d2ldrop.alpha_dropout_layer(d2l.array(X), p))
    q, alpha = 1 - odds(p).p, noise.ALPHA
    a = (q + alpha**2 * (1 - q) * q) ** -0.5
    dropped = np.isclose(Y, a * alpha * q, rtol=1e-5)  # a alpha' + b with b = -a (1 - q) alpha'
    assert abs(dropped.mean() - (1 - q)) < 5 * math.sqrt(q * (1 - q) / X.size)
    np.testing.assert_allclose(Y[~dropped], a * X[~dropped] - a * (1 - q) * alpha, rtol=1e-5, atol=1e-5)
    assert_moments(Y, 0, 1, max((Y**4).mean(), 1.5))


def test_alpha_is_what_selu_tends_to():
    """Klambauer et al. give lambda and alpha in closed form, from which a unit's mean 0 and variance 1 follow."""
    erfc, e = math.erfc, math.e
    alpha = -math.sqrt(2 / math.pi) / (erfc(1 / math.sqrt(2)) * math.exp(0.5) - 1)
    scale = (1 - erfc(1 / math.sqrt(2)) * math.sqrt(e)) * math.sqrt(2 * math.pi)
    scale /= math.sqrt(
        2 * erfc(math.sqrt(2)) * e**2
        + math.pi * erfc(1 / math.sqrt(2)) ** 2 * e
        - 2 * (2 + math.pi) * erfc(1 / math.sqrt(2)) * math.sqrt(e)
        + math.pi
        + 2
    )
    assert pytest.approx(-scale * alpha, rel=1e-7) == noise.ALPHA


def test_channels_are_dropped_whole(d2l):
    d2l.seed(2)
    shape = (60, 7, 5, 50) if d2l.channels_last else (60, 50, 7, 5)
    Y = host(d2l, d2ldrop.channel_dropout_layer(d2l.ones(shape), 0.25))
    channels = (Y if d2l.channels_last else np.moveaxis(Y, 1, -1)).reshape(60, -1, 50)
    assert (channels == channels[:, :1]).all()
    np.testing.assert_allclose(np.unique(Y), [0, 4 / 3], rtol=1e-6)
    kept = channels[:, 0] > 0
    assert abs(kept.mean() - 0.75) < 5 * math.sqrt(0.25 * 0.75 / kept.size)
    assert len({row.tobytes() for row in kept}) == 60


def test_masks_are_shared_along_axes(d2l):
    d2l.seed(3)
    X = d2l.array(np.random.default_rng(0).standard_normal((40, 30, 20)).astype(np.float32))
    for axes in [(0,), (1,), (-1,), (0, 2), (1, -1), (0, 1, 2)]:
        Y = host(d2l, d2ldrop.dropout_layer(X, 0.5, axes=axes))
        factors = Y / host(d2l, X)
        assert set(np.unique(factors.round(5))) <= {0.0, 2.0}
        first = factors.take([0], axis=axes[0])
        for axis in axes:
            first = first.take([0], axis=axis)
        np.testing.assert_allclose(factors, np.broadcast_to(first, factors.shape), rtol=1e-6)
        others = first.size
        if others > 1:
            assert abs((first > 0).mean() - 0.5) < 5 * math.sqrt(0.25 / others)
    assert d2ldrop.dropout_layer(X, 0, axes=(0,)) is X
    for wrong in [(3,), (-4,)]:
        with pytest.raises(ValueError, match=r"Expected axes of an array of 3 axes. Received: "):
            d2ldrop.dropout_layer(X, 0.5, axes=wrong)
    for wrong in [0, 1, (1.5,), "1", None]:
        with pytest.raises(TypeError, match=r"Expected axes to be integers, such as \(2, 3\). Received: "):
            d2ldrop.dropout_layer(X, 0.5, axes=wrong)


def test_a_dropped_inf_becomes_zero_along_axes(d2l):
    d2l.seed(4)
    Y = host(d2l, d2ldrop.dropout_layer(d2l.array(np.full((50, 6), np.inf, np.float32)), 0.5, axes=(1,)))
    assert set(Y[:, 0]) == {0.0, np.inf}
    np.testing.assert_array_equal(Y, np.repeat(Y[:, :1], 6, axis=1))


@pytest.mark.parametrize("per_sample", [False, True])
def test_dropconnect_has_the_mean_and_variance_of_its_formula(d2l, per_sample):
    """With independent masks, y_j has mean sum_i x_i w_ij and variance p / (1 - p) sum_i (x_i w_ij)^2."""
    d2l.seed(5)
    rng, p, draws = np.random.default_rng(0), 0.4, 3000
    x, W = rng.standard_normal(6).astype(np.float32), rng.standard_normal((6, 4)).astype(np.float32)
    if per_sample:
        X = d2l.array(np.tile(x, (draws, 1)))
        Y = host(d2l, d2ldrop.dropconnect_layer(X, d2l.array(W), p, per_sample=True))
        assert len({row.tobytes() for row in Y.round(5)}) > 1000
    else:
        X, draws = d2l.array(np.tile(x, (2, 1))), 400
        Y = np.stack([host(d2l, d2ldrop.dropconnect_layer(X, d2l.array(W), p)) for _ in range(draws)])
        np.testing.assert_array_equal(Y[:, 0], Y[:, 1])  # both samples had the same masks
        Y = Y[:, 0]
    mean, p = x @ W, odds(p).p
    variance = p / (1 - p) * (x[:, None] * W).__pow__(2).sum(axis=0)
    assert (abs(Y.mean(axis=0) - mean) < 5 * np.sqrt(variance / draws)).all()
    assert (abs(Y.var(axis=0) / variance - 1) < 0.5 if draws < 1000 else abs(Y.var(axis=0) / variance - 1) < 0.2).all()


def test_dropconnect_without_dropout_is_the_product(d2l):
    X, W = np.ones((3, 4), np.float32), np.arange(8, dtype=np.float32).reshape(4, 2)
    for per_sample in (False, True):
        Y = host(d2l, d2ldrop.dropconnect_layer(d2l.array(X), d2l.array(W), 0, per_sample=per_sample))
        np.testing.assert_allclose(Y, X @ W)
        Y = d2ldrop.dropconnect_layer(d2l.array(X), d2l.array(W), 1, per_sample=per_sample)
        assert not host(d2l, Y).any()


def test_input_noise_has_the_given_deviation(d2l):
    d2l.seed(6)
    X = np.random.default_rng(0).standard_normal((400, 500)).astype(np.float32)
    added = host(d2l, d2ldrop.input_noise(d2l.array(X), 0.5)) - X
    assert_moments(added, 0, 0.25, 3 * 0.25**2)
    assert abs((added * X).mean()) < 5 * 0.5 / math.sqrt(X.size)  # independent of the input
    flat = added.ravel()
    for lag in (1, 2, 4, 500):
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 * 0.25 / math.sqrt(flat.size)


@pytest.mark.parametrize("name", LAYERS)
def test_shape_and_dtype_stay(d2l, own, name):
    for dtype in own.FLOATS:
        for shape in [(4, 3), (2, 3, 4), *([] if name == "channel_dropout_layer" else [(), (0,), (5,)])]:
            X = own.as_dtype(d2l, np.ones(shape, np.float32), dtype)
            Y = layer(name)(X, LAYERS[name])
            assert Y.dtype == X.dtype, (dtype, shape)
            assert tuple(Y.shape) == shape
            assert d2l.is_array(Y)
            assert layer(name)(X, 0) is X
            assert np.isfinite(host(d2l, layer(name)(X, 0.999))).all()


@pytest.mark.parametrize("name", LAYERS)
def test_integers_become_the_default_float(d2l, own, name):
    Y = layer(name)(d2l.array(np.ones((3, 4), np.int32)), LAYERS[name])
    assert own.DEFAULT_FLOAT in str(Y.dtype)


def test_p_1(d2l):
    X = d2l.array(np.full((3, 4), np.inf, np.float32))
    assert not host(d2l, d2ldrop.alpha_dropout_layer(X, 1)).any()
    assert not host(d2l, d2ldrop.channel_dropout_layer(X, 1)).any()
    with pytest.raises(ValueError, match=r"Expected dropout to be a number in \[0, 1\) for normal noise. Received: 1"):
        d2ldrop.gaussian_dropout_layer(X, 1)


@pytest.mark.parametrize("name", LAYERS)
def test_noise_is_new_at_each_call_and_a_seed_repeats_it(d2l, name):
    X, drawn = d2l.ones((20, 30)), []
    for seed in (3, 3, 4):
        d2l.seed(seed)
        drawn.append([host(d2l, layer(name)(X, LAYERS[name])).tobytes() for _ in range(2)])
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]
    assert not set(drawn[0]) & set(drawn[2])


@pytest.mark.parametrize("name", LAYERS)
def test_shared_noise_is_the_same_everywhere(d2l, name):
    X, drawn = np.ones((6, 5), np.float32), []
    for adapter in (d2l, d2ldrop.backend("numpy")):
        with sharing_masks(np.random.Generator(np.random.Philox(1))):
            drawn.append(host(adapter, layer(name)(adapter.array(X), LAYERS[name])))
    np.testing.assert_allclose(*drawn, rtol=1e-5)


@pytest.mark.skip_numpy  # which differentiates nothing by itself
@pytest.mark.skip_toy
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_that_of_the_same_noise(d2l, own, name):
    options = with_key(d2l)
    X = own.as_dtype(d2l, np.ones((6, 50), np.float32), "float32")
    Y, dX = own.with_gradient(d2l, lambda X: layer(name)(X, LAYERS[name], **options), X)
    Y, dX = host(d2l, Y), host(d2l, dX)
    if name == "input_noise":
        expected = np.ones_like(Y)
    elif name == "alpha_dropout_layer":
        drawn = odds(LAYERS[name])
        a = (1 - drawn.p + noise.ALPHA**2 * drawn.p * (1 - drawn.p)) ** -0.5
        expected = a * (Y > 0)
        assert 0.5 < (Y > 0).mean() < 0.9
    else:
        expected = Y  # of ones
    np.testing.assert_allclose(dX, expected, rtol=1e-5)


@pytest.mark.skip_numpy
@pytest.mark.skip_toy
def test_dropconnect_has_gradients_for_both(d2l, own):
    options = with_key(d2l)
    X, W = (own.as_dtype(d2l, np.ones(shape, np.float32), "float32") for shape in [(3, 20), (20, 5)])
    Y, dW = own.with_gradient(d2l, lambda W: d2ldrop.dropconnect_layer(X, W, 0.5, **options), W)
    dW = host(d2l, dW)
    assert set(np.unique(dW)) == {0.0, 6.0}  # three samples, over 1 - p
    np.testing.assert_allclose(host(d2l, Y), np.tile(dW.sum(axis=0) / 3, (3, 1)), rtol=1e-5)


@pytest.mark.parametrize("name", [*LAYERS, "dropout_layer"])
def test_one_sentence_for_what_is_no_array_of_numbers(d2l, name):
    for wrong in ([[1.0, 2.0]], 3.0, None, "text"):
        with pytest.raises(TypeError, match=r"Expected an array of one of the frameworks .* Received: "):
            layer(name)(wrong, 0.5)
    with pytest.raises(TypeError, match=r"Expected X to hold real numbers of 16 to 64 bits. Received: complex64"):
        layer(name)(d2l.array(np.ones((3, 4), np.complex64)), 0.5)


@pytest.mark.parametrize("name", [name for name in LAYERS if "dropout" in name])
@pytest.mark.parametrize("p", [1.2, -0.1, math.nan, "0.5", None])
def test_invalid_p_is_refused(d2l, name, p):
    with pytest.raises((ValueError, TypeError), match=r"Expected dropout to be a number in \[0, 1\]. Received: "):
        layer(name)(d2l.ones((3, 4)), p)


@pytest.mark.parametrize("sigma", [-1, math.nan, math.inf, "1", None])
def test_invalid_sigma_is_refused(d2l, sigma):
    with pytest.raises(ValueError, match=r"Expected sigma to be a number of at least 0. Received: "):
        d2ldrop.input_noise(d2l.ones((3, 4)), sigma)


@pytest.mark.skip_toy
def test_arrays_of_other_frameworks_are_refused_by_an_adapter(d2l, other):
    foreign = [] if d2l.is_array(other.ones((3, 4))) else [other.ones((3, 4))]
    sentence = f"Expected X to be an array of {d2l.name}. Received: .* d2ldrop.{d2l.name}.array"
    for wrong in (*foreign, [1.0, 2.0], 1.0, None):
        with pytest.raises(TypeError, match=sentence):
            d2l.dropout_layer(wrong, 0.5)


def test_a_key_where_there_are_none_is_refused(d2l):
    if d2l.backend.takes_keys:
        key = d2l.get_key()
        for name, p in LAYERS.items():
            first, second = (host(d2l, layer(name)(d2l.ones((5, 6)), p, key=key)) for _ in range(2))
            np.testing.assert_array_equal(first, second)
        return
    for name in [*LAYERS, "dropout_layer"]:
        with pytest.raises(TypeError, match="Expected no key: "):
            layer(name)(d2l.ones((3, 4)), 0.5, key=1)


def test_one_axis_has_no_channels(d2l):
    with pytest.raises(ValueError, match="Expected X to be samples with channels"):
        d2ldrop.channel_dropout_layer(d2l.ones((3,)), 0.5)


@pytest.mark.only_jax
@pytest.mark.parametrize("name", LAYERS)
def test_noise_in_code_that_jax_compiles(d2l, name):
    import jax

    drawn = jax.jit(lambda X, key: layer(name)(X, LAYERS[name], key=key))
    X, keys = d2l.ones((5, 6)), jax.random.split(jax.random.PRNGKey(0))
    assert (drawn(X, keys[0]) != drawn(X, keys[1])).any()
    with pytest.raises(d2ldrop.UsageError, match="Expected a key"):
        jax.jit(lambda X: layer(name)(X, LAYERS[name]))(X)


@pytest.mark.only_tf
@pytest.mark.parametrize("name", LAYERS)
def test_noise_in_code_that_tensorflow_compiles(d2l, name):
    import tensorflow as tf

    drawn = tf.function(lambda X: layer(name)(X, LAYERS[name]))
    X = d2l.ones((5, 6))
    assert (host(d2l, drawn(X)) != host(d2l, drawn(X))).any()
    constant = tf.function(lambda: layer(name)(np.ones((5, 6), np.float32), LAYERS[name]))
    assert (host(d2l, constant()) != host(d2l, constant())).any()


@pytest.mark.only_torch
@pytest.mark.filterwarnings("ignore")  # of the compiler's own modules
@pytest.mark.parametrize("name", LAYERS)
def test_noise_in_code_that_pytorch_compiles_and_transforms(d2l, name):
    import torch

    torch.compiler.reset()
    noisy = lambda X: layer(name)(X, LAYERS[name])  # noqa: E731
    compiled = torch.compile(noisy, fullgraph=True, backend="aot_eager")
    X = d2l.ones((5, 6))
    assert (compiled(X) != compiled(X)).any()
    Y = torch.vmap(noisy, randomness="different")(d2l.ones((4, 5, 6)))
    assert (Y[0] != Y[1]).any()
    torch.compiler.reset()


@pytest.mark.only_mxnet
@pytest.mark.parametrize("name", sorted({*LAYERS} - {"channel_dropout_layer"}))  # a graph does not know the axes
def test_noise_in_a_graph_of_mxnet(d2l, name):
    from mxnet import gluon

    class Noisy(gluon.HybridBlock):
        def hybrid_forward(self, F, X):
            return layer(name)(X, LAYERS[name])

    block, X = Noisy(), d2l.ones((5, 6))
    block.hybridize()
    assert (host(d2l, block(X)) != host(d2l, block(X))).any()


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("shapes", WRONG_SHAPES)
def test_dropconnect_refuses_shapes_that_do_not_match(d2l, shapes, per_sample):
    X, W = map(d2l.ones, shapes)
    with pytest.raises(ValueError, match=r"Expected X \(N, inputs\) and W \(inputs, outputs\). Received: "):
        d2ldrop.dropconnect_layer(X, W, 0.5, per_sample=per_sample)


def test_text_and_huge_numbers_are_no_probabilities(d2l):
    for wrong in (np.array("0.5"), 10**400, np.array(0.5j)):
        with pytest.raises((TypeError, ValueError), match=r"Expected dropout to be a number in \[0, 1\]"):
            d2ldrop.dropout_layer(d2l.ones((3,)), wrong)
    with pytest.raises(ValueError, match="Expected sigma to be"):
        d2ldrop.input_noise(d2l.ones((3,)), 10**400)
    assert set(host(d2l, d2ldrop.dropout_layer(d2l.ones((100,)), np.array([0.5])))) == {0.0, 2.0}


@pytest.mark.only_numpy
def test_noise_of_a_matrix_is_no_matrix_product(d2l):
    X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of matrices
        Y = d2ldrop.gaussian_dropout_layer(np.matrix(X), 1e-12)
    np.testing.assert_allclose(Y, X, rtol=1e-4)


@pytest.mark.only_mxnet
def test_noise_that_asks_for_axes_is_refused_in_a_graph(d2l):
    from mxnet import gluon

    class Noisy(gluon.HybridBlock):
        def hybrid_forward(self, F, X):
            return d2ldrop.channel_dropout_layer(X, 0.5)

    block = Noisy()
    block.hybridize()
    with pytest.raises(d2ldrop.UsageError, match="Expected an array with a known number of axes"):
        block(d2l.ones((2, 3, 4, 5)))

"""`dropout_layer`, in every backend and dtype: what each element becomes, how often, and its gradient."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import d2ldrop
from d2ldrop.randomness import integer, lanes, odds, sharing_masks, streams


def dtype_of(X):
    """Return the name of the type of an array's elements."""
    if isinstance(X.dtype, type):
        return X.dtype.__name__
    return getattr(X.dtype, "name", str(X.dtype)).rpartition(".")[2]


def host(d2l, X):
    return np.asarray(d2l.numpy(X), dtype=np.float64)


def inputs(own, d2l, shape=(64, 33), dtype="float32"):
    X = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return own.as_dtype(d2l, X, dtype)


def test_each_element_is_zero_or_scaled(d2l, own):
    d2l.seed(0)
    for dtype in own.FLOATS:
        for p in (0.2, 0.5, 0.9):
            X = inputs(own, d2l, dtype=dtype)
            Y = d2ldrop.dropout_layer(X, p)
            assert dtype_of(Y) == dtype
            assert tuple(Y.shape) == tuple(X.shape)
            before, after = host(d2l, X), host(d2l, Y)
            kept = after != 0
            # a lane realises p to within 2**-16; below that it is the dtype's rounding
            tolerance = {"float16": 2e-3, "bfloat16": 1e-2}.get(dtype, 2**-16 / (1 - p) * 1.01)
            np.testing.assert_allclose(after[kept], before[kept] / (1 - p), rtol=tolerance)
            assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / kept.size)


def test_p_0_is_the_identity_and_p_1_zero(d2l, own):
    for dtype in own.FLOATS:
        X = inputs(own, d2l, dtype=dtype)
        assert d2ldrop.dropout_layer(X, 0) is X
        Y = d2ldrop.dropout_layer(X, 1)
        assert dtype_of(Y) == dtype
        assert tuple(Y.shape) == tuple(X.shape)
        assert not host(d2l, Y).any()


def test_integers_are_promoted_to_the_default_float(d2l, own):
    X = d2l.array(np.arange(12, dtype=np.int32).reshape(3, 4))
    for p in (0, 0.5, 1):
        Y = d2ldrop.dropout_layer(X, p)
        assert dtype_of(Y) == own.DEFAULT_FLOAT
    assert set(host(d2l, d2ldrop.dropout_layer(X, 0.5)).ravel() / 2) <= set(range(12))


def test_a_dropped_inf_or_nan_becomes_zero(d2l, own):
    d2l.seed(1)
    for dtype in own.FLOATS:
        for bad in (np.inf, -np.inf, np.nan):
            X = own.as_dtype(d2l, np.full(1000, bad, np.float32), dtype)
            Y = host(d2l, d2ldrop.dropout_layer(X, 0.5))
            dropped = Y == 0
            assert 400 < dropped.sum() < 600
            np.testing.assert_array_equal(Y[~dropped], np.full((~dropped).sum(), bad))
            assert not host(d2l, d2ldrop.dropout_layer(X, 1)).any()


def test_p_near_1_gives_no_nan(d2l, own):
    """The scale is 65536 then, more than float16 holds."""
    for dtype in own.FLOATS:
        assert not host(
            d2l, d2ldrop.dropout_layer(own.as_dtype(d2l, np.zeros(10**6, np.float32), dtype), 0.99999)
        ).any()


def test_the_mask_is_new_at_every_call(d2l, own):
    X = own.as_dtype(d2l, np.ones((32, 32), np.float32), "float32")
    masks = {host(d2l, d2ldrop.dropout_layer(X, 0.5)).tobytes() for _ in range(20)}
    assert len(masks) == 20


def test_a_seed_repeats_the_masks(d2l, own):
    X = own.as_dtype(d2l, np.ones((32, 32), np.float32), "float32")
    drawn = []
    for seed in (3, 3, 4):
        d2l.seed(seed)
        drawn.append([host(d2l, d2ldrop.dropout_layer(X, 0.5)).tobytes() for _ in range(2)])
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (3, 0), (2, 3, 5, 7)], ids=str)
def test_any_shape(d2l, own, shape):
    X = inputs(own, d2l, shape)
    for p in (0, 0.3, 1):
        Y = d2ldrop.dropout_layer(X, p)
        assert tuple(Y.shape) == shape
        after, before = host(d2l, Y), host(d2l, X)
        assert np.all((after == 0) | np.isclose(after, before / (1 - odds(p).threshold / 2 ** odds(p).bits or 1)))


def test_non_contiguous_views(d2l, own):
    if not own.HAS_VIEWS:
        pytest.skip("all arrays of this framework are contiguous")
    X = inputs(own, d2l, (40, 50)).T[::2, 1:]
    after, before = host(d2l, d2ldrop.dropout_layer(X, 0.5)), host(d2l, X)
    kept = after != 0
    np.testing.assert_array_equal(after[kept], 2 * before[kept])
    assert 0.4 < kept.mean() < 0.6


def test_the_gradient_is_the_same_mask(d2l, own):
    if not own.HAS_AUTODIFF:
        layer = d2l.Dropout(0.3)
        layer.train()
        X = inputs(own, d2l)
        Y, dX = layer(X), layer.backward(np.ones_like(X))
        np.testing.assert_array_equal(Y, X * dX)
        return
    for dtype in own.FLOATS:
        for p in (0, 0.3, 1):
            X = own.as_dtype(d2l, np.ones((20, 30), np.float32), dtype)
            Y, dX = own.with_gradient(d2l, lambda X, p=p: own.drop(d2l, X, p), X)
            assert dtype_of(dX) == dtype
            np.testing.assert_array_equal(host(d2l, dX), host(d2l, Y))


def test_a_dropped_inf_has_gradient_zero(d2l, own):
    if not own.HAS_AUTODIFF:
        dX = d2l.masked(np.full(4, np.inf), np.array([True, False, True, False]), 2.0)
        assert dX.tolist() == [np.inf, 0, np.inf, 0]
        return
    X = own.as_dtype(d2l, np.full(100, np.inf, np.float32), "float32")
    dX = host(d2l, own.with_gradient(d2l, lambda X: own.drop(d2l, X, 0.5), X)[1])
    assert set(dX) == {0.0, 2.0}


@pytest.mark.parametrize("p", [1.2, -0.1, math.nan, math.inf, "0.5", None, [0.5], 1j, b"0.5", np.array([0.1, 0.2])])
def test_dropout_layer_rejects_invalid_p(d2l, own, p):
    with pytest.raises((ValueError, TypeError), match=r"Expected dropout to be a number in \[0, 1\]. Received: "):
        d2ldrop.dropout_layer(inputs(own, d2l), p)


def test_dropout_layer_takes_p_as_a_tensor_of_one_element(d2l):
    p = d2l.array(np.float32(0.5))
    assert set(host(d2l, d2ldrop.dropout_layer(d2l.ones((100,)), p))) == {0.0, 2.0}
    with pytest.raises(TypeError, match="Expected dropout"):
        d2ldrop.dropout_layer(d2l.ones((100,)), d2l.array(np.array([0.5, 0.5], np.float32)))


def test_dropout_layer_rejects_complex_numbers(d2l):
    with pytest.raises(TypeError, match="Expected X to hold real numbers"):
        d2ldrop.dropout_layer(d2l.array(np.ones(3, np.complex64)), 0.5)


@given(p=st.floats(0, 1))
def test_odds_realise_p_and_keep_the_mean(p):
    threshold, scale, bits = odds(p)
    assert bits in (1, 8, 16)
    assert abs(threshold / 2**bits - p) <= 2**-16
    assert (threshold == 0) == (p == 0)
    assert (threshold == 2**bits) == (p == 1)
    if p < 1:
        assert scale * (1 - threshold / 2**bits) == pytest.approx(1, rel=1e-15)


def test_streams_are_independent_and_repeatable():
    seeds = [integer(stream) for stream in (*streams(1), *streams(2))]
    assert len(set(seeds)) == 6
    assert seeds[:3] == [integer(stream) for stream in streams(1)]
    for wrong in (-1, 0.5, "1", True):
        with pytest.raises(d2ldrop.D2LDropError, match="Expected seed"):
            streams(wrong)


@pytest.mark.parametrize("p", [1e-4, 0.2, 0.5, 1 - 1e-4])
def test_keep_rate_over_ten_million_draws(d2l, p):
    """Count what is kept in ten million draws: within 5 standard deviations of the realised p."""
    d2l.seed(5)
    X, total, calls = d2l.ones((1000, 1000)), 0, 10
    for _ in range(calls):
        total += int(np.count_nonzero(d2l.numpy(d2ldrop.dropout_layer(X, p))))
    realised, draws = odds(p).threshold / 2 ** odds(p).bits, calls * 10**6
    deviations = (total - draws * (1 - realised)) / math.sqrt(draws * realised * (1 - realised))
    assert abs(deviations) < 5


@pytest.mark.parametrize("p", [0.5, 0.25, 0.3], ids=["one bit", "eight bits", "sixteen bits"])
def test_masks_are_independent(d2l, p):
    """Neighbours, elements of one word, successive calls and other seeds: no correlation of a million draws."""

    def draw():
        kept = host(d2l, d2ldrop.dropout_layer(X, p)) > 0
        return (kept - realised) / math.sqrt(realised * (1 - realised))

    X, realised = d2l.ones((1024, 1024)), 1 - odds(p).threshold / 2 ** odds(p).bits
    d2l.seed(6)
    first, second = draw(), draw()
    d2l.seed(7)
    pairs = {"rows": (first[1:], first[:-1]), "calls": (first, second), "seeds": (first, draw())}
    lags = [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, *(first.size // part for part in (32, 8, 2))]  # where words may be cut
    for lag in lags:
        pairs[f"{lag} apart"] = (first.ravel()[lag:], first.ravel()[:-lag])
    for name, (a, b) in pairs.items():
        assert abs((a * b).mean()) * math.sqrt(a.size) < 5, name


def test_number_of_runs_in_a_mask(d2l):
    """Wald and Wolfowitz: there are as many runs of equal elements as in fair coin tosses."""
    d2l.seed(8)
    kept = host(d2l, d2ldrop.dropout_layer(d2l.ones((1000, 1000)), 0.5)).ravel() > 0
    n, m = kept.sum(), (~kept).sum()
    runs, expected = 1 + np.count_nonzero(kept[1:] != kept[:-1]), 1 + 2 * n * m / (n + m)
    variance = (expected - 1) * (expected - 2) / (n + m - 1)
    assert abs(runs - expected) / math.sqrt(variance) < 5


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_lanes_are_uniform(bits):
    drawn = lanes((4, 250_000), np.random.Generator(np.random.Philox(0)), bits)
    if bits == 1:
        assert np.unique(drawn).tolist() == [0, 1]
        assert abs(int(drawn.sum()) - 500_000) < 5 * 500  # NumPy 2 subtracts in unsigned integers
        return
    assert drawn.dtype == f"u{bits // 8}"
    for byte in (drawn >> bits - 8, drawn & 255):
        counts = np.bincount(byte.ravel(), minlength=256)
        chi_squared = ((counts - 10**6 / 256) ** 2 / (10**6 / 256)).sum()
        assert abs(chi_squared - 255) < 5 * math.sqrt(2 * 255)


def test_shared_masks_drop_the_same_elements_everywhere(d2l):
    X, oracle = np.ones((33, 7), np.float32), d2ldrop.backend("numpy")
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        expected = [oracle.dropout_layer(X, p) for p in (0.2, 0.5, 0.5)]  # twice the same p, not the same mask
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        received = [d2l.numpy(d2ldrop.dropout_layer(d2l.array(X), p)) for p in (0.2, 0.5, 0.5)]
    np.testing.assert_allclose(received, expected, rtol=1e-6)
    assert (expected[1] != expected[2]).any()


@pytest.mark.gpu
@pytest.mark.skip_numpy
def test_mask_is_drawn_on_the_gpu(d2l, own):
    for dtype in own.FLOATS:
        X = d2l.to(inputs(own, d2l, dtype=dtype), d2l.gpu())
        Y = d2ldrop.dropout_layer(X, 0.5)
        after, before = host(d2l, Y), host(d2l, X)
        kept = after != 0
        np.testing.assert_array_equal(after[kept], 2 * before[kept])
        assert 0.4 < kept.mean() < 0.6
        places = {str(getattr(array, "device", None) or array.ctx).lower() for array in (X, Y)}
        assert len(places) == 1
        assert "cpu" not in places.pop()


def plain_dropout(X, u, p):
    """Dropout as the chapter writes it, given uniform random numbers u: keep where u >= p, and divide by 1 - p."""
    mask = (u >= p).astype(X.dtype)
    return X * mask / (1 - p)


@pytest.mark.parametrize("p", [0.5, 0.25, 0.75, 0.3, 1e-4])
def test_fast_and_plain_dropout_agree_given_the_same_random_bits(d2l, own, p):
    """The lanes of k bits that a mask is made from are uniform numbers u = lane / 2**k."""
    host_generator = lambda: np.random.Generator(np.random.Philox(3))  # noqa: E731
    X, drawn = np.random.default_rng(0).standard_normal((37, 21)).astype(np.float32), odds(p)
    u = lanes(X.shape, host_generator(), drawn.bits) / 2**drawn.bits
    with sharing_masks(host_generator()):
        fast = host(d2l, d2ldrop.dropout_layer(d2l.array(X), p))
    plain = plain_dropout(X.astype(np.float64), u, drawn.threshold / 2**drawn.bits)
    np.testing.assert_array_equal(fast == 0, plain == 0)
    np.testing.assert_allclose(fast, plain, rtol=1e-6)


@pytest.mark.only_tf
@pytest.mark.parametrize("count", [1, 8, 16])
def test_lanes_of_tensorflow_are_the_words_bits(d2l, count):
    import tensorflow as tf

    from d2ldrop.tf.masks import lanes_of

    words = np.random.default_rng(0).integers(-(2**63), 2**63, 100)
    drawn = lanes_of(tf.constant(words), count).numpy()
    expected = words.view(np.uint16 if count == 16 else np.uint8)
    if count == 1:
        bits = np.unpackbits(expected[:, None], axis=1, bitorder="little")
        np.testing.assert_array_equal(drawn != 0, bits.T.ravel())  # bit 0 of all bytes, then bit 1, ...
    else:
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.only_tf
@pytest.mark.parametrize("p", [0.5, 0.25, 0.3])
def test_masks_of_tensorflow_agree_with_a_comparison_of_the_same_bits(d2l, p):
    import tensorflow as tf

    from d2ldrop.tf.masks import draw_mask, lanes_of

    drawn, X = odds(p), d2l.ones((1001, 999))
    tf.random.set_seed(4)
    words = tf.random.uniform([-(-d2l.size(X) * drawn.bits // 64)], tf.int64.min, tf.int64.max, tf.int64)
    tf.random.set_seed(4)  # the next draw is of the same words
    mask = draw_mask(X, drawn).numpy().ravel()
    lane = lanes_of(words, drawn.bits).numpy()[: d2l.size(X)].astype(np.int64)
    lane = (lane != 0) if drawn.bits == 1 else lane  # a single bit may stand at any place of a byte
    u, realised = lane / 2**drawn.bits, drawn.threshold / 2**drawn.bits
    assert (u == realised).any()  # such an element is kept, too
    np.testing.assert_array_equal(mask, u >= realised)


@pytest.mark.only_jax
@pytest.mark.parametrize("p", [0.5, 0.25, 0.3])
def test_masks_of_jax_agree_with_a_comparison_of_the_same_bits(d2l, p):
    """The words of counters 0, 1, 2, ... have four lanes each, one for each element."""
    import jax

    from d2ldrop.jax.masks import draw_mask

    drawn, key, shape = odds(p), jax.random.PRNGKey(4), (1001, 999)
    mask, count = np.asarray(draw_mask(d2l.ones(shape), drawn, key)), math.prod(shape)
    counters = np.arange(-(-count // 4), dtype=np.uint32)
    words = jax.extend.random.threefry_2x32(key, np.concatenate([np.zeros_like(counters), counters]))
    u = np.stack(np.split(np.asarray(words), 2), axis=1).astype("<u4").view("<u2").ravel()[:count] / 2**16
    realised = drawn.threshold / 2**drawn.bits
    assert (u == realised).any()  # such an element is kept, too
    np.testing.assert_array_equal(mask, (u >= realised).reshape(shape))


@pytest.mark.only_jax
def test_threefry_gives_known_answers(d2l):
    """The vectors are those published with Random123, for 20 rounds; the counters are JAX's own test as well."""
    import jax

    from d2ldrop.jax.masks import threefry_2x32

    ones, zero = np.uint32(0xFFFFFFFF), np.uint32(0)
    for key, counter, expected in (
        ((zero, zero), (zero, zero), (0x6B200159, 0x99BA4EFE)),
        ((ones, ones), (ones, ones), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ):
        words = [np.array([word], np.uint32) for word in (*key, *counter)]
        received = threefry_2x32(np.concatenate(words[:2]), words[2], words[3])
        assert [int(word[0]) for word in received] == list(expected)
    counters, key = np.arange(1000, dtype=np.uint32), jax.random.key_data(jax.random.key(7))
    own = np.concatenate(threefry_2x32(np.asarray(key), np.zeros_like(counters), counters))
    reference = jax.extend.random.threefry_2x32(key, np.concatenate([np.zeros_like(counters), counters]))
    np.testing.assert_array_equal(own, reference)

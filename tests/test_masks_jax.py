"""The masks of JAX: what they depend on of a key, which arrays they take, axes, and other draws."""

import math

import numpy as np
import pytest
from dropping_jax import (
    FORMS,
    KEY,
    LAYER,
    SCALE,
    NNXDropout,
    P,
    X,
    adapter,
    check,
    differ,
    jax,
    jnp,
    masks,
    nnx,
    small_mlp,
)

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

# Keys


def keys_of(impl):
    typed = jax.random.key(3, impl=impl)
    return typed, jax.random.key_data(typed)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_typed_and_legacy_keys_draw_the_same(form, impl):
    typed, legacy = keys_of(impl)
    first = check(form(X, typed))
    np.testing.assert_array_equal(first, check(jax.jit(form)(X, typed)))
    differ(first, check(form(X, jax.random.fold_in(typed, 1))))
    if form is FORMS["dropout_layer"]:  # Flax takes words of the default generator alone
        np.testing.assert_array_equal(first, check(form(X, legacy)))
        np.testing.assert_array_equal(first, check(form(X, np.asarray(legacy))))


def test_each_word_of_an_rbg_key_matters():
    """Also where both halves are the same, as they are in a key that was made from a seed."""
    for words in (np.array([1, 2, 1, 2], np.uint32), np.zeros(4, np.uint32)):
        first = check(adapter.dropout_layer(X, P, key=words))
        for i in range(4):
            for bit in (0, 31):
                other = words.copy()
                other[i] ^= np.uint32(1 << bit)
                differ(first, check(adapter.dropout_layer(X, P, key=other)))
    seeds = [masks.threefry_key(jax.random.key(seed, impl="rbg")) for seed in range(50)]
    assert len({np.asarray(words).tobytes() for words in seeds}) == 50


@pytest.mark.parametrize(
    "key",
    [3, 0.5, "key", [0, 1], jnp.int32(3), jnp.zeros(2), np.zeros(2, np.int32)],
    ids=["int", "float", "str", "list", "0-d", "float32", "int32"],
)
def test_what_is_no_key(key):
    for f in (FORMS["dropout_layer"], lambda X, key: LAYER.apply({}, X, rng=key)):
        with pytest.raises(d2ldrop.ArgumentTypeError, match=r"^Expected key to be one key of JAX, such as"):
            f(X, key)


@pytest.mark.parametrize("key", [jax.random.split(KEY, 2), jax.random.split(jax.random.PRNGKey(0), 3)])
def test_several_keys_in_place_of_one(key):
    with pytest.raises(d2ldrop.ArgumentError, match=r"^Expected key to be one key of JAX, .* Received: .* of shape "):
        adapter.dropout_layer(X, P, key=key)
    with pytest.raises(d2ldrop.ArgumentError, match="Expected key to be one key of JAX"):
        jax.jit(FORMS["dropout_layer"])(X, key)


def test_jax_configured_to_use_rbg():
    with jax.default_prng_impl("rbg"):
        assert adapter.get_key().shape == (4,)
        jax.random.uniform(adapter.get_key())
        model, data = small_mlp(), adapter.Digits(batch_size=300)
        adapter.Trainer(1, seed=0, progress=False).fit(model, data)
        model.training = True
        rows = adapter.ones((4, 64))
        assert (model(rows) != model(rows)).any()
        model.training = False
        assert (model(rows) == model(rows)).all()


# Arrays


@pytest.mark.parametrize("foreign", [np.ones(3), np.float32(1), [1.0], 1.0, None, "x"], ids=lambda X: type(X).__name__)
def test_what_is_no_array_of_jax(form, foreign):
    sentence = r"^Expected X to be an array of jax\. Received: .*\. d2ldrop\.jax\.array\(X\) makes one\."
    with pytest.raises(d2ldrop.ArgumentTypeError, match=sentence):
        form(foreign, KEY)
    with pytest.raises(d2ldrop.ArgumentTypeError, match=sentence):
        adapter.backend.real_floats(foreign)


@pytest.mark.parametrize("wrong", [jnp.ones(3, jnp.complex64), KEY], ids=["complex", "key"])
def test_what_is_no_real_number(form, wrong):
    with pytest.raises(d2ldrop.ArgumentTypeError, match=r"^Expected X to hold real numbers of 16 to 64 bits"):
        form(wrong, KEY)


def test_variables_of_flax_are_arrays(form):
    check(form(nnx.Param(X), KEY))
    check(d2ldrop.dropout_layer(nnx.Param(X), P))
    np.testing.assert_array_equal(adapter.numpy(nnx.Param(X)), X)
    assert isinstance(adapter.array(nnx.Param(X)), jax.Array)


# Axes and the draws of noise layers


@pytest.mark.parametrize("axes", [(0,), (1, 2), (-1,), (0, 1, 2, 3), [3]], ids=str)
def test_axes_share_one_draw(axes):
    images = jnp.ones((8, 9, 10, 11))
    layers = [
        lambda: adapter.dropout_layer(images, P, KEY, axes=axes),
        lambda: adapter.Dropout(P, tuple(axes), deterministic=False).apply({}, images, rngs={"dropout": KEY}),
        lambda: NNXDropout(P, broadcast_dims=axes)(images, rngs=KEY),
    ]
    for layer in layers:
        Y = np.asarray(layer())
        first = Y
        for axis in axes:
            first = first.take([0], axis)
        np.testing.assert_array_equal(Y, np.broadcast_to(first, Y.shape))  # the same along the axes,
        if first.size > 1:
            assert set(first.ravel().tolist()) == {0, np.float32(SCALE)}  # and not everywhere
    with sharing_masks(np.random.default_rng(0)):
        assert masks.draw_mask(images, odds(P), axes=axes).shape == first.shape


def test_wrong_axes():
    for axes in ((2,), (-3,)):
        with pytest.raises(d2ldrop.ArgumentError, match="Expected axes of an array of 2 axes"):
            adapter.dropout_layer(X, P, KEY, axes=axes)


def test_keep_mask():
    keep = adapter.backend.keep_mask
    assert adapter.backend.takes_keys
    for shared in (None, np.random.default_rng(0)):
        with sharing_masks(shared):
            assert keep(X, odds(0)).all()
            assert not keep(X, odds(1)).any()
            assert keep(X, odds(P), axes=(0,)).shape == (1, 50)
            mask = keep(X, odds(P))
            assert mask.dtype == bool
            assert abs(mask.mean() - (1 - P)) < 5 * math.sqrt(P * (1 - P) / X.size)
    np.testing.assert_array_equal(keep(X, odds(P), key=KEY), check(FORMS["dropout_layer"](X, KEY)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_normal_numbers(dtype):
    normal, n = adapter.backend.normal_like, 250_000
    like = jnp.zeros((500, 500), dtype)
    for shared in (None, np.random.default_rng(0)):
        with sharing_masks(shared):
            Z = normal(like)
        assert (Z.shape, Z.dtype) == (like.shape, like.dtype)
        Z = np.asarray(Z, np.float64)
        assert abs(Z.mean()) < 5 / math.sqrt(n)
        assert abs(Z.var() - 1) < 5 * math.sqrt(2 / n)
        assert abs((Z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert (normal(like) != normal(like)).any()
    for key in (KEY, *keys_of("rbg")):
        np.testing.assert_array_equal(normal(like, key), jax.jit(normal)(like, key))
    adapter.seed(1)
    first = normal(like)
    adapter.seed(1)
    np.testing.assert_array_equal(normal(like), first)
    with pytest.raises(d2ldrop.UsageError, match="Expected a key"):
        jax.jit(normal)(like)


def test_where():
    Y = adapter.backend.where(X > 1.5, X.astype(jnp.bfloat16), -2.5)
    assert Y.dtype == jnp.bfloat16
    assert (Y[np.asarray(X) <= 1.5] == -2.5).all()


# Masks from the host


def test_shared_masks_in_compiled_code(form):
    """The host draws them each time that the code runs."""
    run = jax.jit(lambda X, key: form(X, key))  # compiled here, where masks are shared
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        first, second = check(run(X, KEY)), check(run(X, KEY))
    differ(first, second)
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        np.testing.assert_array_equal(check(form(X, KEY)), first)

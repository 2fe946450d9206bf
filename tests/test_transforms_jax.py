"""Dropout under the transforms of JAX: what each element becomes, and when the mask is new."""

import importlib
import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from dropping_jax import (
    FORMS,
    KEY,
    LAYER,
    OTHER,
    SCALE,
    NNXDropout,
    P,
    X,
    adapter,
    check,
    differ,
    jax,
    jnp,
    lax,
    masks,
    nnx,
    small_mlp,
)

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


# Transforms of JAX


def test_jit(form):
    compiled = jax.jit(form)
    first = check(compiled(X, KEY))
    np.testing.assert_array_equal(first, check(form(X, KEY)))
    differ(first, check(compiled(X, OTHER)))


def test_gradient_is_the_same_mask_over_1_minus_p(form):
    kept = check(form(X, KEY))
    for gradient in (jax.grad, jax.jacrev, lambda f: jax.jit(jax.grad(f))):
        dX = gradient(lambda X: form(X, KEY).sum())(X)
        np.testing.assert_allclose(dX, kept * SCALE, rtol=1e-6)


def test_jvp_and_linearize(form):
    V = jnp.cos(X)
    kept = check(form(X, KEY))
    Y, dY = jax.jvp(lambda X: form(X, KEY), (X,), (V,))
    np.testing.assert_array_equal(check(Y), kept)
    np.testing.assert_allclose(dY, np.where(kept, V * SCALE, 0), rtol=1e-6)
    np.testing.assert_allclose(jax.linearize(lambda X: form(X, KEY), X)[1](V), dY, rtol=1e-6)


def test_second_order(form):
    """The gradient of sum(y**3) has the derivative 6 y times the square of the mask over 1 - p."""
    Y = form(X, KEY)
    second = jax.grad(lambda X: jax.grad(lambda X: (form(X, KEY) ** 3).sum())(X).sum())(X)
    np.testing.assert_allclose(second, 6 * Y * SCALE**2, rtol=1e-5)


def test_vmap_over_data_with_one_key_has_one_mask(form):
    drawn = check(jax.vmap(form, (0, None))(jnp.stack([X, X, X]), KEY))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])


def test_vmap_over_keys_has_one_mask_for_each(form):
    keys = jax.random.split(KEY, 3)
    drawn = check(jax.vmap(form, (None, 0))(X, keys))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        differ(drawn[a], drawn[b])
    np.testing.assert_array_equal(drawn[1], check(form(X, keys[1])))
    dX = jax.vmap(jax.grad(lambda X, key: form(X, key).sum()), (None, 0))(X, keys)  # a gradient for each sample
    np.testing.assert_allclose(dX, drawn * SCALE, rtol=1e-6)


def test_scan(form):
    keys = jax.random.split(KEY, 3)
    drawn = check(lax.scan(lambda carry, key: (carry, form(X, key)), 0, keys)[1])
    differ(drawn[0], drawn[1])
    differ(drawn[1], drawn[2])
    dX = jax.grad(lambda X: lax.scan(lambda total, key: (total + form(X, key).sum(), None), 0.0, keys)[0])(X)
    np.testing.assert_allclose(dX, drawn.sum(axis=0) * SCALE, rtol=1e-6)


def test_while_and_cond(form):
    Y = lax.fori_loop(0, 2, lambda i, _: form(X, jax.random.fold_in(KEY, i)), X)
    np.testing.assert_array_equal(check(Y), check(form(X, jax.random.fold_in(KEY, 1))))
    branch = jax.jit(lambda on: lax.cond(on, lambda: form(X, KEY), lambda: X))
    check(branch(True))
    np.testing.assert_array_equal(branch(False), X)


def test_checkpoint_recomputes_the_same_mask(form):
    """The gradient of sum(y**2 / 2) is y times the mask over 1 - p: any other mask would leave other zeros."""
    f = lambda X: (form(X, KEY) ** 2).sum() / 2  # noqa: E731
    for policy in (None, jax.checkpoint_policies.nothing_saveable):
        dX = jax.jit(jax.grad(jax.checkpoint(f, policy=policy)))(X)
        np.testing.assert_allclose(dX, form(X, KEY) * SCALE, rtol=1e-6)


def test_ensure_compile_time_eval(form):
    """What runs while JAX compiles has its mask then; so it is the same in each run, as with all random numbers."""
    rows = X[:37]  # of a shape that is nowhere else, so that nothing is compiled yet

    @jax.jit
    def compiled(x):
        with jax.ensure_compile_time_eval():
            Y = form(rows, KEY)
        assert not isinstance(Y, jax.core.Tracer)
        return x + Y

    np.testing.assert_array_equal(check(compiled(0.0)), check(form(rows, KEY)))


def test_disable_jit(form):
    with jax.disable_jit():
        plain = check(form(X, KEY))
    np.testing.assert_array_equal(plain, check(form(X, KEY)))


def test_without_a_key_traced_code_is_refused():
    for transform in (jax.jit, jax.vmap, jax.make_jaxpr, lambda f: jax.grad(lambda X: f(X).sum()), jax.checkpoint):
        with pytest.raises(d2ldrop.UsageError, match="Expected a key for dropout_layer, because JAX traces this code"):
            transform(lambda X: adapter.dropout_layer(X, P))(X)


@pytest.mark.parametrize("shape", ["b, 50", "b, h"])
def test_export_with_symbolic_shapes(form, shape):
    """The masks are those of the function itself, for any size."""
    export = pytest.importorskip("jax.export")
    words = jax.random.key_data(KEY)
    symbolic = jax.ShapeDtypeStruct(export.symbolic_shape(shape), jnp.float32)
    exported = export.export(jax.jit(form))(symbolic, words)
    if importlib.util.find_spec("flatbuffers"):  # which JAX writes files with
        exported = export.deserialize(exported.serialize())
    for rows in (40, 7):
        np.testing.assert_array_equal(check(exported.call(X[:rows], words)), check(form(X[:rows], words)))
    differ(check(exported.call(X, words)), check(exported.call(X, jax.random.key_data(OTHER))))


def test_export_for_several_platforms(form):
    export = pytest.importorskip("jax.export")
    exported = export.export(jax.jit(form), platforms=("cpu", "cuda"))(X, jax.random.key_data(KEY))
    np.testing.assert_array_equal(check(exported.call(X, jax.random.key_data(KEY))), check(form(X, KEY)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
def test_strict_promotion_of_dtypes_and_ranks(form, dtype):
    ones = jnp.ones((40, 50), dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        Y = jax.jit(form)(ones, KEY)
        dX = jax.grad(lambda X: form(X, KEY).sum())(jnp.ones((40, 50), Y.dtype))
        shared = adapter.dropout_layer(ones, 0.5, KEY, axes=(1,))
    assert Y.dtype == ("float32" if dtype == "int32" else dtype)
    np.testing.assert_array_equal(dX, Y)
    assert 0.7 < np.count_nonzero(Y) / Y.size < 0.8
    assert set(np.asarray(shared, np.float32).ravel()) == {0, 2}


def test_64_bits(form):
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        double = jnp.asarray(np.asarray(X), jnp.float64)
        Y, single = jax.jit(form)(double, KEY), form(X, KEY)
        np.testing.assert_allclose(Y, np.where(np.asarray(single) != 0, double / (1 - P), 0), rtol=1e-15)
        assert (Y.dtype, single.dtype) == (jnp.float64, jnp.float32)
        assert form(jnp.arange(5), KEY).dtype == jnp.float64
        assert adapter.backend.normal_like(double).dtype == jnp.float64


def test_debug_nans(form):
    """A dropped inf is 0, and nothing on the way to it is nan: neither with p = 1, nor in the gradient."""
    infinite = jnp.full((100,), jnp.inf)
    with jax.debug_nans(True):
        for f in (form, jax.jit(form)):
            Y = f(infinite, KEY)
            assert set(np.asarray(Y)) == {0, np.inf}
        assert not adapter.dropout_layer(infinite, 1, KEY).any()
        dX = jax.grad(lambda X: form(X, KEY).sum())(infinite)
    np.testing.assert_allclose(dX, (Y > 0) * SCALE, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_floats_of_8_bits_are_refused(form, dtype):
    """Their numbers are too few to be divided by 1 - p; Flax rounds."""
    with pytest.raises(TypeError, match=r"Expected X to hold real numbers of 16 to 64 bits. Received: float8"):
        form(jnp.ones((40, 50), dtype), KEY)


def test_several_devices():
    """`pmap`, `shard_map` and sharded inputs, on two devices: each has a mask of its own if its key is its own."""
    code = """
        import jax, numpy as np
        from jax import lax, numpy as jnp
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as S
        from d2ldrop import jax as d2l
        try:
            from jax import shard_map
            options = {}
        except ImportError:
            from jax.experimental.shard_map import shard_map
            options = {"check_rep": False}  # the first versions cannot check lax.platform_dependent

        layer = d2l.Dropout(0.25, deterministic=False)
        forms = [lambda X, key: d2l.dropout_layer(X, 0.25, key=key),
                 lambda X, key: layer.apply({}, X, rngs={"dropout": key})]
        X, key, mesh = jnp.ones((80, 50)), jax.random.key(0), Mesh(jax.devices(), "i")

        def shards(f, keys, out=S("i")):
            return shard_map(f, mesh=mesh, in_specs=(S("i"), keys), out_specs=out, **options)

        def check(Y, new=True):
            Y = np.asarray(Y).reshape(2, 40, 50)
            np.testing.assert_allclose(Y[Y != 0], 4 / 3, rtol=1e-6)
            assert 0.7 < (Y != 0).mean() < 0.8
            assert (0.5 < (Y[0] == Y[1]).mean() < 0.75) == new and (Y[0] == Y[1]).all() != new
            return Y

        for f in forms:
            own = lambda X, key: f(X, jax.random.fold_in(key, lax.axis_index("i")))
            Y = check(jax.pmap(f)(X.reshape(2, 40, 50), jax.random.split(key, 2)))
            Z = check(jax.pmap(own, axis_name="i", in_axes=(0, None))(X.reshape(2, 40, 50), key))
            assert (check(shards(own, S())(X, key)) == Z).all()
            check(jax.jit(shards(f, S()))(X, key), new=False)  # the same key on each: the same mask
            each = jax.jit(shards(lambda X, keys: f(X, keys[0]), S("i")))
            assert (check(each(X, jax.random.split(key, 2))) == Y).all()
            dX = jax.jit(jax.grad(lambda X: shards(own, S())(X, key).sum()))(X)
            assert (check(dX) == Z).all()
            spread = jax.device_put(X, NamedSharding(mesh, S("i")))
            assert (check(jax.jit(f)(spread, key)) == check(f(X, key))).all()

        for kind in (d2l.DropoutMLPScratch, d2l.DropoutMLP):
            model = kind(10, 8, 8, 0.5, 0.5, 0.1)
            variables = model.init(key, X)
            rngs = lambda key: {"dropout": jax.random.fold_in(key, lax.axis_index("i"))}
            Y = jax.jit(shards(lambda X, key: model.apply(variables, X, rngs=rngs(key)), S()))(X, key)
            assert (Y[:40] != Y[40:]).any()
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=True)


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

"""Dropout under the transforms of JAX and the modules of Flax: what each element becomes, and when the mask is new."""

import copy
import importlib
import math
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

jax = pytest.importorskip("jax")
nn, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
jnp, lax, adapter = jax.numpy, jax.lax, d2ldrop.backend("jax")
masks = importlib.import_module("d2ldrop.jax.masks")
NNXDropout = importlib.import_module("d2ldrop.jax.nnx").Dropout

P = 0.25
SCALE = 1 / (1 - P)
X = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (40, 50)).astype(np.float32))
KEY, OTHER = jax.random.key(0), jax.random.key(1)
LAYER = adapter.Dropout(P, deterministic=False)

# The forms of dropout that the transforms are tried on: functions of (X, key).
FORMS = {
    "dropout_layer": lambda X, key: adapter.dropout_layer(X, P, key=key),
    "Dropout": lambda X, key: LAYER.apply({}, X, rngs={"dropout": key}),
}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def check(Y, X=X, p=P):
    """Assert that each element of Y is 0 or x / (1 - p), at about the right rate; return what is kept."""
    Y, X = (
        np.asarray(Y, np.float64),
        np.broadcast_to(X[: Y.shape[-2]], Y.shape),
    )
    kept = Y != 0
    np.testing.assert_allclose(Y[kept], X[kept] / (1 - p), rtol=1e-6)
    assert abs(kept.mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / kept.size)
    return kept


def differ(a, b):
    """Assert that two masks are independent: they agree as often as two such masks do."""
    q = 1 - P
    agree = q**2 + P**2
    assert abs((a == b).mean() - agree) < 5 * math.sqrt(agree * (1 - agree) / a.size)


def small_mlp(kind="DropoutMLPScratch", **options):
    return getattr(adapter, kind)(10, 16, 16, 0.5, 0.5, 0.1, **options)


MODELS = ["DropoutMLPScratch", "DropoutMLP"]


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


# The layer of flax.linen


class Net(nn.Module):
    """A network of someone else, who drops by a layer or by a function."""

    drop: str = "layer"
    train: bool = True

    @nn.compact
    def __call__(self, X):
        H = nn.Dense(50)(X.reshape(len(X), -1))
        if self.drop == "layer":
            return adapter.Dropout(0.5)(H, deterministic=not self.train)
        return adapter.dropout_layer(H, 0.5) if self.train else H


DROPS = ["layer", "function"]


def kept(Y):
    assert 0.4 < np.count_nonzero(Y) / np.size(Y) < 0.6
    return np.asarray(Y) != 0


def test_layer_deterministic_in_one_place():
    drop, keep = adapter.Dropout(P, deterministic=False), adapter.Dropout(P, deterministic=True)
    check(drop.apply({}, X, rngs={"dropout": KEY}))
    check(adapter.Dropout(P).apply({}, X, deterministic=False, rngs={"dropout": KEY}))
    assert keep.apply({}, X) is X
    assert adapter.Dropout(P).apply({}, X, True) is X
    for layer, argument in ((drop, True), (keep, False), (adapter.Dropout(P), None)):  # given twice, or never
        with pytest.raises(ValueError, match="deterministic"):
            layer.apply({}, X, argument)


def test_layer_takes_its_key_from_a_stream_or_the_call():
    named = adapter.Dropout(P, deterministic=False, rng_collection="noise")
    noise = check(named.apply({}, X, rngs={"noise": KEY}))
    differ(noise, check(named.apply({}, X, rngs={"noise": OTHER})))
    np.testing.assert_array_equal(noise, check(named.apply({}, X, rngs={"noise": KEY, "dropout": OTHER})))
    np.testing.assert_array_equal(check(LAYER.apply({}, X, rng=KEY)), check(FORMS["dropout_layer"](X, KEY)))
    np.testing.assert_array_equal(  # the stream of parameters, where its own is missing
        check(LAYER.apply({}, X, rngs={"params": KEY})), check(LAYER.apply({}, X, rngs={"dropout": KEY}))
    )
    with pytest.raises(Exception, match='needs PRNG for "dropout"') as own:
        LAYER.apply({}, X)
    with pytest.raises(Exception, match='needs PRNG for "dropout"') as flax:
        nn.Dropout(P, deterministic=False).apply({}, X)
    assert type(own.value) is type(flax.value)


def test_layer_at_0_and_1():
    """Neither needs a key, as with the layer of Flax."""
    infinite = jnp.array([1.0, jnp.inf, jnp.nan], jnp.float16)
    assert adapter.Dropout(0, deterministic=False).apply({}, X) is X
    for rate in (1, 1.0):
        layer = adapter.Dropout(rate, deterministic=False)
        Y = jax.jit(lambda X, layer=layer: layer.apply({}, X))(infinite)
        assert Y.dtype == jnp.float16
        assert not Y.any()
        assert not jax.grad(lambda X, layer=layer: layer.apply({}, X).sum())(X).any()
        assert not NNXDropout(rate)(infinite).any()
    assert NNXDropout(0)(X) is X


@pytest.mark.parametrize("rate", [1.5, -0.1, math.nan, 10**400, "0.5", None, [0.5]])
def test_layers_check_their_rate_when_they_are_made(rate):
    kind = d2ldrop.ArgumentError if isinstance(rate, (int, float)) else d2ldrop.ArgumentTypeError
    for layer in (adapter.Dropout, NNXDropout):
        with pytest.raises(kind, match=r"Expected rate to be a number in \[0, 1\]. Received: "):
            layer(rate)


def test_layer_has_the_signature_and_no_variables_of_flax():
    ours, theirs = adapter.Dropout(0.5, (1,), False, "noise"), nn.Dropout(0.5, (1,), False, "noise")
    assert str(ours) == str(theirs)
    assert ours.init({"noise": KEY}, X) == {}
    assert ours == adapter.Dropout(0.5, (1,), False, "noise")
    assert hash(ours) == hash(adapter.Dropout(0.5, (1,), False, "noise"))  # for jax.jit with a static argument
    net = nn.Sequential([nn.Dense(3), adapter.Dropout(0.5, deterministic=True)])
    assert list(net.init(KEY, X)["params"]) == ["layers_0"]
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), ours.clone()):
        assert copied == ours
        Y = [layer.apply({}, X, rngs={"noise": KEY}) for layer in (ours, copied)]
        np.testing.assert_array_equal(*Y)


def test_layer_mean_and_infinities():
    """On average the output is the input; a dropped inf or nan is 0."""
    rows = jnp.ones((10**6,))
    for rate in (0.1, 0.5, 0.9):
        Y = adapter.Dropout(rate).apply({}, rows, False, rngs={"dropout": KEY})
        assert abs(float(Y.mean()) - 1) < 5 * math.sqrt(rate / (1 - rate) / 10**6)
    for bad in (jnp.inf, jnp.nan):
        Y = np.asarray(adapter.Dropout(0.5).apply({}, jnp.full((1000,), bad), False, rngs={"dropout": KEY}))
        assert 400 < (Y == 0).sum() < 600


# Modules of Flax: the models of this library, and those of others


@pytest.mark.parametrize("drop", DROPS)
def test_init_with_one_key(drop):
    """The key of the parameters is enough, and decides everything: eagerly, compiled, and where only shapes are."""
    net = Net(drop)
    Y, variables = net.init_with_output(KEY, X)
    again, _ = net.init_with_output(KEY, X)
    np.testing.assert_array_equal(Y, again)
    np.testing.assert_allclose(jax.jit(net.init_with_output)(KEY, X)[0], Y, rtol=1e-5, atol=1e-5)
    shapes = jax.eval_shape(net.init, KEY, X)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
    assert "Dense_0" in net.tabulate(KEY, X)
    dense = nn.Dense(50).init(KEY, X)  # dropout takes nothing from the parameters
    assert jax.tree.map(jnp.shape, dense["params"]) == jax.tree.map(jnp.shape, variables["params"]["Dense_0"])
    quiet = Net(drop, train=False).init(KEY, X)
    jax.tree.map(np.testing.assert_array_equal, variables, quiet)


@pytest.mark.parametrize("kind", MODELS)
def test_models_with_one_key(kind):
    model = small_mlp(kind)
    variables = model.init(KEY, X)
    jax.tree.map(np.testing.assert_array_equal, variables, jax.jit(model.init)(KEY, X))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, jax.eval_shape(model.init, KEY, X))
    assert "kernel" in model.tabulate(KEY, X)
    host = model.init(KEY, np.asarray(X))  # arrays of NumPy as well
    jax.tree.map(np.testing.assert_array_equal, variables, host)


@pytest.mark.parametrize("drop", DROPS)
def test_apply(drop):
    net = Net(drop)
    variables = net.init(KEY, X)
    for apply in (net.apply, jax.jit(net.apply)):
        first, second = (kept(apply(variables, X, rngs={"dropout": key})) for key in (KEY, OTHER))
        assert (first != second).any()
        np.testing.assert_array_equal(kept(apply(variables, X, rngs={"dropout": KEY})), first)
    kept(net.apply(variables, np.asarray(X), rngs={"dropout": KEY}))
    kept(net.bind(variables, rngs={"dropout": KEY})(X))


def test_apply_without_a_stream():
    """Eagerly, `dropout_layer` then has a key from `get_key`; compiled, it asks for one."""
    net = Net("function")
    variables = net.init(KEY, X)
    assert (kept(net.apply(variables, X)) != kept(net.apply(variables, X))).any()
    with pytest.raises(d2ldrop.UsageError, match=r"model.apply\(variables, X, rngs=\{\"dropout\": key\}\)"):
        jax.jit(net.apply)(variables, X)


@pytest.mark.parametrize("kind", MODELS)
def test_lifted_models(kind):
    model, Kind = small_mlp(kind), getattr(adapter, kind)
    arguments, rngs = (10, 16, 16, 0.5, 0.5, 0.1), {"dropout": KEY}
    variables = model.init(KEY, X)
    last = list(variables["params"])[-1]
    loss = lambda model: lambda variables: (model.apply(variables, X, rngs=rngs) ** 2).sum()  # noqa: E731
    for lift in (nn.remat, nn.jit):
        lifted = lift(Kind)(*arguments)
        value, gradient = jax.value_and_grad(loss(lifted))(variables)
        # The outputs are linear in the last layer: its weights times their gradient is twice the sum of their squares.
        # With another mask in the recomputation it would not be.
        products = jax.tree.map(jnp.vdot, gradient["params"][last], variables["params"][last])
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), 2 * value, rtol=1e-4)
        assert jax.tree.map(jnp.shape, lifted.init(KEY, X)) == jax.tree.map(jnp.shape, variables)
    several = nn.vmap(Kind, in_axes=0, variable_axes={"params": None}, split_rngs={"params": False, "dropout": True})(
        *arguments
    )
    Y = several.apply(variables, jnp.stack([X, X]), rngs=rngs)
    assert (Y[0] != Y[1]).any()


@pytest.mark.parametrize("drop", DROPS)
def test_lifted_networks(drop):
    rngs = {"dropout": KEY}
    variables = Net(drop).init(KEY, X)
    f = lambda net: lambda V: (net.apply(V, X, rngs=rngs) ** 2).sum()  # noqa: E731
    gradients = [jax.grad(f(kind(drop)))(variables)["params"]["Dense_0"]["bias"] for kind in (Net, nn.remat(Net))]
    np.testing.assert_allclose(*gradients, rtol=1e-4)
    split = {"params": False, "dropout": True}
    over = {"variable_axes": {"params": None}, "split_rngs": split, "in_axes": 0, "out_axes": 0}
    Y = nn.vmap(Net, **over)(drop).apply(variables, jnp.stack([X, X]), rngs=rngs)
    assert (kept(Y[0]) != kept(Y[1])).any()

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, H, _):
            return H, Net(drop)(H)

    repeated = nn.scan(Layer, variable_broadcast="params", split_rngs=split, length=3)()
    _, Y = repeated.apply(repeated.init(KEY, X, None), X, None, rngs=rngs)
    assert (kept(Y[0]) != kept(Y[1])).any()
    assert (kept(Y[1]) != kept(Y[2])).any()


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_in_compiled_code_has_no_constant_mask(kind):
    model, rows = small_mlp(kind), X[:4]
    model.apply_init((rows,), KEY)
    model.training = True
    assert (model(rows) != model(rows)).any()
    with pytest.raises(Exception, match=r"needs PRNG|a key for"):
        jax.jit(lambda X: model(X))(rows)
    compiled = jax.jit(lambda X, key: model.apply(model.learned, X, rngs={"dropout": key}))
    assert (compiled(rows, KEY) != compiled(rows, OTHER)).any()
    model.training = False
    np.testing.assert_allclose(jax.jit(lambda X: model(X))(rows), model(rows), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model(np.asarray(rows)), model(rows))


@pytest.mark.parametrize("kind", MODELS)
def test_models_under_export(kind):
    export = pytest.importorskip("jax.export")
    model = small_mlp(kind)
    variables, words = model.init(KEY, X), jax.random.key_data(KEY)
    run = jax.jit(lambda X, key: model.apply(variables, X, rngs={"dropout": key}))
    exported = export.export(run)(jax.ShapeDtypeStruct(export.symbolic_shape("b, 50"), jnp.float32), words)
    for rows in (40, 7):
        np.testing.assert_allclose(exported.call(X[:rows], words), run(X[:rows], words), rtol=1e-4, atol=1e-5)


def test_layer_in_a_model_that_the_trainer_trains():
    class Concise(adapter.Classifier):
        lr: float = 0.1

        @nn.compact
        def __call__(self, X):
            H = nn.relu(nn.Dense(32)(X.reshape(len(X), -1)))
            H = adapter.Dropout(0.5, deterministic=not self.training)(H)
            self.sow("seen", "H", H)
            return nn.Dense(10)(H)

    model = Concise()
    trainer = adapter.Trainer(3, seed=0, progress=False)
    trainer.fit(model, adapter.Digits(batch_size=100))
    assert trainer.history[-1]["train_loss"] < trainer.history[0]["train_loss"]
    zeros = {}
    for training in (True, False):
        learner = model.clone(training=training)
        _, seen = learner.apply(model.learned, X[:, :1] * jnp.ones((1, 64)), rngs={"dropout": KEY}, mutable=["seen"])
        zeros[training] = float((seen["seen"]["H"][0] == 0).mean())
    assert zeros[True] > zeros[False] + 0.1


# The layer of flax.nnx


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.lin, self.drop = nnx.Linear(50, 50, rngs=rngs), NNXDropout(0.5, rngs=rngs)

    def __call__(self, X):
        return self.drop(self.lin(X))


def test_nnx_modes():
    net = NNXNet(nnx.Rngs(0))
    net.eval()
    np.testing.assert_array_equal(net(X), net.lin(X))
    net.train()
    assert (kept(net(X)) != kept(net(X))).any()
    np.testing.assert_array_equal(net.drop(X, deterministic=True), X)
    net.set_attributes(nnx.Dropout, deterministic=True)  # it counts as a layer of Flax
    np.testing.assert_array_equal(net(X), net(X))
    kept(net.drop(X, deterministic=False))


def test_nnx_seeds_and_rngs():
    drawn = [kept(NNXNet(nnx.Rngs(seed))(X)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    layer = NNXDropout(P, rng_collection="noise")
    a, b = (check(layer(X, rngs=nnx.Rngs(noise=0, dropout=seed))) for seed in (0, 1))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(check(layer(X, rngs=KEY)), check(FORMS["dropout_layer"](X, KEY)))
    with pytest.raises(d2ldrop.UsageError, match="Expected rngs for Dropout, when it is made or called"):
        layer(X)


def test_nnx_transforms():
    net = NNXNet(nnx.Rngs(0))
    run = nnx.jit(lambda net, X: net(X))
    assert (kept(run(net, X)) != kept(run(net, X))).any()
    graph, state = nnx.split(net)
    pure = jax.jit(lambda state, X: nnx.merge(graph, state)(X))
    np.testing.assert_array_equal(pure(state, X), pure(state, X))
    np.testing.assert_array_equal(kept(pure(state, X)), kept(nnx.clone(net)(X)))
    dropped = kept(nnx.clone(net)(X))
    gradient = nnx.grad(lambda net: net(X).sum())(net)
    bias = d2ldrop.backend("jax").numpy(gradient["lin"]["bias"])
    np.testing.assert_allclose(bias, 2 * dropped.sum(axis=0), rtol=1e-5)
    assert (kept(net(X)) != dropped).any()  # the gradient has drawn a mask


def test_nnx_with_a_key_under_transforms():
    """The layer draws as `dropout_layer` does, so that what holds for one holds for the other."""
    layer, form = NNXDropout(P), FORMS["dropout_layer"]
    keys, run = jax.random.split(KEY, 2), lambda X, key: layer(X, rngs=key)
    gradient = lambda f: jax.jit(jax.grad(lambda X, key: f(X, key).sum()))  # noqa: E731
    for transform, key in ((jax.jit, KEY), (gradient, KEY), (lambda f: jax.vmap(f, (None, 0)), keys)):
        np.testing.assert_array_equal(transform(run)(X, key), transform(form)(X, key))


def test_nnx_copies_and_text():
    layer = NNXDropout(0.5, rngs=nnx.Rngs(0))
    assert "Dropout" in repr(layer)
    assert "0.5" in repr(layer)
    np.testing.assert_array_equal(kept(copy.deepcopy(layer)(X)), kept(layer(X)))


def test_dropout_layer_in_a_module_of_nnx_needs_a_key_where_it_is_traced():
    class Module(nnx.Module):
        def __call__(self, X, key=None):
            return adapter.dropout_layer(X, P, key)

    module = Module()
    differ(check(module(X)), check(module(X)))
    check(nnx.jit(lambda module, X, key: module(X, key))(module, X, KEY))
    with pytest.raises(d2ldrop.UsageError, match="Expected a key for dropout_layer"):
        nnx.jit(lambda module, X: module(X))(module, X)


# Masks from the host


def test_shared_masks_in_compiled_code(form):
    """The host draws them each time that the code runs."""
    run = jax.jit(lambda X, key: form(X, key))  # compiled here, where masks are shared
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        first, second = check(run(X, KEY)), check(run(X, KEY))
    differ(first, second)
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        np.testing.assert_array_equal(check(form(X, KEY)), first)

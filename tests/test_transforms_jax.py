"""Dropout under the transforms of JAX: what each element becomes, and when the mask is new."""

import importlib
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from dropping_jax import (
    KEY,
    OTHER,
    SCALE,
    P,
    X,
    adapter,
    check,
    differ,
    jax,
    jnp,
    lax,
)

import d2ldrop

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

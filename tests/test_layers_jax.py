"""The layers `Dropout` of flax.linen and flax.nnx, and models with dropout, under what Flax and JAX do with modules."""

import copy
import math
import pickle

import numpy as np
import pytest
from dropping_jax import (
    FORMS,
    KEY,
    LAYER,
    MODELS,
    OTHER,
    NNXDropout,
    P,
    X,
    adapter,
    check,
    differ,
    jax,
    jnp,
    nn,
    nnx,
    small_mlp,
)

import d2ldrop

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

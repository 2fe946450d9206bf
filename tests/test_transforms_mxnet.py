"""Dropout under what MXNet does with graphs, gradients and arrays."""

import math
import threading

import numpy as np
import pytest
from dropping_mxnet import DTYPES, GRAPHS, KINDS, Applied, autograd, check, dropping, gluon, mx, nn, npx, trained

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

pytestmark = [
    pytest.mark.only_mxnet,
    # SymbolBlock.imports says so of inputs whose dtype the file does not name
    pytest.mark.filterwarnings(r"ignore:\s*Cannot decide type for the following arguments:UserWarning"),
]


# Graphs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_hybridize(d2l, kind, graph, dtype, p):
    layer, X = dropping(d2l, kind, p, graph=graph), mx.np.ones((60, 70), dtype=dtype)
    results = [trained(layer, X) for _ in range(3)]
    check(*(Y for Y, _ in results), p=p)
    for Y, dX in results:
        assert Y.dtype == dX.dtype == dtype
        np.testing.assert_array_equal(Y, dX)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_integers(d2l, kind, graph, dtype):
    layer = dropping(d2l, kind, 0.5, graph=graph)
    with autograd.train_mode():
        Y = layer(mx.np.ones((600,)).astype(dtype))
    assert Y.dtype == np.float32
    check(Y.asnumpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("axes", [(), (1,), (-1, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dropped_inf_or_nan_becomes_zero_with_gradient_zero(d2l, kind, graph, axes, dtype):
    for bad in (np.inf, -np.inf, np.nan):
        Y, dX = trained(dropping(d2l, kind, 0.5, axes, graph), mx.np.full((20, 60, 7), bad, dtype=dtype))
        dropped = dX == 0
        assert set(np.unique(dX).tolist()) == {0, 2}
        assert (Y[dropped] == 0).all()
        np.testing.assert_array_equal(Y[~dropped], np.full((~dropped).sum(), bad, dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_p_0_p_1_and_nearly_1(d2l, kind, graph, dtype):
    X = mx.np.full((30, 5), np.inf, dtype=dtype)
    for p, expected, slope in ((0, np.inf, 1), (1, 0, 0)):
        for axes in ((), (1,)):
            Y, dX = trained(dropping(d2l, kind, p, axes, graph), X)
            assert Y.dtype == dX.dtype == dtype
            assert (expected == Y).all()
            assert (dX == slope).all()
    Y, dX = trained(dropping(d2l, kind, 0.99999, graph=graph), mx.np.zeros((1000, 1000), dtype=dtype))
    assert not Y.any()  # the scale is more than float16 holds
    assert not np.isnan(dX).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["eager", "hybridized"])
@pytest.mark.parametrize("axes", [(0,), (1,), (-1,), (2, 3), (0, 1, -2, 3)], ids=str)
def test_one_draw_is_shared_along_axes(d2l, kind, graph, axes):
    layer, X = dropping(d2l, kind, 0.3, axes, graph), mx.np.ones((20, 30, 4, 5))
    (Y, dX), (again, _) = trained(layer, X), trained(layer, X)
    np.testing.assert_array_equal(Y, dX)
    first = Y
    for axis in axes:
        first = np.take(first, [0], axis)
    np.testing.assert_array_equal(Y, np.broadcast_to(first, Y.shape))
    if first.size > 1:
        check(Y, again, p=0.3, draws=first.size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["eager", "hybridized"])
def test_axes_that_are_not_there_are_refused(d2l, kind, graph):
    layer = dropping(d2l, kind, 0.5, (2,), graph)
    says = {"eager": "Expected axes of an array of 2 axes", "hybridized": "axis must be smaller"}[graph]
    with pytest.raises(ValueError if graph == "eager" else mx.base.MXNetError, match=says), autograd.train_mode():
        layer(mx.np.ones((2, 3)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["eager", "hybridized"])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 3, 5)], ids=str)
def test_any_shape(d2l, kind, graph, shape):
    for axes in ((), tuple(range(len(shape)))[-1:]):
        Y, dX = trained(dropping(d2l, kind, 0.5, axes, graph), mx.np.ones(shape))
        assert Y.shape == shape
        np.testing.assert_array_equal(Y, dX)
        assert set(Y.ravel().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", [(), (0,)], ids=str)
def test_export_and_import(d2l, kind, axes, tmp_path):
    net = nn.HybridSequential()
    net.add(nn.Dense(50), dropping(d2l, kind, 0.3, axes))
    net.initialize()
    net.hybridize()
    X = mx.np.random.uniform(size=(40, 3))
    dense = net[0](X).asnumpy()
    net(X)
    net.export(str(tmp_path / "net"))
    block = gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    results = [trained(block, X)[0] / dense for _ in range(3)]
    check(*results, p=0.3, draws=None if not axes else 50)
    if axes:
        np.testing.assert_array_equal(results[0] != 0, np.broadcast_to(results[0][:1] != 0, results[0].shape))
    ratio = block(X).asnumpy() / dense
    if kind == "Dropout":
        np.testing.assert_allclose(ratio, 1, rtol=1e-5)
    else:  # a function has no mode: it is called in training, or not
        check(ratio, p=0.3, draws=None if not axes else 50)


def test_export_of_a_model(d2l, small, tmp_path):
    model, X = d2l.DropoutMLP(**small), mx.np.ones((4, 64))
    expected = model(X).asnumpy()
    model.net.export(str(tmp_path / "net"))
    block = gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    np.testing.assert_allclose(block(X).asnumpy(), expected, rtol=1e-5)
    with autograd.train_mode():
        assert len({block(X).asnumpy().tobytes() for _ in range(4)}) == 4
    np.testing.assert_allclose(block(X).asnumpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_and_executors(d2l, kind):
    """The older way to make a graph: by hand, from a symbol, with memory bound to it."""
    X, dX = mx.nd.ones((60, 70)), mx.nd.zeros((60, 70))
    graph = dropping(d2l, kind, 0.3)(mx.sym.Variable("X").as_np_ndarray()).as_nd_ndarray()
    executor = graph.bind(mx.cpu(), {"X": X}, {"X": dX})
    results = []
    for _ in range(3):
        Y = executor.forward(is_train=True)[0].asnumpy()
        executor.backward(mx.nd.ones((60, 70)))
        np.testing.assert_array_equal(dX.asnumpy(), Y)
        results.append(Y)
    check(*results, p=0.3)
    if kind == "Dropout":
        assert (executor.forward(is_train=False)[0].asnumpy() == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_loops_in_a_graph_draw_a_mask_in_each_step(d2l, kind):
    mx.util.reset_np()  # loops are of the older namespace
    try:
        layer = dropping(d2l, kind, 0.3)
        loop = Applied(lambda F, X: F.contrib.foreach(lambda x, state: (layer(x), state), X, F.zeros((1,)))[0])
        loop.hybridize()
        Y, dX = trained(loop, mx.nd.ones((5, 60, 70)))
    finally:
        npx.set_np()
    check(*Y, p=0.3)
    np.testing.assert_array_equal(Y, dX)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_for_the_gradient_has_the_same_mask(d2l, kind, monkeypatch):
    monkeypatch.setenv("MXNET_BACKWARD_DO_MIRROR", "1")
    net = nn.HybridSequential()
    net.add(nn.Activation("relu"), dropping(d2l, kind, 0.3), nn.Activation("relu"), dropping(d2l, kind, 0.5))
    net.hybridize()
    Y, dX = trained(net, mx.np.ones((60, 70)))
    np.testing.assert_array_equal(Y, dX)
    assert 0.25 < (Y != 0).mean() < 0.45


# Gradients


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["eager", "hybridized"])
def test_gradients_in_all_ways(d2l, kind, graph):
    layer, X = dropping(d2l, kind, 0.3, graph=graph), mx.np.ones((20, 30))
    X.attach_grad("add")
    total = 0
    for _ in range(2):
        with autograd.record():
            Y = layer(X)
        Y.backward()
        total = total + Y.asnumpy()
    np.testing.assert_array_equal(X.grad.asnumpy(), total)
    head = mx.np.random.uniform(size=X.shape)
    with autograd.record():
        Y = layer(X)
        dX = autograd.grad(Y, X, head_grads=head)[0]
    np.testing.assert_allclose(dX.asnumpy(), (Y * head).asnumpy(), rtol=1e-6)


def test_derivatives_of_second_order_are_missing_as_for_products(d2l):
    """MXNet 1.9.1 has none for a product; of its own dropout it returns a wrong one: 0."""
    for function in (lambda X: d2l.dropout_layer(X, 0.5), lambda X: X * mx.nd.ones_like(X)):
        X = mx.nd.ones((3,))
        X.attach_grad()
        with pytest.raises(mx.base.MXNetError, match="non-differentiable"), autograd.record():
            autograd.grad(mx.nd.sin(function(X)), X, create_graph=True, retain_graph=True)[0].backward()
    autograd.set_recording(False)
    autograd.set_training(False)


# Arrays, dtypes, devices


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", ["eager", "hybridized"])
def test_arrays_of_the_older_namespace(d2l, kind, graph):
    mx.util.reset_np()  # as in code that never calls set_np
    try:
        layer = dropping(d2l, kind, 0.3, graph=graph)
        check(*(trained(layer, mx.nd.ones((60, 70)))[0] for _ in range(2)), p=0.3)
        with autograd.train_mode():
            assert type(layer(mx.nd.ones((2, 3)))) is mx.nd.NDArray
            assert layer(mx.nd.ones((2, 3), dtype="int32")).dtype == np.float32
    finally:
        npx.set_np()
    assert type(d2l.dropout_layer(mx.nd.ones((2, 3)), 0.5)) is mx.nd.NDArray


def test_sparse_arrays_and_parameters(d2l):
    for kind in ("csr", "row_sparse"):
        Y = d2l.dropout_layer(mx.nd.ones((60, 70)).tostype(kind), 0.3)
        assert Y.stype == "default"  # as of MXNet's own dropout
        check(Y.asnumpy(), p=0.3)
    parameter = gluon.Parameter("W", shape=(60, 70), init="ones")
    parameter.initialize()
    with autograd.record():
        Y = d2l.dropout_layer(parameter, 0.3)
    Y.backward()
    check(Y.asnumpy(), p=0.3)
    np.testing.assert_array_equal(parameter.grad().asnumpy(), Y.asnumpy())


@pytest.mark.parametrize("X", [[1.0, 2.0], 3.0, None, "text", np.ones(3)], ids=repr)
def test_what_is_no_array_of_mxnet_is_refused(d2l, X):
    for drop in (lambda X: d2l.dropout_layer(X, 0.5), d2l.Dropout(0.5), d2l.backend.real_floats):
        with pytest.raises(d2ldrop.errors.ArgumentTypeError, match=r"Expected X to be an array of mxnet. Received: "):
            drop(X)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_cast(d2l, dtype):
    net = nn.HybridSequential()
    net.add(nn.BatchNorm(), d2l.Dropout(0.5))
    net.initialize()
    net.hybridize()
    X = mx.np.random.uniform(size=(60, 70))
    net(X)
    net.cast(dtype)
    Y, _ = trained(net, X.astype(dtype))
    assert Y.dtype == dtype
    assert abs((Y != 0).mean() - 0.5) < 5 * 0.5 / math.sqrt(Y.size)


@pytest.mark.filterwarnings("ignore:.*as_in_context has been renamed:DeprecationWarning")  # gluon itself calls it
@pytest.mark.parametrize("kind", KINDS)
def test_several_devices(d2l, kind):
    """A batch that is split over devices, as gluon does it; each draws from a generator of its own."""
    layer = dropping(d2l, kind, 0.3)
    parts = gluon.utils.split_and_load(mx.np.ones((120, 70)), [mx.cpu(0), mx.cpu(1)])
    with autograd.train_mode():
        results = [layer(part) for part in parts for _ in range(2)]
    assert [Y.ctx for Y in results] == [mx.cpu(0)] * 2 + [mx.cpu(1)] * 2
    check(*(Y.asnumpy() for Y in results), p=0.3)
    with autograd.train_mode():
        Y = dropping(d2l, kind, 0.3, axes=(1,))(parts[1]).asnumpy()
    np.testing.assert_array_equal(Y, np.broadcast_to(Y[:, :1], Y.shape))


@pytest.mark.parametrize("graph", ["eager", "hybridized"])
@pytest.mark.parametrize("kind", KINDS)
def test_threads(d2l, kind, graph):
    """Also in a thread that did not call `set_np`, where gluon's own layer fails.

    MXNet's own generator is another one in each thread, and begins in all of them with the same seed.
    """
    X, drawn = mx.np.ones((60, 70)), {}

    def run(k):
        d2l.seed(k)
        layer = dropping(d2l, kind, 0.3, graph=graph)
        drawn[k] = trained(layer, X)

    threads = [threading.Thread(target=run, args=[k]) for k in range(4)]
    for thread in threads:
        thread.start()
        thread.join()  # MXNet's blocks are not meant to be called at once
    check(*(Y for Y, _ in drawn.values()), p=0.3)
    for Y, dX in drawn.values():
        np.testing.assert_array_equal(Y, dX)


# Randomness


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", KINDS)
def test_seeds(d2l, kind, graph):
    """What MXNet's own generator draws, its own seed repeats."""
    layer, X = dropping(d2l, kind, 0.5, graph=graph), mx.np.ones((20, 30))
    own = (kind, graph) != ("dropout_layer", "eager")  # whose masks are NumPy's, on a CPU
    for seed_ in (d2l.seed, *[mx.random.seed, npx.random.seed] * own):
        drawn = []
        for seed in (3, 3, 4):
            seed_(seed)
            drawn.append([trained(layer, X)[0].tobytes() for _ in range(2)])
        assert drawn[0] == drawn[1]
        assert len({*drawn[0], *drawn[2]}) == 4


def test_shared_masks_are_refused_in_graphs(d2l):
    for function in (
        lambda F, X: d2l.dropout_layer(X, 0.5),
        lambda F, X: d2l.backend.keep_mask(X, odds(0.5)),
        lambda F, X: d2l.backend.normal_like(X),
    ):
        block = Applied(function)
        block.hybridize()
        with sharing_masks(np.random.default_rng(0)), pytest.raises(d2ldrop.UsageError, match="It is hybridized"):
            block(mx.np.ones((3,)))


# The draws of other noise


@pytest.mark.parametrize("graph", ["eager", "hybridized"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3, 0), (300, 40)], ids=str)
def test_draws_for_other_noise(d2l, graph, dtype, shape):
    X, backend, last = mx.np.full(shape, 5, dtype=dtype), d2l.backend, tuple(range(len(shape)))[-1:]

    def draw(function, X=X):
        block = Applied(lambda F, X: function(X))
        block.hybridize(active=graph == "hybridized")
        return block(X)

    Z = draw(backend.normal_like)
    assert (type(Z), Z.shape, Z.dtype) == (mx.np.ndarray, shape, dtype)
    for p, axes in ((0, ()), (0.3, ()), (1, ()), (0.3, last), (0, last), (1, last)):
        mask = draw(lambda X, p=p, axes=axes: backend.keep_mask(X, odds(p), axes))
        assert (type(mask), mask.dtype) == (mx.np.ndarray, bool)
        assert mask.shape == tuple(min(n, 1) if k in axes else n for k, n in enumerate(shape)) or (
            graph == "eager" and mask.shape == tuple(1 if k in axes else n for k, n in enumerate(shape))
        )
        assert p not in (0, 1) or (mask.asnumpy() == (p == 0)).all()
    both = draw(lambda X: backend.where(backend.keep_mask(X, odds(0.3), last), X, -1.5))
    assert (both.shape, both.dtype) == (shape, dtype)
    assert set(both.asnumpy().ravel().tolist()) <= {5.0, -1.5}
    if X.size > 1:
        mask, Z = draw(lambda X: backend.keep_mask(X, odds(0.3))).asnumpy(), Z.asnumpy().astype(np.float64)
        assert abs(mask.mean() - 0.7) < 5 * math.sqrt(0.21 / X.size)
        assert abs(Z.mean()) < 5 / math.sqrt(X.size)
        assert abs(Z.var() - 1) < 5 * math.sqrt(2 / X.size)
        again = draw(backend.normal_like).asnumpy()
        assert abs((Z * again).mean()) < 5 / math.sqrt(X.size)


@pytest.mark.parametrize("graph", ["eager", "hybridized"])
@pytest.mark.parametrize("axes", [(), (1,)], ids=str)
def test_gradient_where_noise_replaces_elements(d2l, graph, axes):
    backend = d2l.backend
    block = Applied(lambda F, X: backend.where(backend.keep_mask(X, odds(0.3), axes), X, -2.0))
    block.hybridize(active=graph == "hybridized")
    Y, dX = trained(block, mx.np.full((60, 70), np.inf))
    np.testing.assert_array_equal(dX, np.isinf(Y).astype(np.float32))
    np.testing.assert_array_equal(Y[dX == 0], np.full((dX == 0).sum(), -2))
    check(dX / np.float32(0.7), p=0.3, draws=None if not axes else 60)


def test_noise_that_is_shared_or_isolated(d2l):
    X, drawn = mx.np.ones((5, 6)), []
    for seed in (3, 3, 4):
        d2l.seed(seed)
        with d2l.backend.isolated():
            d2l.backend.normal_like(X)
        drawn.append([d2l.backend.normal_like(X).asnumpy().tobytes() for _ in range(2)])
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 4
    with sharing_masks(np.random.default_rng(0)):
        shared = d2l.backend.normal_like(X).asnumpy()
    with sharing_masks(np.random.default_rng(0)):
        expected = d2ldrop.backend("numpy").backend.normal_like(np.ones((5, 6), np.float32))
    np.testing.assert_array_equal(shared, expected)

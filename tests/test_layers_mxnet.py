"""The `Dropout` layer for gluon, and models with dropout: modes, copies and files."""

import copy
import math
import pickle

import numpy as np
import pytest
from dropping_mxnet import GRAPHS, KINDS, autograd, check, dropping, gluon, mx, nn, trained

import d2ldrop

pytestmark = [
    pytest.mark.only_mxnet,
    # SymbolBlock.imports says so of inputs whose dtype the file does not name
    pytest.mark.filterwarnings(r"ignore:\s*Cannot decide type for the following arguments:UserWarning"),
]


# Modes


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_the_layer_drops_in_training_alone(d2l, graph, p):
    layer, X = dropping(d2l, "Dropout", p, graph=graph), mx.np.ones((60, 70))

    def same(X):
        return (layer(X).asnumpy() == X.asnumpy()).all()

    for _ in range(2):  # a graph that was made for one mode runs in the other
        assert same(X)
        with autograd.record(train_mode=False):
            assert same(X)
        with autograd.record():
            dropped = layer(X).asnumpy()
            with autograd.predict_mode():
                assert same(X)
            with autograd.pause():
                assert same(X)
        with autograd.train_mode():
            check(dropped, layer(X).asnumpy(), p=p) if p == 0.3 else None
            assert same(X) == (p == 0)
    bad = mx.np.array([np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(layer(bad).asnumpy(), bad.asnumpy())


def test_models_with_the_layer_train_and_predict(d2l):
    net, X = nn.HybridSequential(), mx.np.random.uniform(size=(200, 10))
    net.add(nn.Dense(64, activation="relu"), d2l.Dropout(0.2), nn.Dense(32), d2l.Dropout(0.2, axes=(0,)), nn.Dense(1))
    net.initialize()
    net.hybridize()
    y = X.sum(axis=1, keepdims=True)
    trainer, losses = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.01}), []
    for _ in range(100):
        with autograd.record():
            loss = ((net(X) - y) ** 2).mean()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 5
    assert (net(X).asnumpy() == net(X).asnumpy()).all()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_models(d2l, small, kind, graph):
    model, X = getattr(d2l, kind)(**small), mx.np.ones((30, 64))
    model.hybridize(active=graph != "eager", **(GRAPHS[graph] or {}))
    expected = model(X).asnumpy()
    for _ in range(2):
        np.testing.assert_array_equal(model(X).asnumpy(), expected)
        with autograd.record():
            assert len({model(X).asnumpy().tobytes() for _ in range(3)}) == 3
    np.testing.assert_array_equal(model(X).asnumpy(), expected)


def test_summary(d2l, small, capsys):
    """gluon itself refuses a network that is hybridized."""
    X = mx.np.ones((3, 64))
    for kind in ("DropoutMLPScratch", "DropoutMLP", "SoftmaxRegression"):
        hparams = small if "Dropout" in kind else {"num_outputs": 10, "lr": 0.1}
        for called in (False, True):
            model = getattr(d2l, kind)(**hparams)
            before = model(X).asnumpy() if called else None
            model.summary(X)
            printed = capsys.readouterr().out
            assert "(3, 10)" in printed
            assert printed.count("Dense") == (1 if kind == "SoftmaxRegression" else 3)
            assert printed.count("GluonDropout") == (2 if kind == "DropoutMLP" else 0)
            assert "_Symbol" not in printed
            if called:
                np.testing.assert_allclose(model(X).asnumpy(), before, rtol=1e-5)
            if kind != "DropoutMLPScratch":
                assert model.net._active
                assert all(layer._active for layer in model.net)


# The layer


@pytest.mark.parametrize("rate", [1.2, -0.1, math.nan, "0.5", None, [0.5], 10**400], ids=lambda rate: str(rate)[:4])
def test_the_layer_refuses_an_impossible_rate_at_once(d2l, rate):
    with pytest.raises(d2ldrop.D2LDropError, match=r"Expected rate to be a number in \[0, 1\]. Received: "):
        d2l.Dropout(rate)


def test_the_layer_prints_itself_like_gluons(d2l):
    for arguments in ((0.5,), (0.3, (1,)), (1.0, (0, 2))):
        assert repr(d2l.Dropout(*arguments)) == repr(nn.Dropout(*arguments))
    assert isinstance(d2l.Dropout(0.5), nn.Dropout)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("graph", ["eager", "hybridized"])
def test_copies_of_the_layer(d2l, way, graph):
    layer, X = dropping(d2l, "Dropout", 0.3, (1,), graph), mx.np.ones((600, 7))
    trained(layer, X)
    copied = way(layer)
    assert (repr(copied), copied._active) == (repr(layer), layer._active)
    check(trained(layer, X)[0], trained(copied, X)[0], p=0.3, draws=600)
    assert (copied(X).asnumpy() == 1).all()


def test_files_of_a_network_are_the_same_with_gluons_layer(d2l, tmp_path):
    nets = []
    for layer in (nn.Dropout(0.5), d2l.Dropout(0.5)):
        net = nn.HybridSequential()
        net.add(nn.Dense(4), layer, nn.Dense(3))
        net.initialize()
        net(mx.np.ones((2, 5)))
        nets.append(net)
    nets[0].save_parameters(str(tmp_path / "net.params"))
    nets[1].load_parameters(str(tmp_path / "net.params"))
    X = mx.np.random.uniform(size=(6, 5))
    np.testing.assert_array_equal(nets[0](X).asnumpy(), nets[1](X).asnumpy())


@pytest.mark.parametrize("graph", ["eager", "hybridized"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_mean_smallest_and_largest_of_what_the_layer_returns(d2l, graph, p):
    Y, _ = trained(dropping(d2l, "Dropout", p, graph=graph), mx.np.ones((300, 400)))
    assert Y.max() == pytest.approx(1 / (1 - p), rel=2**-16 / (1 - p))
    assert Y.min() == (0 if p else 1)
    assert abs(Y.mean() - 1) < 5 * math.sqrt(p / (1 - p) / Y.size) + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_a_graph_are_independent(d2l, kind):
    layer = dropping(d2l, kind, 0.3, graph="hybridized")
    first, second = ((trained(layer, mx.np.ones((500, 400)))[0] > 0) - 0.7 for _ in range(2))
    pairs = [
        (first, second),
        *((first.ravel()[lag:], first.ravel()[:-lag]) for lag in (1, 2, 3, 4, 8, 64, 400, 100_000)),
    ]
    for a, b in pairs:
        assert abs((a * b).mean()) / 0.21 * math.sqrt(a.size) < 5

"""The layer to use in place of `nn.Dropout`, also in networks that are already there."""

import copy
import importlib
import math
import pickle
import warnings

import numpy as np
import pytest
from dropping_torch import FLOATS, check, compiles, nn, torch

import d2ldrop

pytestmark = pytest.mark.only_torch


# The layer


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_layer_drops_in_training_alone(d2l, dtype, inplace):
    for p in (0.0, 0.2, 0.5, 0.9, 1.0):
        layer = d2l.Dropout(p, inplace)
        X = torch.full((30, 50), 3.0, dtype=getattr(torch, dtype))
        given = X.clone()
        Y = layer(given)
        assert Y.dtype == X.dtype
        assert (Y is given) == (inplace or p == 0)
        assert torch.equal(given, Y if inplace else X)
        if p < 1:
            check(Y, p=p, unit=3.0)
        else:
            assert not Y.any()
        assert layer.eval()(X) is X


def test_modes_of_the_layer_follow_the_network(d2l):
    net, X = nn.Sequential(nn.Identity(), nn.Sequential(d2l.Dropout())), torch.ones(100, 100)
    check(net(X))
    net.eval()
    assert torch.equal(net(X), X)
    net.train()
    check(net(X))
    net[1][0].eval()  # it alone
    assert torch.equal(net(X), X)


def test_the_layer_is_described_like_that_of_pytorch(d2l):
    for arguments in ((), (0.1,), (0.1, True)):
        assert repr(d2l.Dropout(*arguments)) == repr(nn.Dropout(*arguments))
    assert repr(d2l.Dropout(p=0.2, inplace=True)) == "Dropout(p=0.2, inplace=True)"
    assert isinstance(d2l.Dropout(), nn.Dropout)
    assert d2l.Dropout().state_dict() == {}
    d2l.Dropout().load_state_dict({})


@pytest.mark.parametrize("p", [-0.1, 1.2, math.nan, math.inf, "0.5", None, 1j, [0.5]], ids=str)
def test_the_layer_refuses_impossible_p_at_once(d2l, p):
    with pytest.raises(d2ldrop.D2LDropError, match=r"Expected p to be a number in \[0, 1\]"):
        d2l.Dropout(p)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_the_layer_takes_any_shape_and_strides(d2l, shape, inplace):
    layer, X = d2l.Dropout(0.5, inplace), torch.rand(shape) + 1
    Y = layer(X.clone())
    assert Y.shape == X.shape
    assert ((Y == 0) | (Y == 2 * X)).all()
    turned = (torch.rand(50, 40) + 1).T[::2, 1:]
    before = turned.clone()
    Y = layer(turned)
    assert ((Y == 0) | (2 * before == Y)).all()
    assert 0.4 < (Y != 0).float().mean() < 0.6


def test_dropout_in_place_has_the_right_gradient(d2l):
    X = torch.rand(100, 100, requires_grad=True)
    H = 2 * X
    Y = d2l.Dropout(0.5, inplace=True)(H)
    assert Y is H
    Y.sum().backward()
    assert torch.equal(X.grad * X.detach(), Y.detach())
    with pytest.raises(RuntimeError, match="in-place"):
        d2l.Dropout(0.5, inplace=True)(X)  # a leaf
    with pytest.raises(d2ldrop.ArgumentTypeError, match="Expected floats for dropout in place"):
        d2l.Dropout(0.5, inplace=True)(torch.ones(3, dtype=torch.int64))


def test_the_layer_forgets_inf_and_nan_that_it_drops(d2l):
    for inplace in (False, True):
        for p, expected in ((0.5, {0.0, math.inf}), (1, {0.0})):
            Y = d2l.Dropout(p, inplace)(torch.full((100,), math.inf))
            assert set(Y.tolist()) == expected


def test_the_layer_keeps_the_mean_and_has_the_variance_of_its_formula(d2l):
    """A sum of n ones under dropout has mean n and variance n p / (1 - p)."""
    for p in (0.1, 0.5, 0.8):
        sums = d2l.Dropout(p)(torch.ones(4000, 1000)).sum(dim=1)
        variance = 1000 * p / (1 - p)
        assert abs(sums.mean() - 1000) < 5 * math.sqrt(variance / 4000)
        assert abs(sums.var() / variance - 1) < 5 * math.sqrt(2 / 4000)


def test_the_layer_is_kept_whole_in_graphs_of_fx(d2l):
    """Where PyTorch's own layers stand in such a graph, a replaced one has to: the graph still has its modes."""
    net = nn.Sequential(nn.Linear(10, 500), nn.Sequential(d2l.Dropout(0.5)))
    graph, X = torch.fx.symbolic_trace(net), torch.ones(40, 10)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "1.0"]
    check(graph(X) / net[0](X))
    assert torch.equal(graph.eval()(X), net[0](X))


# In networks that are already there


def network():
    return nn.Sequential(nn.Linear(64, 200), nn.Dropout(0.5), nn.ModuleDict({"deep": nn.Dropout(0.2, inplace=True)}))


def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.3, batch_first=True)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


def kinds_of(net):
    return [type(layer) for layer in net.modules() if isinstance(layer, nn.Dropout)]


def test_replace_dropout_and_back(d2l):
    net = encoder()
    names, state = [name for name, _ in net.named_modules()], copy.deepcopy(net.state_dict())
    layers, text = list(net.modules()), repr(net)
    assert d2l.replace_dropout(net) is net
    assert kinds_of(net) == [d2l.Dropout] * 3
    assert [name for name, _ in net.named_modules()] == names
    assert all(now is before for now, before in zip(net.modules(), layers, strict=True))
    assert repr(net) == text
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in state.items())
    net.load_state_dict(state)
    assert d2l.replace_dropout(net, back=True) is net
    assert kinds_of(net) == [nn.Dropout] * 3


def test_replaced_layers_drop(d2l):
    net = d2l.replace_dropout(network())
    before = torch.get_rng_state()
    drawn = net[1](torch.ones(100, 200))
    check(drawn, net[1](torch.ones(100, 200)))
    torch.set_rng_state(before)
    assert torch.equal(drawn, d2l.dropout_layer(torch.ones(100, 200), 0.5))  # ours, not PyTorch's
    X = torch.ones(100, 200)
    assert net[2]["deep"](X) is X
    check(X, p=0.2)


def test_replaced_layers_keep_modes_hooks_and_sharing(d2l):
    shared = nn.Dropout(0.4)
    net, calls = nn.Sequential(shared, nn.Linear(3, 3), shared, nn.Dropout(0.1).eval()), []
    hook = shared.register_forward_hook(lambda *_: calls.append(1))
    shared.note = "mine"
    d2l.replace_dropout(net)
    assert net[0] is net[2] is shared
    assert (shared.p, shared.training, shared.note, net[3].training) == (0.4, True, "mine", False)
    net(torch.ones(2, 3))
    assert len(calls) == 2
    hook.remove()
    alone = nn.Dropout(0.7)
    assert d2l.replace_dropout(alone) is alone
    assert type(alone) is d2l.Dropout
    made = pickle.loads(pickle.dumps(copy.deepcopy(net)))
    assert kinds_of(made) == [d2l.Dropout] * 2


def test_other_kinds_of_dropout_stay(d2l):
    class Own(nn.Dropout):
        pass

    kinds = [Own, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]
    net = d2l.replace_dropout(nn.Sequential(*(kind() for kind in kinds)))
    assert [type(layer) for layer in net] == kinds
    attention = d2l.replace_dropout(nn.MultiheadAttention(8, 2, dropout=0.5))
    assert attention.dropout == 0.5  # it calls a function on its weights
    assert kinds_of(attention) == []


def test_replace_dropout_refuses_what_is_no_network(d2l):
    for wrong in (len, [nn.Dropout(0.5)], None):
        with pytest.raises(TypeError, match="Expected model to be a network"):
            d2l.replace_dropout(wrong)


def test_replace_dropout_refuses_impossible_p_and_changes_nothing_then(d2l):
    net = network()
    net[2]["deep"].p = math.nan
    with pytest.raises(d2ldrop.ArgumentError, match="Expected p to be a number in"):
        d2l.replace_dropout(net)
    assert kinds_of(net) == [nn.Dropout] * 2


@compiles
def test_networks_compiled_before_are_compiled_anew(d2l):
    torch._dynamo.reset()
    net, X = nn.Sequential(nn.Dropout(0.5)), torch.full((1000,), torch.inf)
    function = torch.compile(net, fullgraph=True, backend="eager")
    assert function(X).isnan().any()  # PyTorch's: inf times 0
    d2l.replace_dropout(net)
    assert set(function(X).tolist()) == {0, torch.inf}


@compiles
def test_a_replaced_encoder_under_transforms(d2l):
    torch._dynamo.reset()
    net, X = d2l.replace_dropout(encoder()), torch.rand(4, 7, 16)
    function = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert not torch.equal(function(X), function(X))
    exported = torch.export.export(net, (X,), strict=False).module()
    assert not torch.equal(exported(X), exported(X))
    net.eval()
    torch.testing.assert_close(function(X), net(X))
    d2l.replace_dropout(net, back=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(d2l.replace_dropout(d2l.Dropout(0.5), back=True)))
    assert isinstance(scripted, torch.jit.ScriptModule)  # what `torch.jit` cannot read in our layer is gone


def test_a_transformer_encoder_learns_as_with_the_layers_of_pytorch(d2l, monkeypatch):
    """From the same weights the losses differ by the masks alone: a p of 0.2 in place of 0.3 would make 0.08 of it."""
    baselines = importlib.import_module("d2ldrop.benchmarks.baselines.torch")
    layers = importlib.import_module("d2ldrop.torch.layers")
    calls, function = [], layers.dropout_layer
    monkeypatch.setattr(layers, "dropout_layer", lambda *arguments: calls.append(1) or function(*arguments))
    differences = []
    for seed in range(4):
        steps = baselines.encoder_steps(32, 2, 64, 1, 16, 8, dropout=0.3, lr=0.1, seed=seed)
        torch.manual_seed(seed)
        losses = {who: [step() for _ in range(100)] for who, step in steps.items()}
        assert np.mean(losses["Dropout"][-20:]) < 0.7 * losses["Dropout"][0]
        differences.append(np.mean(losses["Dropout"][-20:]) - np.mean(losses["own"][-20:]))
    assert abs(np.mean(differences)) < 0.02
    assert len(calls) == 4 * 100 * 3  # one for each of three layers, and none by those of PyTorch

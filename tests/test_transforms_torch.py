"""Dropout under what PyTorch does with functions and networks."""

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from dropping_torch import (
    KINDS,
    MODELS,
    Half,
    built,
    check,
    compilers,
    compiles,
    hidden_zeros,
    nn,
    torch,
)

import d2ldrop
from d2ldrop.randomness import sharing_masks

pytestmark = pytest.mark.only_torch


# Transforms


@compiles
@pytest.mark.parametrize("compiler", compilers)
def test_compile(d2l, compiler):
    """One graph, each p of it: with packed lanes of 1, 8 and 16 bits; the backward pass takes the same mask."""
    torch._dynamo.reset()
    layer = d2l.Dropout(0.25)

    @torch.compile(fullgraph=True, backend=compiler)
    def function(X):
        return d2ldrop.dropout_layer(X, 0.5), layer(X), d2l.dropout_layer(X, 0.3, axes=(1,))

    X = nn.Parameter(torch.ones(200, 301))
    first, second = function(X), function(X)
    for Y, other, p in zip(first, second, (0.5, 0.25, 0.3), strict=True):
        (dX,) = torch.autograd.grad(Y.sum(), X, retain_graph=True)
        assert torch.equal(dX, Y)
        columns = slice(1) if p == 0.3 else slice(None)
        check(Y[:, columns], other[:, columns], p=p)
        assert torch.equal(Y[:, columns].expand_as(Y), Y)
    bad = function(nn.Parameter(torch.full((200, 301), torch.inf)))
    assert all(set(Y.unique().tolist()) == {0, torch.inf} for Y in bad)


@compiles
def test_compile_follows_modes_probabilities_and_batch_sizes(d2l):
    torch._dynamo.reset()
    layer = d2l.Dropout(0.5)
    function = torch.compile(layer, fullgraph=True, backend="eager")
    for n, p in ((1000, 0.5), (2000, 0.5), (3001, 0.25), (4001, 0.3)):
        layer.p = p
        check(function(torch.ones(n)), p=p)
    layer.eval()
    assert torch.equal(function(torch.ones(1000)), torch.ones(1000))


@compiles
def test_compiled_code_repeats_masks_from_a_seed(d2l):
    torch._dynamo.reset()
    X = torch.ones(1000)
    function = torch.compile(lambda X: d2l.dropout_layer(X, 0.3), fullgraph=True, backend="aot_eager")
    masks = [(d2l.seed(seed), function(X), d2l.dropout_layer(X, 0.3))[1:] for seed in (1, 1, 2)]
    assert torch.equal(masks[0][0], masks[1][0])
    assert not torch.equal(masks[0][0], masks[2][0])
    assert torch.equal(masks[0][1], masks[1][1])  # what eager code draws afterwards


@compiles
def test_compiled_code_draws_masks_of_its_own_where_masks_are_shared(d2l):
    torch._dynamo.reset()
    function = torch.compile(lambda X: d2l.dropout_layer(X, 0.5), fullgraph=True, backend="eager")
    rng = np.random.Generator(np.random.Philox(1))
    with sharing_masks(rng):
        check(function(torch.ones(1000)), function(torch.ones(1000)))
    assert rng.integers(2**62) == np.random.Generator(np.random.Philox(1)).integers(2**62)


@compiles
@pytest.mark.parametrize("name", MODELS)
def test_compiled_models(d2l, small, name):
    torch._dynamo.reset()
    model, X = built(d2l, name, small), torch.rand(256, 64)
    function = torch.compile(model, fullgraph=True, backend="aot_eager")
    first, second = function(X), function(X)
    assert not torch.equal(first, second)
    first.sum().backward()
    assert all(param.grad.isfinite().all() for param in model.parameters())
    model.eval()
    torch.testing.assert_close(function(X), model(X))


@compiles
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
@pytest.mark.parametrize("kind", KINDS)
def test_export(d2l, kind, strict):
    """While training and for any number of samples; saved and loaded; and in evaluation nothing is dropped."""
    net, X = Half(d2l, kind, 0.3).train(), torch.ones(64, 33)
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (X,), dynamic_shapes=sizes, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    module = torch.export.load(file).module()
    check(module(X), module(X), p=0.3)
    check(module(torch.ones(999, 33)), p=0.3)
    assert module(torch.ones(1, 33)).shape == (1, 33)
    if kind == "Dropout":
        still = torch.export.export(net.eval(), (X,), strict=strict).module()
        assert torch.equal(still(X), X)


@compiles
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_exported_models(d2l, small, strict):
    model, X = built(d2l, "DropoutMLPScratch", small), torch.rand(64, 64)
    sizes = ({0: torch.export.Dim("batch")},)
    training = torch.export.export(model, (X,), dynamic_shapes=sizes, strict=strict).module()
    dropped = [training(torch.rand(7, 64)), training(X), training(X)]
    assert [len(Y) for Y in dropped] == [7, 64, 64]
    assert not torch.equal(dropped[1], dropped[2])
    model.eval()
    torch.testing.assert_close(torch.export.export(model, (X,), strict=strict).module()(X), model(X))


@compiles
def test_the_backend_says_when_it_is_tracing(d2l):
    class Net(nn.Module):
        def forward(self, X):
            return X + d2l.backend.is_tracing()

    X = torch.zeros(2)
    assert torch.equal(Net()(X), X)
    for strict in (True, False):
        assert torch.equal(torch.export.export(Net(), (X,), strict=strict).module()(X), X + 1)


@compiles
@pytest.mark.parametrize("tracing", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("kind", KINDS)
def test_make_fx(d2l, kind, tracing):
    from torch.fx.experimental.proxy_tensor import make_fx

    X = torch.ones(200, 300)
    graph = make_fx(Half(d2l, kind, 0.3), tracing_mode=tracing)(X)
    check(graph(X), graph(X), p=0.3)


@compiles
def test_make_fx_of_a_gradient(d2l):
    from torch.fx.experimental.proxy_tensor import make_fx

    X = torch.ones(200, 300)
    graph = make_fx(torch.func.grad(lambda X: d2l.dropout_layer(X, 0.5).sum()))(X)
    check(graph(X), graph(X))


@compiles  # it compiles its own rules for derivatives
@pytest.mark.parametrize("kind", KINDS)
def test_grad_and_jvp(d2l, kind):
    net, X, V = Half(d2l, kind), torch.ones(100, 100), torch.full((100, 100), 3.0)
    dX, Y = torch.func.grad(lambda X: (lambda Y: (Y.sum(), Y))(net(X)), has_aux=True)(X)
    check(Y)
    assert torch.equal(dX, Y)
    Y, dY = torch.func.jvp(net, (X,), (V,))
    check(Y)
    assert torch.equal(dY, 3 * Y)
    Y, dX = torch.func.vjp(net, X)
    assert torch.equal(dX(torch.ones_like(X))[0], Y)
    X[0] = torch.inf
    Y, dY = torch.func.jvp(net, (X,), (V,))
    assert set(Y[0].tolist()) == {0, torch.inf}
    assert set(dY[0].tolist()) == {0, 6}


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(d2l, kind):
    def function(X):
        d2l.seed(0)
        return (net(X) ** 3).sum()

    net, X = Half(d2l, kind), torch.linspace(1, 2, 12)
    H = torch.func.jacrev(torch.func.grad(function))
    d2l.seed(0)
    factor = net(torch.ones(12))
    torch.testing.assert_close(H(X), torch.diag(6 * factor**3 * X))
    X.requires_grad_()
    (dX,) = torch.autograd.grad(function(X), X, create_graph=True)
    (ddX,) = torch.autograd.grad(dX.sum(), X)
    torch.testing.assert_close(ddX, 6 * factor**3 * X.detach())
    assert torch.autograd.gradcheck(function, X.double().detach().requires_grad_())


@pytest.mark.parametrize("kind", KINDS)
def test_vmap(d2l, kind):
    net, X = Half(d2l, kind), torch.ones(5, 2000)
    check(*torch.vmap(net, randomness="different")(X))
    same = torch.vmap(net, randomness="same")(X)
    check(same[0])
    assert torch.equal(same, same[:1].expand_as(same))
    outside = torch.ones(2000)  # not among what is mapped
    check(*torch.vmap(lambda _: net(outside), randomness="different")(torch.zeros(3)))
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(net)(X)


def test_gradients_per_sample(d2l):
    W, X = torch.ones(400), torch.eye(3, 400) + 1
    loss = lambda W, x: d2l.dropout_layer(W * x, 0.5).sum()  # noqa: E731
    gradients = torch.vmap(torch.func.grad(loss), in_dims=(None, 0), randomness="different")(W, X)
    check(*(gradients / X))


@pytest.mark.parametrize("name", MODELS)
def test_ensembles(d2l, small, name):
    """Several models as one: masks differ between models, and not with `randomness="same"`."""
    model, X = built(d2l, name, small), torch.rand(128, 64)
    weights, buffers = torch.func.stack_module_state([model, model])
    skeleton = copy.deepcopy(model).to("meta").train()

    def outputs(weights, buffers):
        return torch.func.functional_call(skeleton, (weights, buffers), (X,))

    first, second = torch.vmap(outputs, randomness="different")(weights, buffers)
    assert not torch.allclose(first, second)
    first, second = torch.vmap(outputs, randomness="same")(weights, buffers)
    torch.testing.assert_close(first, second)
    skeleton.eval()
    for Y in torch.vmap(outputs)(weights, buffers):
        torch.testing.assert_close(Y, model.eval()(X))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_recomputes_with_the_same_mask(d2l, kind, reentrant):
    net = Half(d2l, kind)
    outputs = []

    def block(X):
        outputs.append(net(X))
        return (outputs[-1] ** 2).sum()

    X = torch.ones(100, 100, requires_grad=True)
    torch.utils.checkpoint.checkpoint(block, X, use_reentrant=reentrant).backward()
    assert len(outputs) == 2
    assert torch.equal(*outputs)
    check(outputs[0])
    assert torch.equal(X.grad, 2 * outputs[0] ** 2)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(d2l, kind):
    net, layer = Half(d2l, kind), nn.Linear(64, 100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        H = layer(torch.ones(50, 64))
        Y = net(H)
        assert net(torch.ones(2, 3)).dtype == torch.float32
    assert Y.dtype == H.dtype == torch.bfloat16
    check(Y / H)
    Y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_device_and_dtype_do_not_matter(d2l, kind):
    X, net = torch.ones(100, 100), Half(d2l, kind)
    with torch.device("meta"):
        check(net(X), net(X))
        assert net(torch.ones(3, 4)).is_meta
        with sharing_masks(np.random.default_rng(0)):
            check(net(X))
        assert not d2l.backend.normal_like(X).is_meta
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert net(X).dtype == torch.float32
        assert net(torch.ones(3, dtype=torch.int64)).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("kind", KINDS)
def test_jagged_tensors(d2l, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        X = torch.nested.nested_tensor([torch.ones(30, 50), torch.ones(70, 50)], layout=torch.jagged)
        old = torch.nested.nested_tensor([torch.ones(2, 3)])
    net = Half(d2l, kind)
    X.requires_grad_()
    Y = net(X)
    assert Y.shape == X.shape  # rows of the same lengths
    (Y + X).values().sum().backward()
    check(Y.values())
    assert torch.equal(X.grad.values(), Y.values() + 1)
    turned = net(X.transpose(1, 2))
    assert turned.shape == X.transpose(1, 2).shape
    check(turned.values())
    assert not net.eval()(X).values().eq(0).any() or kind == "dropout_layer"
    with pytest.raises(d2ldrop.ArgumentError, match="Expected no axes for an array whose rows differ"):
        d2l.dropout_layer(X, 0.5, axes=(2,))
    with pytest.raises(d2ldrop.ArgumentTypeError, match="Expected X to be dense, or nested and jagged"):
        net.train()(old)


WORKER = """
import sys
import torch
from torch import distributed, nn
from d2ldrop import torch as d2l

rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
d2l.seed(0)
local = nn.Sequential(nn.Linear(20, 500), d2l.Dropout(0.5), nn.Linear(500, 5))
model, seen = nn.parallel.DistributedDataParallel(local), []
local[2].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach() != 0))
d2l.seed(rank)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(2):
    optimizer.zero_grad()
    (model(torch.ones(16, 20)) ** 2).mean().backward()
    optimizer.step()
torch.save({"kept": seen, "weights": local.state_dict()}, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def test_data_parallel_training_in_two_processes(d2l, tmp_path):
    """Each process drops on its own, and the weights stay the same in both."""
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(tmp_path)], env=env) for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, weight in found[0]["weights"].items():
        assert torch.equal(weight, found[1]["weights"][name])
    masks = [2.0 * kept for one in found for kept in one["kept"]]
    check(*masks)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_pickles(d2l, small, kind):
    if kind == "Dropout":
        layer = d2l.Dropout(0.3, inplace=True).eval()
        for made in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
            assert (type(made), made.p, made.inplace, made.training) == (d2l.Dropout, 0.3, True, False)
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        assert repr(torch.load(file, weights_only=False)) == "Dropout(p=0.3, inplace=True)"
        return
    model, X = built(d2l, "DropoutMLPScratch", small), torch.rand(32, 64)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert made.training
        zeros = hidden_zeros(made, X)
        assert not torch.equal(*zeros)
        torch.testing.assert_close(made.eval()(X), model.eval()(X))
        model.train()


@pytest.mark.parametrize("name", [*MODELS, "Dropout"])
def test_averaged_models(d2l, small, name):
    """SWA and EMA: a copy whose weights are means, without dropout in evaluation."""
    if name == "Dropout":
        model = nn.Sequential(nn.Linear(64, 300), d2l.Dropout(0.5), nn.Linear(300, 2))
    else:
        model = built(d2l, name, small)
    X = torch.rand(64, 64)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    mean = torch.optim.swa_utils.AveragedModel(model)
    smooth = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    kept = []
    for _ in range(3):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
        mean.update_parameters(model)
        smooth.update_parameters(model)
        kept.append([param.detach().clone() for param in model.parameters()])
    for averaged, first, *others in zip(mean.parameters(), *kept, strict=True):
        torch.testing.assert_close(averaged.detach(), sum(others, first) / 3)
    for made in (mean, smooth):
        assert not torch.equal(*hidden_zeros(made.train(), X))
        assert torch.equal(made.eval()(X), made(X))

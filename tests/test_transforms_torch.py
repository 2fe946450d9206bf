"""Dropout under what PyTorch does with functions and networks, and the layer to use in place of `nn.Dropout`."""

import copy
import importlib
import io
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

torch = pytest.importorskip("torch")
masks = importlib.import_module("d2ldrop.torch.masks")
nn = torch.nn
pytestmark = pytest.mark.only_torch

KINDS = ["dropout_layer", "Dropout"]
MODELS = ["DropoutMLPScratch", "DropoutMLP"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
# PyTorch's own code warns, when it compiles and exports, of what it will change.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
has_cpp = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))
compilers = ["eager", "aot_eager"]
compilers += [pytest.param("inductor", marks=pytest.mark.skipif(not has_cpp, reason="there is no C++ compiler here"))]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Half(nn.Module):
    """A network of nothing but dropout, of a kind."""

    def __init__(self, d2l, kind, p=0.5):
        super().__init__()
        self.drop = d2l.Dropout(p) if kind == "Dropout" else lambda X: d2ldrop.dropout_layer(X, p)

    def forward(self, X):
        return self.drop(X)


def check(*results, p=0.5, unit=1.0):
    """Check that tensors are 0 or unit / (1 - p), about as often as they should be, and differ from one another."""
    for Y in results:
        kept = Y[Y != 0]
        torch.testing.assert_close(kept, torch.full_like(kept, unit / (1 - p)), rtol=1e-2, atol=0)
        assert abs(len(kept) / Y.numel() - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / Y.numel())
    assert len({Y.detach().float().numpy().tobytes() for Y in results}) == len(results)


def with_gradient(function, X):
    """Return `function(X)`, and the gradient of its sum."""
    X = X.clone().requires_grad_()
    Y = function(X)
    Y.sum().backward()
    return Y.detach(), X.grad


def built(d2l, name, small, features=64):
    model = getattr(d2l, name)(**small)
    model.backend.build(model, (torch.zeros(2, features),), torch.device("cpu"), seed=0)
    return model.train()


def hidden_zeros(model, X):
    """Return which inputs of the last layer are 0 in each of two runs: what ReLU and dropout made of the second."""
    seen = []
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0] == 0))
    model(X), model(X)
    hook.remove()
    return seen


# Shared draws, and the draws of other noise


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [0.5, 0.25, 0.3])
def test_elements_along_axes_share_a_draw(d2l, p, dtype):
    X = torch.ones(40, 50, 3, 5, dtype=getattr(torch, dtype))
    for axes in ((2, 3), (-1, 2), [0], (1, 3)):
        Y, dX = with_gradient(lambda X, axes=axes: d2l.dropout_layer(X, p, axes=axes), X)
        shared = [k % 4 for k in axes]
        first = Y[tuple(slice(1) if k in shared else slice(None) for k in range(4))]
        assert torch.equal(Y, first.expand_as(Y))
        check(first, p=odds(p).threshold / 2 ** odds(p).bits)
        assert torch.equal(dX, Y)
    for wrong in (4, -5):
        with pytest.raises(d2ldrop.ArgumentError, match=f"Expected axes of an array of 4 axes. Received: {wrong}"):
            d2l.dropout_layer(X, p, axes=(wrong,))


def test_a_dropped_inf_is_zero_along_axes_too(d2l):
    Y = d2l.dropout_layer(torch.full((100, 4), torch.inf), 0.5, axes=(1,))
    assert set(Y.unique().tolist()) == {0, torch.inf}


def test_no_axes_draw_the_bits_they_always_did(d2l):
    """Both ways to draw words, that of eager code and that of transforms, take the same bits from a seed."""
    X = torch.ones(1000, 77)
    for p in (0.5, 0.25, 0.3):
        drawn = odds(p)
        torch.manual_seed(3)
        words = torch.empty(-(-X.numel() * drawn.bits // 64), dtype=torch.int64).random_(-(2**63), None)
        eager_state = torch.get_rng_state()
        expected = masks.mask_from_words(words, drawn)[: X.numel()].view(X.shape) != 0
        torch.manual_seed(3)
        assert torch.equal(d2l.dropout_layer(X, p) != 0, expected)
        torch.manual_seed(3)
        gradient = torch.func.grad(lambda X, p=p: d2l.dropout_layer(X, p).sum())(X)
        assert torch.equal(gradient != 0, expected)
        assert torch.equal(torch.get_rng_state(), eager_state)


def test_keep_masks_of_the_seam(d2l):
    X = torch.ones(200, 100)
    for p in (0.5, 0.25, 0.3):
        keep = d2l.backend.keep_mask(X, odds(p))
        assert keep.dtype == torch.bool
        check(keep.float() / (1 - p), d2l.backend.keep_mask(X, odds(p)).float() / (1 - p), p=p)
    assert d2l.backend.keep_mask(X, odds(0)).all()
    assert not d2l.backend.keep_mask(X, odds(1)).any()
    assert d2l.backend.keep_mask(X, odds(0.5), axes=(0,)).shape == (1, 100)


@pytest.mark.parametrize("dtype", FLOATS)
def test_normal_numbers_of_the_seam(d2l, dtype):
    X = torch.ones(300, 400, dtype=getattr(torch, dtype)).T
    drawn = [d2l.backend.normal_like(X) for _ in range(2)]
    for Z in drawn:
        assert (Z.dtype, Z.shape) == (X.dtype, X.shape)
        Z = Z.double()
        n = Z.numel()
        assert abs(Z.mean()) < 5 / math.sqrt(n) + 1e-4
        assert abs(Z.var() - 1) < 5 * math.sqrt(2 / n) + 1e-3
        assert abs((Z**4).mean() - 3) < 5 * math.sqrt(96 / n) + 1e-2
    assert not torch.equal(*drawn)
    kept = d2l.backend.where(X > 0, X, -1.5), d2l.backend.where(X < 0, X, -1.5)
    assert all(Y.dtype == X.dtype for Y in kept)
    assert [Y.unique().tolist() for Y in kept] == [[1], [-1.5]]


def test_seeds_and_shared_generators_decide_normal_numbers(d2l):
    X = torch.ones(5, 7)
    seeded = [(d2l.seed(seed), d2l.backend.normal_like(X))[1] for seed in (1, 1, 2)]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])
    before = d2l.backend.entropy
    d2l.seed(5)
    with d2l.backend.isolated():
        d2l.backend.normal_like(X)
    after = before()
    d2l.seed(5)
    assert before() == after
    with sharing_masks(np.random.Generator(np.random.Philox(1))):
        Z = d2l.backend.normal_like(X)
    expected = np.random.Generator(np.random.Philox(1)).standard_normal((5, 7), np.float32)
    np.testing.assert_array_equal(Z, expected)


# One error


@pytest.mark.parametrize("X", [np.ones(3), [1.0], 3, None, "X"], ids=lambda X: type(X).__name__)
def test_other_arrays_are_refused(d2l, X):
    for function in (lambda X: d2l.dropout_layer(X, 0.5), lambda X: d2l.Dropout()(X), d2l.backend.real_floats):
        with pytest.raises(d2ldrop.ArgumentTypeError, match=r"Expected X to be an array of torch\. Received: "):
            function(X)


def test_numbers_that_cannot_be_scaled_are_refused(d2l):
    kinds = [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
    for X in (torch.zeros(3).to(kind) for kind in kinds):
        for p in (0, 0.5, 1):
            with pytest.raises(d2ldrop.ArgumentTypeError, match="Expected X to hold real numbers of 16 to 64 bits"):
                d2l.dropout_layer(X, p)
    with pytest.raises(d2ldrop.ArgumentTypeError, match=r"Expected X to be dense, .* Received: torch\.sparse_coo"):
        d2l.dropout_layer(torch.eye(3).to_sparse(), 0.5)


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

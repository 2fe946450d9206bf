"""What the tests of dropout in PyTorch share."""

import importlib
import math
import os
import shutil

import pytest

import d2ldrop

torch = pytest.importorskip("torch")
masks = importlib.import_module("d2ldrop.torch.masks")
nn = torch.nn
KINDS = ["dropout_layer", "Dropout"]
MODELS = ["DropoutMLPScratch", "DropoutMLP"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
# PyTorch's own code warns, when it compiles and exports, of what it will change.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
has_cpp = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))
compilers = ["eager", "aot_eager"]
compilers += [pytest.param("inductor", marks=pytest.mark.skipif(not has_cpp, reason="there is no C++ compiler here"))]


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

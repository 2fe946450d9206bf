"""Baselines of the benchmark: the same training as users of PyTorch write it."""

from collections.abc import Callable
from copy import deepcopy
from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn

from d2ldrop.data import Split, as_floats
from d2ldrop.torch.backend import backend
from d2ldrop.torch.layers import replace_dropout
from d2ldrop.torch.lesson import dropout_layer


def plain_loop(train: Split, val: Split, batch_size: int, lr: float, dropout: float) -> Callable[[], float]:
    """Return a function that runs an epoch with validation: a loop over tensors in memory, with `nn.Dropout`."""
    device = backend.try_gpu()
    X, X_val = (torch.tensor(as_floats(split.X), device=device) for split in (train, val))
    y, y_val = torch.tensor(train.y, device=device), torch.tensor(val.y, device=device)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(X[0].numel(), 256), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(256, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)

    def epoch() -> float:
        net.train()
        for chosen in torch.randperm(len(y), device=device).split(batch_size):
            loss = nn.functional.cross_entropy(net(X[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in zip(X_val.split(batch_size), y_val.split(batch_size), strict=True):
                correct += (net(images).argmax(dim=1) == labels).sum().item()
        return correct / len(y_val)

    return epoch


def matrix_products(sizes: tuple[int, ...], batch_size: int, steps: int, validated: int) -> Callable[[], None]:
    """Return a function that multiplies the matrices of an epoch, and does nothing else."""
    device = backend.try_gpu()
    X, X_val = (torch.rand(count, sizes[0], device=device) for count in (batch_size, validated))
    Ws = [torch.rand(pair, device=device) for pair in pairwise(sizes)]

    @torch.no_grad()
    def epoch() -> None:
        for _ in range(steps):
            Hs = list(accumulate(Ws, torch.matmul, initial=X))
            dH = Hs.pop()
            for k, (H, W) in reversed(list(enumerate(zip(Hs, Ws, strict=True)))):
                H.T @ dH
                dH = dH @ W.T if k else dH
        for part in X_val.split(2000):
            reduce(torch.matmul, Ws, part)
        _wait(device)

    return epoch


def dropout_calls(
    shape: tuple[int, ...], p: float, dtype: str = "float32", turns: int = 1
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return, by name, what calls our layer, PyTorch's own, and a product with a ready mask; on a GPU a copy as well.

    Each forward, and forward and backward, `turns` times before it waits.
    """
    device = backend.try_gpu()
    X, dY = ones(shape, dtype, device).requires_grad_(), ones(shape, dtype, device)

    def calls(layer: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        def forward() -> None:
            for _ in range(turns):
                layer(X)
            _wait(device)

        def both() -> None:
            for _ in range(turns):
                torch.autograd.grad(layer(X), X, dY)
            _wait(device)

        return forward, both

    mask = dropout_layer(dY, p)
    measured = {
        "dropout_layer": calls(lambda X: dropout_layer(X, p)),
        "own": calls(nn.Dropout(p)),
        "product": calls(lambda X: X * mask),
    }
    if device.type == "cuda":
        measured["copy"] = calls(torch.clone)
    return measured


def encoder_steps(
    width: int = 128, heads: int = 4, hidden: int = 512, depth: int = 2, batch: int = 32, length: int = 64,
    dropout: float = 0.1, lr: float = 0.01, seed: int = 0,
) -> dict[str, Callable[[], float]]:  # fmt: skip
    """Return, by name, a training step of a transformer encoder with our dropout layers, and with PyTorch's own.

    Both start from the same weights, and learn the same random labels of the same random sequences. A step returns its
    loss. The dropout of attention weights is PyTorch's in both, as it is no layer.
    """
    device = backend.try_gpu()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True)
        net = nn.Sequential(nn.TransformerEncoder(layer, depth, enable_nested_tensor=False), nn.Linear(width, 10))
        X, y = torch.randn(batch, length, width).to(device), torch.randint(10, (batch * length,)).to(device)

    def step_of(net: nn.Module) -> Callable[[], float]:
        optimizer = torch.optim.SGD(net.to(device).train().parameters(), lr=lr)

        def step() -> float:
            loss = nn.functional.cross_entropy(net(X).flatten(end_dim=1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    return {"Dropout": step_of(replace_dropout(deepcopy(net))), "own": step_of(net)}


def ones(shape: tuple[int, ...], dtype: str, device: torch.device) -> torch.Tensor:
    """Return ones of a dtype on a device."""
    return torch.ones(shape, dtype=getattr(torch, dtype), device=device)


def about() -> dict[str, str]:
    """Return the name of the GPU, and the version of CUDA."""
    return {"card": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)} if torch.cuda.is_available() else {}


def device_memory() -> dict[str, float]:
    """Return how much of the GPU's memory is used now, and was at most, in megabytes."""
    sizes = {"used": torch.cuda.memory_allocated(), "peak": torch.cuda.max_memory_allocated()}
    return {name: size / 2**20 for name, size in sizes.items()}


def _wait(device: torch.device) -> None:
    """Wait for a GPU; a CPU is done when a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize()

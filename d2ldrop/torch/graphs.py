"""Training on a GPU: a step is recorded once as a CUDA graph, so that Python need not launch each of its kernels again.

Source: the notes on CUDA semantics in PyTorch's documentation, under CUDA Graphs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from d2ldrop.backend import Metrics
from d2ldrop.hyperparameters import is_overridden
from d2ldrop.randomness import shared_generator


class Replay:
    """A step for whole batches: a few by themselves, then one that is recorded, and from then on replayed.

    Parameters
    ----------
    made_for
        What the recording depends on; where this changes, another one is needed.
    step
        Takes indices of samples, int64 (N,), trains on these, and returns metrics.
    chosen
        Where a recorded step finds the indices, int64 (batch size,).
    """

    def __init__(self, made_for: Any, step: Callable[[Tensor], Metrics], chosen: Tensor):
        self.made_for, self.step, self.chosen = made_for, step, chosen
        self.warming_up = 3
        self.recorded: tuple[Callable[[], None], Metrics] | None = None

    def __call__(self, chosen: Tensor) -> Metrics:
        """Take the step, and return metrics that the next one leaves alone."""
        if len(chosen) < len(self.chosen):
            return self.step(chosen)
        if self.warming_up:
            self.warming_up -= 1
            with aside():
                return self.step(chosen)
        self.chosen.copy_(chosen)
        if self.recorded is None:
            self.recorded = record(lambda: self.step(self.chosen))
        replay, metrics = self.recorded
        replay()
        return {key: value.clone() for key, value in metrics.items()}


def can_be_replayed(model: Any, device: torch.device) -> bool:
    """Return True if a GPU can repeat a step of training without Python: there is no code of the reader's in it."""
    if device.type != "cuda" or shared_generator() is not None:
        return False
    methods = ("forward", "training_step", "loss", "accuracy", "configure_optimizers")
    ours = not any(is_overridden(model, name) for name in methods if hasattr(model, name))
    layers = list(model.modules())
    known = all(type(layer).__module__.startswith(("torch.nn.", "d2ldrop.")) for layer in layers[1:])
    hooked = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    return ours and known and not hooked


def dependencies(model: Any, optim: Any, data: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Return what becomes part of a recorded step: addresses of tensors, and numbers of layers and the optimiser."""
    tensors = (*data, *model.parameters(), *model.buffers())
    settings = [vars(layer) for layer in model.modules()] + list(optim.param_groups)
    numbers = [
        (key, tuple(value) if isinstance(value, list) else value)
        for group in settings
        for key, value in group.items()
        if _is_setting(value) and key != "training"  # a step turns this on by itself
    ]
    return *(tensor.data_ptr() for tensor in tensors), *numbers


def _is_setting(value: Any) -> bool:
    """Return True if a value is a number, or a tuple or list of numbers."""
    return all(isinstance(item, (int, float)) for item in (value if isinstance(value, (tuple, list)) else [value]))


def record(step: Callable[[], Metrics]) -> tuple[Callable[[], None], Metrics]:
    """Record a step without running it; return what replays it, and the tensors in which it will leave its metrics."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side_stream()):
        metrics = step()
    return graph.replay, metrics


@cache
def side_stream() -> torch.cuda.Stream:
    """Return the one stream for all recordings: cuBLAS keeps 65 MB of workspace for each stream that it was used in."""
    return torch.cuda.Stream()


@contextmanager
def aside() -> Iterator[None]:
    """Work in a stream of its own, as CUDA graphs require of the steps before a recording."""
    stream = side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)

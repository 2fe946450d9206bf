"""Training: how the one Trainer drives PyTorch, and the names of its weights in files."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from d2ldrop.backend import Metrics
from d2ldrop.module import recording
from d2ldrop.torch import Module, numpy
from d2ldrop.torch.replay import Replay, can_be_replayed, dependencies
from d2ldrop.weights import checked


@dataclass
class State:
    """What training carries from step to step; PyTorch changes it in place."""

    model: Module
    optim: Any
    replay: Replay | None = None


def build(model: Module, inputs: tuple[Tensor, ...], device: torch.device) -> bool:
    """Put the model on the device, and create lazy parameters; return whether there were any."""
    model.to(device)
    lazy = any(isinstance(param, UninitializedParameter) for param in model.parameters())
    if lazy:
        model.eval()
        with torch.no_grad():
            model(*inputs)
    return lazy


def init_state(model: Module, optim: Any, seed: int | None) -> State:
    """Pair the model with its optimiser, and start dropout's stream."""
    if seed is not None:
        torch.manual_seed(seed)
    return State(model, optim)


def train_step(state: State, batch: tuple[Tensor, ...], clip: float) -> tuple[State, Metrics]:
    """Take one step of the optimiser."""
    state.model.train()
    with recording() as metrics:
        loss = state.model.training_step(_inputs(batch))
    state.optim.zero_grad()
    loss.backward()
    if clip > 0:
        clip_gradients(clip, state.model)
    state.optim.step()
    return state, {key: value.detach() for key, value in metrics.items()}


def train_epoch(
    state: State, data: tuple[Tensor, ...], order: np.ndarray, batch_size: int, clip: float
) -> tuple[State, Metrics]:
    """Take a step for each `batch_size` entries of `order`; return a vector of each metric, still on the device."""
    device = data[0].device

    def step(chosen: Tensor) -> Metrics:
        return train_step(state, tuple(samples.index_select(0, chosen) for samples in data), clip)[1]

    if can_be_replayed(state.model, device):
        made_for = (*dependencies(state.model, state.optim, data), batch_size, clip)
        if state.replay is None or state.replay.made_for != made_for:
            state.replay = Replay(made_for, step, torch.zeros(batch_size, dtype=torch.int64, device=device))
        step = state.replay
    steps = [step(chosen) for chosen in torch.from_numpy(order).to(device).split(batch_size)]
    return state, {key: torch.stack([metrics[key] for metrics in steps]) for key in steps[0]}


@torch.no_grad()
def eval_step(state: State, batch: tuple[Tensor, ...]) -> Metrics:
    """Return the metrics of one batch, without dropout and gradients."""
    state.model.eval()
    with recording() as metrics:
        state.model.validation_step(_inputs(batch))
    return metrics


@torch.no_grad()
def predict(model: Module, X: Tensor) -> Tensor:
    """Return the outputs of the model, without dropout and gradients."""
    model.eval()
    return model(*_inputs((X, X))[:-1])


def clip_gradients(grad_clip_val: float, model: nn.Module) -> nn.Module:
    """Scale the gradients in place, so that their common norm is at most `grad_clip_val`."""
    grads = [param.grad for param in model.parameters() if param.grad is not None]
    shrink = (grad_clip_val / torch.nn.utils.get_total_norm(grads)).clamp(max=1)
    torch._foreach_mul_(grads, shrink)
    return model


def _inputs(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Turn stored pixels, uint8, into float32 in [0, 1]."""
    return (*(X.float().div_(255) if X.dtype == torch.uint8 else X for X in batch[:-1]), batch[-1])


# Weights: their names and layouts in files


def get_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters, the fully connected layers' as lin1.weight (outputs, inputs), lin1.bias, ..."""
    return {name: numpy(value).copy() for name, value in _named(model)}


def set_weights(model: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Assign all parameters in place."""
    own = dict(_named(model))
    with torch.no_grad():
        for name, value in checked(weights, {name: tuple(value.shape) for name, value in own.items()}).items():
            own[name].copy_(torch.tensor(value))


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers under their names in files."""
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    renamed = {name: f"lin{k}" for k, name in enumerate(linear, start=1)}
    for name, value in model.state_dict().items():
        layer, _, kind = name.rpartition(".")
        yield f"{renamed.get(layer, layer)}.{kind}".lstrip("."), value

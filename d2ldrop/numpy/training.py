"""Training: how the one Trainer drives NumPy, and the names of its weights in files."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from d2ldrop import data as _data
from d2ldrop.backend import Metrics
from d2ldrop.module import recording
from d2ldrop.numpy import Module
from d2ldrop.numpy import seed as start_afresh
from d2ldrop.weights import checked


@dataclass
class State:
    """What training carries from step to step; it is changed in place."""

    model: Module
    optim: Any


def build(model: Module, inputs: tuple[np.ndarray, ...], device: str) -> bool:
    """Create the parameters; return whether there were any to create."""
    new = any(layer.W is None for layer in model.parameters())
    if new:
        model.train(False)
        model(*inputs)
    return new


def init_state(model: Module, optim: Any, seed: int | None) -> State:
    """Pair the model with its optimiser, and start dropout's stream."""
    if seed is not None:
        start_afresh(seed)
    return State(model, optim)


def train_step(state: State, batch: tuple[np.ndarray, ...], clip: float) -> tuple[State, Metrics]:
    """Take one step of the optimiser."""
    state.model.train()
    with recording() as metrics:
        state.model.training_step(_inputs(batch))
    state.model.backward(state.model.dloss)
    if clip > 0:
        clip_gradients(clip, state.model)
    state.optim.step()
    return state, metrics


def train_epoch(
    state: State, data: tuple[np.ndarray, ...], order: np.ndarray, batch_size: int, clip: float
) -> tuple[State, Metrics]:
    """Take a step for each `batch_size` entries of `order`; return a vector of each metric."""
    steps = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        state, metrics = train_step(state, tuple(samples[chosen] for samples in data), clip)
        steps.append(metrics)
    return state, {key: np.array([metrics[key] for metrics in steps]) for key in steps[0]}


def eval_step(state: State, batch: tuple[np.ndarray, ...]) -> Metrics:
    """Return the metrics of one batch, without dropout."""
    state.model.train(False)
    with recording() as metrics:
        state.model.validation_step(_inputs(batch))
    return metrics


def predict(model: Module, X: np.ndarray) -> np.ndarray:
    """Return the outputs of the model, without dropout."""
    model.train(False)
    return model(*_inputs((X, X))[:-1])


def clip_gradients(grad_clip_val: float, model: Module) -> Module:
    """Scale the gradients, so that their common norm is at most `grad_clip_val`."""
    norm = np.sqrt(sum(np.vdot(grad, grad) for layer in model.parameters() for grad in (layer.dW, layer.db)))
    if norm > grad_clip_val:
        for layer in model.parameters():
            layer.dW *= grad_clip_val / norm
            layer.db *= grad_clip_val / norm
    return model


def _inputs(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Turn stored pixels, uint8, into float32 in [0, 1]."""
    return (*map(_data.as_floats, batch[:-1]), batch[-1])


# Weights: their names and layouts in files


def get_weights(model: Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters, as lin1.weight (outputs, inputs), lin1.bias (outputs,), lin2.weight, ..."""
    weights: dict[str, np.ndarray] = {}
    for k, layer in enumerate(model.parameters(), start=1):
        weights |= {f"lin{k}.weight": layer.W.T.copy(), f"lin{k}.bias": layer.b.copy()}
    return weights


def set_weights(model: Module, weights: dict[str, np.ndarray]) -> None:
    """Assign all parameters."""
    own = get_weights(model)
    weights = checked(weights, {name: value.shape for name, value in own.items()})
    for k, layer in enumerate(model.parameters(), start=1):
        layer.W[...] = weights[f"lin{k}.weight"].T
        layer.b[...] = weights[f"lin{k}.bias"]

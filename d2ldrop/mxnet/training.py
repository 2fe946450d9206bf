"""Training: how the one Trainer drives MXNet, and the names of its weights in files."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as onp  # noqa: ICN001 - here, as in the book, `np` is MXNet's
from mxnet import autograd, np, npx
from mxnet.gluon import nn

from d2ldrop.backend import Metrics
from d2ldrop.module import recording
from d2ldrop.mxnet import Module, array, numpy
from d2ldrop.mxnet import seed as start_afresh
from d2ldrop.weights import checked


@dataclass
class State:
    """What training carries from step to step; MXNet changes it in place."""

    model: Module
    optim: Any


def build(model: Module, inputs: tuple[np.ndarray, ...], device: mx.Context) -> bool:
    """Put the model on the device, and create deferred parameters; return whether there were any."""
    npx.set_np()  # the thread may be another one than at import
    params = list(model.collect_params().values())
    new = any(param._data is None for param in params)
    for param in params:
        if param._data is None and not param._deferred_init:  # nobody called `initialize`
            param.initialize(ctx=device)
        elif param.list_ctx() != [device]:
            param.reset_ctx(device)
    if new:
        with autograd.pause():
            model(*inputs)
    return new


def init_state(model: Module, optim: Any, seed: int | None) -> State:
    """Pair the model with its optimiser, and start dropout's stream."""
    if seed is not None:
        start_afresh(seed)
    return State(model, optim)


def train_step(state: State, batch: tuple[np.ndarray, ...], clip: float) -> tuple[State, Metrics]:
    """Take one step of the optimiser."""
    batch = _inputs(batch)
    with autograd.record(), recording() as metrics:  # recording gradients is also what turns dropout on
        loss = state.model.training_step(batch)
    loss.backward()
    if clip > 0:
        clip_gradients(clip, state.model)
    state.optim.step(1)  # a gluon Trainer divides gradients by this, but the loss is a mean already
    return state, {key: value.detach() for key, value in metrics.items()}


def train_epoch(
    state: State, data: tuple[np.ndarray, ...], order: onp.ndarray, batch_size: int, clip: float
) -> tuple[State, Metrics]:
    """Take a step for each `batch_size` entries of `order`; return a vector of each metric, still on the device.

    Python runs ahead: it only queues the work, which MXNet's engine does in other threads.
    """
    steps, indices = [], array(order, data[0].ctx)
    for start in range(0, len(order), batch_size):
        chosen = indices[start : start + batch_size]
        batch = tuple(np.take(samples, chosen, axis=0, mode="clip") for samples in data)
        state, metrics = train_step(state, batch, clip)
        steps.append(metrics)
    return state, {key: np.stack([metrics[key] for metrics in steps]) for key in steps[0]}


def eval_step(state: State, batch: tuple[np.ndarray, ...]) -> Metrics:
    """Return the metrics of one batch, without dropout and gradients."""
    with autograd.pause(train_mode=False), recording() as metrics:
        state.model.validation_step(_inputs(batch))
    return metrics


def predict(model: Module, X: np.ndarray) -> np.ndarray:
    """Return the outputs of the model, without dropout and gradients."""
    with autograd.pause(train_mode=False):
        return model(*_inputs((X, X))[:-1])


def clip_gradients(grad_clip_val: float, model: nn.Block) -> nn.Block:
    """Scale the gradients in place, so that their common norm is at most `grad_clip_val`."""
    grads = [param.grad() for param in model.collect_params().values() if param.grad_req != "null"]
    shrink = np.minimum(grad_clip_val / np.sqrt(sum((grad**2).sum() for grad in grads)), 1)
    for grad in grads:
        grad *= shrink
    return model


def _inputs(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Turn stored pixels, uint8, into float32 in [0, 1]."""
    return (*(X.astype("float32") / 255 if X.dtype == onp.uint8 else X for X in batch[:-1]), batch[-1])


# Weights: their names and layouts in files


def get_weights(model: Module) -> dict[str, onp.ndarray]:
    """Return copies of all parameters, the fully connected layers' as lin1.weight (outputs, inputs), lin1.bias, ..."""
    return {name: numpy(value) for name, value in _named(model)}


def set_weights(model: Module, weights: dict[str, onp.ndarray]) -> None:
    """Assign all parameters in place."""
    own = dict(_named(model))
    for name, value in checked(weights, {name: value.shape for name, value in own.items()}).items():
        own[name][:] = array(value, own[name].ctx).astype(own[name].dtype)


def _named(model: nn.Block) -> Iterator[tuple[str, np.ndarray]]:
    """Yield parameters under their names in files: other than for dense layers, those that `save_parameters` writes."""
    dense: list[nn.Block] = []
    model.apply(lambda layer: dense.append(layer) if isinstance(layer, nn.Dense) else None)
    renamed = {
        param: f"lin{k}.{kind}" for k, layer in enumerate(dense, start=1) for kind, param in layer._reg_params.items()
    }
    for name, param in model._collect_params_with_prefix().items():
        yield renamed.get(param, name), param.data()

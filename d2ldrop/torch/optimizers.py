"""PyTorch's optimisers: by the names that a model may give, with schedules, and what they keep from step to step."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from d2ldrop.errors import UsageError
from d2ldrop.optimizers_by_hand import kept
from d2ldrop.torch.arrays import is_array, numpy
from d2ldrop.training.optimizers import chosen


def optimizer_for(model: nn.Module) -> Optimizer:
    """Return the optimiser of PyTorch that a model asks for, see `d2ldrop.training.optimizers.chosen`."""
    name, lr, decay, momentum = chosen(model)
    params = list(model.parameters())
    if name == "sgd":
        return torch.optim.SGD(params, lr, momentum=momentum, weight_decay=decay, fused=True)
    on_gpu = any(param.is_cuda for param in params)  # a step that is recorded there counts steps there
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(params, lr, weight_decay=decay, fused=True, capturable=on_gpu)


def configured(model: Any) -> tuple[Any, list[Any]]:
    """Return the optimiser of a model, and the schedules of its learning rate.

    `configure_optimizers` may return an optimiser, or a list that holds one and a list of schedules.

    Raises
    ------
    UsageError
        If it returns something else.
    """
    given = model.configure_optimizers()
    found = given if isinstance(given, (tuple, list)) else ([given], [])
    optimizers, schedulers = found if len(found) == 2 else (found, [])
    lists = isinstance(optimizers, (tuple, list)) and isinstance(schedulers, (tuple, list))
    if not (
        lists
        and len(optimizers) == 1
        and all(hasattr(optim, "step") and hasattr(optim, "zero_grad") for optim in optimizers)
        and all(hasattr(scheduler, "step") for scheduler in schedulers)
    ):
        raise UsageError(
            "Expected configure_optimizers() to return an optimiser, or [optimizer], [scheduler]. "
            f"Received: {_kind(given)}"
        )
    return optimizers[0], list(schedulers)


def _kind(part: Any) -> str:
    """Return what something is, and what is in it if it is a list."""
    inside = isinstance(part, (tuple, list))
    return f"[{', '.join(map(_kind, part))}]" if inside else type(part).__name__


def advance(scheduler: Any, metrics: Mapping[str, float]) -> None:
    """Take the step of a schedule that follows an epoch, of which `metrics` are the means."""
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(metrics.get("val_loss", metrics.get("train_loss", 0.0)))
    else:
        scheduler.step()


# What they keep, as arrays


def state_of(optim: Optimizer) -> dict[str, np.ndarray]:
    """Return copies of the tensors that an optimiser keeps, and of the numbers in its groups."""
    saved = optim.state_dict()
    found = {
        f"{k}.{name}": np.array(numpy(value) if isinstance(value, Tensor) else value)
        for k, slots in saved["state"].items()
        for name, value in (_flat(slots) if isinstance(optim, LBFGS) else slots.items())
        if value is not None
    }
    return found | {key: np.array(group[own]) for key, group, own in _numbers(saved)}


def set_state(optim: Optimizer, arrays: Mapping[str, np.ndarray]) -> None:
    """Set what `state_of` returned."""
    saved = optim.state_dict()
    for key, group, own in _numbers(saved):
        group[own] = type(group[own])(arrays[key])
    saved["state"] = {}
    for key, value in arrays.items():
        k, _, name = key.partition(".")
        if k.isdecimal():
            saved["state"].setdefault(int(k), {})[name] = torch.tensor(value)
    if isinstance(optim, LBFGS):
        saved["state"] = {k: _nested(slots) for k, slots in saved["state"].items()}
    optim.load_state_dict(saved)


def state_of_schedule(scheduler: Any) -> dict[str, np.ndarray]:
    """Return copies of the numbers that a schedule keeps."""
    return {name: np.array(value) for name, _, _, value in kept(scheduler.state_dict(), is_array)}


def set_schedule(scheduler: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Set what `state_of_schedule` returned."""
    saved = scheduler.state_dict()
    for name, owner, key, value in kept(saved, is_array):
        owner[key] = type(value)(arrays[name])
    scheduler.load_state_dict(saved)


def _numbers(saved: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a name for each number of an optimiser's groups of parameters, such as the learning rate."""
    for k, group in enumerate(saved["param_groups"]):
        for own, value in group.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield f"group{k}.{own}", group, own


_LISTS = ("old_dirs", "old_stps", "ro")  # of LBFGS: the steps that it remembers


def _flat(slots: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what LBFGS keeps, the entries of lists by their numbers; `al` is computed anew in each step."""
    for name, value in slots.items():
        if name in _LISTS:
            yield from ((f"{name}.{i}", item) for i, item in enumerate(value))
        elif name != "al":
            yield name, value


def _nested(slots: Mapping[str, Any]) -> dict[str, Any]:
    """Return what LBFGS keeps, from what `_flat` yielded."""
    found: dict[str, Any] = {name: [] for name in _LISTS}
    for name, value in slots.items():
        own, _, i = name.partition(".")
        if i:
            found[own].append((int(i), value))
        else:
            found[own] = value
    return found | {name: [value for _, value in sorted(found[name], key=lambda pair: pair[0])] for name in _LISTS}

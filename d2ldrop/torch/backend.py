"""How shared code drives PyTorch: arrays, training, weights, and the function edition."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from d2ldrop.backend import Backend, Draw, Metrics, Numbers, Parameter, by_name
from d2ldrop.registry import claim
from d2ldrop.torch import arrays, lesson, masks, optimizers
from d2ldrop.torch.graphs import Replay, can_be_replayed, dependencies
from d2ldrop.torch.lesson import Module
from d2ldrop.torch.plain import WithPlainTensors
from d2ldrop.training.module import recorded


@dataclass
class State:
    """What training carries from step to step; PyTorch changes it in place."""

    model: Module
    optim: Any
    schedulers: list[Any] = field(default_factory=list)
    replay: Replay | None = None


class TorchBackend(Backend[Module, Tensor, torch.device]):
    """PyTorch: eager, on the CPU and on GPUs."""

    name = "torch"
    models = by_name(lesson.DropoutMLPScratch, lesson.DropoutMLP, lesson.DropoutMLPRegressor, lesson.SoftmaxRegression)

    cpu, gpu, num_gpus = staticmethod(arrays.cpu), staticmethod(arrays.gpu), staticmethod(arrays.num_gpus)
    is_array, array, numpy = staticmethod(arrays.is_array), staticmethod(arrays.array), staticmethod(arrays.numpy)
    seed, dropout_layer = staticmethod(arrays.seed), staticmethod(lesson.dropout_layer)
    entropy, is_tracing = staticmethod(arrays.entropy), staticmethod(torch.compiler.is_compiling)
    real_floats, keep_mask = staticmethod(masks.real_floats), staticmethod(masks.keep_mask)
    normal_like, where = staticmethod(masks.normal_like), staticmethod(masks.where)
    entries = staticmethod(arrays.entries)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Put PyTorch's generators back after the block, inside which that of the CPU goes on from another seed."""
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(gpus):
            torch.default_generator.manual_seed(arrays.entropy())
            yield

    def place(self, values: Iterable[Any], device: torch.device) -> tuple[Tensor, ...]:
        """Copy several arrays to the device."""
        return tuple(arrays.array(X, device) for X in values)

    # Models

    def build(
        self, model: Module, inputs: Sequence[Any], device: torch.device, seed: Any = None, draw: Draw | None = None
    ) -> bool:
        """Put the model on the device, and create lazy parameters."""
        if seed is not None:
            torch.manual_seed(seed)
        model.to(device)
        new = not self.is_built(model)
        if new:
            model.eval()
            with torch.no_grad():
                model(*map(_floats, self.place(inputs, device)))
        if new and draw is not None:
            self.assign(model, draw({name: tuple(param.value.shape) for name, param in self.parameters(model).items()}))
        return new

    def is_built(self, model: Module) -> bool:
        """Return True if the model has its parameters."""
        return not any(isinstance(param, UninitializedParameter) for param in model.parameters())

    def parameters(self, model: nn.Module) -> dict[str, Parameter]:
        """Return parameters and buffers under PyTorch's names, but lin1, lin2, ... for the fully connected layers."""
        linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        renamed = {name: f"lin{k}" for k, name in enumerate(linear, start=1)}
        found = {}
        for name, value in model.state_dict().items():
            layer, _, kind = name.rpartition(".")
            found[f"{renamed.get(layer, layer)}.{kind}".lstrip(".")] = Parameter(value)
        if isinstance(model, WithPlainTensors):
            for name, tensor in model.plain_tensors().items():
                while name in found:  # a layer that is called lin1 here may have another name in the model
                    name += "_"
                found[name] = Parameter(tensor)
        return found

    def assign(self, model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
        """Set parameters in place."""
        with torch.no_grad():
            for name, param in self.parameters(model).items():
                param.value.copy_(torch.tensor(weights[name]))

    @torch.no_grad()
    def predict(self, model: Module, X: Tensor) -> Tensor:
        """Return the outputs of the model, without dropout and gradients."""
        model.eval()
        Y: Tensor = model(_floats(X))
        return Y

    def affine(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Return the parameters of a layer, the weights transposed."""
        return layer.weight.T, layer.bias

    @torch.no_grad()
    def sample(self, model: Module, X: Tensor) -> Tensor:
        """Return the outputs of the model with dropout on, without gradients.

        Modules inside it with buffers of their own, such as batch normalisation, are as in evaluation.
        """
        modes = [(module, module.training) for module in model.modules()]
        for module, _ in modes:
            module.training = module is model or not any(True for _ in module.buffers(recurse=False))
        try:
            Y: Tensor = model(_floats(X))
            return Y
        finally:
            for module, mode in modes:
                module.training = mode

    def linear_layers(self, model: Module) -> list[nn.Linear]:
        """Return the layers of the class `nn.Linear`."""
        return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]

    # Training

    def init_state(self, model: Module, seed: int | None) -> State:
        """Make the optimiser, and seed the dropout masks."""
        if seed is not None:
            torch.manual_seed(seed)
        return State(model, *optimizers.configured(model))

    def optimizer_state(self, state: State) -> dict[str, np.ndarray]:
        """Return copies of the tensors that an optimiser of PyTorch keeps, of its numbers, and of its schedules'."""
        by_torch = isinstance(state.optim, torch.optim.Optimizer)
        found = optimizers.state_of(state.optim) if by_torch else super().optimizer_state(state)
        for k, scheduler in enumerate(state.schedulers):
            numbers = optimizers.state_of_schedule(scheduler)
            found |= {f"scheduler{k}.{name}": value for name, value in numbers.items()}
        return found

    def set_optimizer_state(self, state: State, arrays: Mapping[str, np.ndarray]) -> State:
        """Set what `optimizer_state` returned."""
        for k, scheduler in enumerate(state.schedulers):
            start = f"scheduler{k}."
            own = {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
            optimizers.set_schedule(scheduler, own)
        if isinstance(state.optim, torch.optim.Optimizer):
            optimizers.set_state(state.optim, arrays)
            return state
        by_hand: State = super().set_optimizer_state(state, arrays)
        return by_hand

    def set_lr(self, state: State, lr: float) -> State:
        """Set the learning rate of all groups of parameters."""
        if not isinstance(state.optim, torch.optim.Optimizer):
            by_hand: State = super().set_lr(state, lr)
            return by_hand
        for group in state.optim.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        return state

    def train_step(self, state: State, batch: tuple[Tensor, ...], clip: float) -> tuple[State, Metrics]:
        """Take one step of the optimiser."""
        state.model.train()
        first: Metrics = {}

        def closure() -> Tensor:
            loss: Tensor
            loss, metrics = recorded(state.model.training_step, _inputs(batch))
            first.update({key: value.detach() for key, value in metrics.items() if key not in first})
            state.optim.zero_grad()
            loss.backward()
            if clip > 0:
                self.clip_gradients(clip, state.model)
            return loss

        if isinstance(state.optim, torch.optim.LBFGS):  # it looks at the loss several times
            state.optim.step(closure)
        else:
            closure()
            state.optim.step()
        return state, first

    def finish_epoch(self, model: Module, state: State) -> None:
        """Take the step of the schedules."""
        trainer: Any = model.trainer
        for scheduler in state.schedulers:
            optimizers.advance(scheduler, trainer.epoch_log.means())

    def train_epoch(
        self, state: State, data: tuple[Tensor, ...], order: np.ndarray, batch_size: int, clip: float
    ) -> tuple[State, Numbers]:
        """Take a step for each `batch_size` entries of `order`; on a GPU, record and replay steps if possible."""
        device = data[0].device

        def step(chosen: Tensor) -> Metrics:
            return self.train_step(state, tuple(samples.index_select(0, chosen) for samples in data), clip)[1]

        if isinstance(state.optim, torch.optim.Optimizer) and can_be_replayed(state.model, device):
            made_for = (*dependencies(state.model, state.optim, data), batch_size, clip)
            if state.replay is None or state.replay.made_for != made_for:
                state.replay = Replay(made_for, step, torch.zeros(batch_size, dtype=torch.int64, device=device))
            step = state.replay
        return state, _fetched([step(chosen) for chosen in torch.from_numpy(order).to(device).split(batch_size)])

    @torch.no_grad()
    def eval_step(self, model: Module, batch: tuple[Tensor, ...]) -> Metrics:
        """Return the metrics of one batch, without dropout and gradients."""
        model.eval()
        return recorded(model.validation_step, _inputs(batch))[1]

    def eval_epoch(self, model: Module, data: tuple[Tensor, ...], batch_size: int) -> Numbers:
        """Return the metrics of each `batch_size` samples, without dropout and gradients."""
        batches = zip(*(samples.split(batch_size) for samples in data), strict=True)
        return _fetched([self.eval_step(model, batch) for batch in batches])

    def clip_gradients(self, grad_clip_val: float, model: nn.Module) -> nn.Module:
        """Scale the gradients in place, so that their common norm is at most `grad_clip_val`."""
        grads = [param.grad for param in model.parameters() if param.grad is not None]
        shrink = (grad_clip_val / torch.nn.utils.get_total_norm(grads)).clamp(max=1)
        torch._foreach_mul_(grads, shrink)
        return model

    # The function edition

    def device_of_net(self, net: Any) -> torch.device | None:
        """Return the device of a module's first parameter."""
        return next((param.device for param in net.parameters()), None) if isinstance(net, nn.Module) else None

    @torch.no_grad()
    def outputs(self, net: Any, X: Tensor) -> Tensor:
        """Return the outputs of a model or function for a batch, without dropout and gradients."""
        if isinstance(net, nn.Module):
            net.eval()
        Y: Tensor = net(X)
        return Y

    def learn(self, net: Any, X: Tensor, y: Tensor, loss: Any, updater: Any) -> tuple[Tensor, Tensor]:
        """Take a step; return the sum of the losses, and the outputs, under dropout."""
        if isinstance(net, nn.Module):
            net.train()
        y_hat = net(X)
        total = self.total_loss(loss, y_hat, y)
        if isinstance(updater, torch.optim.Optimizer):
            updater.zero_grad()
            (total / len(y)).backward()
            updater.step()
        else:  # divides by the batch size itself
            total.backward()
            updater(len(y))
        return total.detach(), y_hat.detach()

    def num_correct(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Return how many of the predictions are right, on the device."""
        return ((y_hat.argmax(dim=1) if y_hat.ndim > 1 else y_hat) == y).sum()


def _floats(X: Tensor) -> Tensor:
    """Return pixels, uint8, as float32 in [0, 1], and other tensors as they are."""
    return X.float().div_(255) if X.dtype == torch.uint8 else X


def _inputs(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a batch as the model takes it: pixels as floats, labels as they are."""
    return (*map(_floats, batch[:-1]), batch[-1])


def _fetched(steps: list[Metrics]) -> Numbers:
    """Return the metrics of several steps as lists of numbers: the host waits for the device once per metric."""
    return {key: torch.stack([metrics[key] for metrics in steps]).tolist() for key in steps[0]}


backend = TorchBackend()
claim(backend, Tensor, nn.Parameter)

"""How MXNet does what shared code asks of a framework: models, steps and epochs, and the names of its weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import mxnet as mx
import numpy as onp  # noqa: ICN001 - as in the book, `np` is MXNet's
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn

from d2ldrop.backend import Backend, Draw, Metrics, Numbers, Parameter, by_name
from d2ldrop.errors import UsageError
from d2ldrop.mxnet import arrays, lesson, masks
from d2ldrop.mxnet.functional import grad_clipping
from d2ldrop.mxnet.layers import not_hybridized
from d2ldrop.mxnet.lesson import Module
from d2ldrop.mxnet.plain import dense_layers, named_parameters, set_scratch_params_device
from d2ldrop.optimizers_by_hand import no_rate
from d2ldrop.overlays import overlaid
from d2ldrop.training.module import recorded


@dataclass
class State:
    """What training carries from step to step; MXNet changes it in place."""

    model: Module
    optim: Any


class MXNetBackend(Backend[Module, np.ndarray, mx.Context]):
    """MXNet, in its NumPy-like dialect, on the CPU and on GPUs."""

    name = "mxnet"
    models = by_name(lesson.DropoutMLPScratch, lesson.DropoutMLP, lesson.DropoutMLPRegressor, lesson.SoftmaxRegression)
    label_dtype = onp.int32
    stores_bytes = False  # converting each batch from bytes would take MXNet a tenth of a step

    cpu, gpu, num_gpus = staticmethod(arrays.cpu), staticmethod(arrays.gpu), staticmethod(arrays.num_gpus)
    is_array, array, numpy = staticmethod(arrays.is_array), staticmethod(arrays.array), staticmethod(arrays.numpy)
    seed, dropout_layer = staticmethod(arrays.seed), staticmethod(lesson.dropout_layer)
    entropy, real_floats = staticmethod(arrays.entropy), staticmethod(masks.real_floats)
    keep_mask, normal_like = staticmethod(masks.keep_mask), staticmethod(masks.normal_like)
    where, entries = staticmethod(masks.where), staticmethod(arrays.entries)

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Leave the generator of the masks on a CPU alone, and MXNet's own, which can only be seeded.

        So inside another such block it is not seeded at all.
        """
        own = arrays.own_unseeded() if arrays.host_generator.is_isolated else super().isolated()
        with arrays.host_generator.isolated(), own:
            yield

    def place(self, values: Iterable[Any], device: mx.Context) -> tuple[np.ndarray, ...]:
        """Copy several arrays to the device."""
        return tuple(arrays.array(X, device) for X in values)

    # Models

    def build(
        self, model: Module, inputs: Sequence[Any], device: mx.Context, seed: Any = None, draw: Draw | None = None
    ) -> bool:
        """Put the model on the device, and create deferred parameters; return True if there were any."""
        npx.set_np()  # it holds for a thread, and this may be another one than at import
        if seed is not None:
            arrays.seed(seed)
        set_scratch_params_device(model, device)
        params = dict.fromkeys(named_parameters(model).values())  # one that layers share is there once
        new = not self.is_built(model)
        for param in params:
            if param._data is None and not param._deferred_init:  # `initialize` was not called
                param.initialize(ctx=device)
            elif param.list_ctx() != [device]:
                param.reset_ctx(device)
        if new:
            with autograd.pause():
                model(*map(_as_floats, self.place(inputs, device)))
            if draw is not None:
                self.assign(model, draw({name: value.shape for name, (value, _) in self.parameters(model).items()}))
        return new

    def is_built(self, model: Module) -> bool:
        """Return True if the model has its parameters."""
        return all(param._data is not None for param in named_parameters(model).values())

    def parameters(self, model: nn.Block) -> dict[str, Parameter]:
        """Return all parameters by their names in files, see `named_parameters`."""
        return {name: Parameter(param.data()) for name, param in named_parameters(model).items()}

    def assign(self, model: Module, weights: Mapping[str, onp.ndarray]) -> None:
        """Set parameters in place."""
        parameters = self.parameters(model)
        for name, value in weights.items():
            own = parameters[name].value
            own[:] = arrays.array(value, own.ctx).astype(own.dtype)

    def predict(self, model: Module, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the model, without dropout and gradients."""
        return self.outputs(model, _as_floats(X))

    def affine(self, layer: nn.Dense) -> tuple[np.ndarray, np.ndarray]:
        """Return the parameters of a layer, the weights transposed."""
        return layer.weight.data().T, layer.bias.data()

    def is_training(self, model: Module) -> bool:
        """Return True inside `autograd.record()`, and where else MXNet is told that it trains."""
        return bool(autograd.is_training())

    def sample(self, model: Module, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the model with dropout on, without gradients.

        Masks of gluon's layers, too, are those of `dropout_layer`: MXNet's own generator could not be put back.
        """
        with _sampling(model), autograd.pause(train_mode=True):
            return model(_as_floats(X))

    def device_of(self, model: Module) -> mx.Context:
        """Return the device of the first parameter."""
        return next((value.ctx for value, _ in self.parameters(model).values()), self.cpu())

    def sublayers(self, net: nn.Block) -> Iterable[nn.Block]:
        """Return the layers of a sequential network, in order, or the one layer that the network is."""
        return net if isinstance(net, (nn.Sequential, nn.HybridSequential)) else [net]

    def linear_layers(self, model: Module) -> list[nn.Block]:
        """Return the dense layers, in order of definition."""
        return dense_layers(model)

    # Training

    def init_state(self, model: Module, seed: int | None) -> State:
        """Return the model with its optimiser; seed the generators that masks are drawn from.

        Raises
        ------
        UsageError
            If there are only arrays without gradients, which no optimiser could train.
        """
        if model.get_scratch_params() and not named_parameters(model):
            raise UsageError(
                "Expected parameters with gradients. Received arrays without: call attach_grad() on each array that is "
                "to be trained"
            )
        state = State(model, model.configure_optimizers())
        if seed is not None:
            arrays.seed(seed)
        return state

    def optimizer_state(self, state: State) -> dict[str, onp.ndarray]:
        """Return copies of what a gluon Trainer keeps from step to step.

        These are its arrays and counts of updates, by the names of the parameters, and the numbers of the optimiser and
        of its schedule, such as the learning rate.
        """
        if not isinstance(state.optim, gluon.Trainer):
            return super().optimizer_state(state)
        found: dict[str, onp.ndarray] = {}
        for name, i, slots in _trained(state):
            found |= {key: slot.asnumpy() for key, slot in _flat(name, slots)}
            found[f"{name}.updates"] = onp.array(_updates(state).get(i, state.optim.optimizer.begin_num_update))
        return found | {key: onp.array(getattr(owner, own)) for key, owner, own in _numbers(state)}

    def set_optimizer_state(self, state: State, arrays: Mapping[str, onp.ndarray]) -> State:
        """Set what `optimizer_state` returned, in an optimiser of the same kind for a model of the same shapes."""
        if not isinstance(state.optim, gluon.Trainer):
            updated: State = super().set_optimizer_state(state, arrays)
            return updated
        updater = state.optim._updaters[0]
        for name, i, slots in _trained(state):
            updater.states[i], updater.states_synced[i] = slots, True
            for key, slot in _flat(name, slots):
                slot[:] = arrays[key]
            _updates(state)[i] = int(arrays[f"{name}.updates"])
        for key, owner, own in _numbers(state):
            setattr(owner, own, type(getattr(owner, own))(arrays[key]))
        return state

    def set_lr(self, state: State, lr: float) -> State:
        """Set the learning rate of a gluon Trainer."""
        if not isinstance(state.optim, gluon.Trainer):
            return super().set_lr(state, lr)  # type: ignore[no-any-return]
        if state.optim.optimizer.lr_scheduler is not None:
            raise no_rate(state.optim.optimizer)
        state.optim.set_learning_rate(lr)
        return state

    def train_step(self, state: State, batch: tuple[np.ndarray, ...], clip: float) -> tuple[State, Metrics]:
        """Take one step of the optimiser."""
        with autograd.record():  # recording gradients is also what turns dropout on
            loss, metrics = recorded(state.model.training_step, _inputs(batch))
        loss.backward()
        if clip > 0:
            self.clip_gradients(clip, state.model)
        state.optim.step(1)  # a gluon Trainer divides gradients by this, but the loss is a mean already
        return state, {key: value.detach() for key, value in metrics.items()}

    def train_epoch(
        self, state: State, data: tuple[np.ndarray, ...], order: onp.ndarray, batch_size: int, clip: float
    ) -> tuple[State, Numbers]:
        """Take a step for each `batch_size` entries of `order`.

        Python only queues the work, which MXNet's engine does in other threads, and waits once, at the end.
        """
        steps, indices = [], arrays.array(order, data[0].ctx)
        for start in range(0, len(order), batch_size):
            chosen = indices[start : start + batch_size]
            batch = tuple(np.take(samples, chosen, axis=0, mode="clip") for samples in data)
            state, metrics = self.train_step(state, batch, clip)
            steps.append(metrics)
        return state, _fetched(steps)

    def eval_step(self, model: Module, batch: tuple[np.ndarray, ...]) -> Metrics:
        """Return the metrics of one batch, without dropout and gradients."""
        with autograd.pause(train_mode=False):
            return recorded(model.validation_step, _inputs(batch))[1]

    def eval_epoch(self, model: Module, data: tuple[np.ndarray, ...], batch_size: int) -> Numbers:
        """Return the metrics of each `batch_size` samples, without dropout and gradients."""
        starts = range(0, len(data[-1]), batch_size)
        return _fetched([self.eval_step(model, tuple(X[i : i + batch_size] for X in data)) for i in starts])

    def clip_gradients(self, grad_clip_val: float, model: nn.Block) -> nn.Block:
        """Scale the gradients in place, so that their common norm is at most `grad_clip_val`."""
        grad_clipping(model, grad_clip_val)
        return model

    # The function edition

    def device_of_net(self, net: Any) -> mx.Context | None:
        """Return the device of a block's first parameter."""
        params = net.collect_params().values() if isinstance(net, nn.Block) else ()
        return next((param.list_ctx()[0] for param in params), None)

    def outputs(self, net: Any, X: np.ndarray) -> np.ndarray:
        """Return the outputs of a block or function for a batch, without dropout and gradients."""
        with autograd.pause(train_mode=False):
            return net(X)

    def learn(self, net: Any, X: np.ndarray, y: np.ndarray, loss: Any, updater: Any) -> tuple[np.ndarray, np.ndarray]:
        """Take a step with dropout on; return the sum of the losses, and the outputs.

        `updater` is a gluon Trainer, or a function of the batch size. While gradients are recorded,
        `autograd.is_training()` is true, so that dropout is on in functions that ask for it, too.
        """
        with autograd.record():
            y_hat = net(X)
            total = self.total_loss(loss, y_hat, y)
        total.backward()
        step = updater.step if hasattr(updater, "step") else updater
        step(len(y))
        return total.detach(), y_hat.detach()

    def num_correct(self, y_hat: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return how many predictions are right; `y_hat` is scores (N, K) or labels (N,)."""
        labels = y_hat.argmax(axis=1) if y_hat.ndim > 1 else y_hat
        return (labels.astype(y.dtype) == y).astype("float32").sum()


@contextmanager
def _sampling(model: nn.Block) -> Iterator[None]:
    """Inside the block, run a model layer by layer, with masks of `dropout_layer`.

    Blocks with parameters that are not trained, such as the statistics of batch normalisation, are as in evaluation.
    """
    blocks: list[nn.Block] = []
    model.apply(blocks.append)
    inside = [block for block in dict.fromkeys(blocks) if block is not model]
    replaced = [block for block in inside if isinstance(block, nn.Dropout)]
    keeping = [block for block in inside if any(param.grad_req == "null" for param in block._reg_params.values())]
    with not_hybridized(model), overlaid(replaced, "forward", _dropping), overlaid(keeping, "forward", _evaluated):
        yield


def _dropping(block: nn.Dropout) -> Callable[..., Any]:
    """Return how gluon's layer is called with masks of `dropout_layer`."""
    return partial(lesson.dropout_layer, dropout=block._rate, axes=block._axes)


def _evaluated(block: nn.Block) -> Callable[..., Any]:
    """Return how a block is called as in evaluation."""
    forward = block.forward

    def evaluated(*inputs: Any) -> Any:
        with autograd.predict_mode():
            return forward(*inputs)

    return evaluated


# What a gluon Trainer keeps: its own `save_states` would pickle it.


def _trained(state: State) -> Iterator[tuple[str, int, Any]]:
    """Yield the name of each trained parameter, its number, and what is kept for it: arrays, tuples of them, or None.

    Before the first step it is made anew, as it would be in that step.
    """
    names = {id(param.data()): name for name, param in named_parameters(state.model).items()}
    optimizer, kept = state.optim.optimizer, state.optim._updaters[0].states
    for i, param in enumerate(state.optim._params):
        if param.grad_req != "null":
            new = None if i in kept else optimizer.create_state_multi_precision(i, param.data().as_nd_ndarray())
            yield names.get(id(param.data()), str(i)), i, kept.get(i, new)


def _flat(name: str, slots: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays in nested tuples, named by their places."""
    if isinstance(slots, (tuple, list)):
        for k, slot in enumerate(slots):
            yield from _flat(f"{name}.{k}", slot)
    elif slots is not None:
        yield name, slots


def _updates(state: State) -> dict[int, int]:
    """Return how often each parameter was updated, by number, in the dictionary in which the optimiser counts it."""
    device = state.optim._contexts[0].device_id
    counts: dict[int, int] = state.optim.optimizer._all_index_update_counts.setdefault(device, {})
    return counts


def _numbers(state: State) -> Iterator[tuple[str, Any, str]]:
    """Yield a name for each number that the optimiser or its schedule has as an attribute, the owner, and its name."""
    optimizer = state.optim.optimizer
    for kind, owner in (("optimizer", optimizer), ("schedule", optimizer.lr_scheduler)):
        for own, value in vars(owner).items() if owner is not None else ():
            if isinstance(value, Real):
                yield f"{kind}.{own}", owner, own


def _as_floats(X: np.ndarray) -> np.ndarray:
    """Return pixels, uint8, as float32 in [0, 1], and arrays of other types as they are."""
    return X.astype("float32") / 255 if X.dtype == onp.uint8 else X


def _inputs(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return a batch as the model takes it: pixels as floats, labels as they are."""
    return (*map(_as_floats, batch[:-1]), batch[-1])


def _fetched(steps: Sequence[Metrics]) -> Numbers:
    """Return the metrics of several steps as lists of numbers; this waits for the device."""
    stacked = {key: np.stack([metrics[key] for metrics in steps]) for key in steps[0]}
    return {key: values.asnumpy().tolist() for key, values in stacked.items()}


backend = MXNetBackend()

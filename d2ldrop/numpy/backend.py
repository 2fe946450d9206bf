"""How shared code drives NumPy: arrays, training, weights, and the function edition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2ldrop.backend import Backend, Draw, Metrics, Numbers, Parameter, by_name
from d2ldrop.data import as_floats
from d2ldrop.errors import UsageError
from d2ldrop.numpy import arrays, lesson, masks
from d2ldrop.numpy.layers import Layer, Linear
from d2ldrop.numpy.lesson import Module
from d2ldrop.training.module import recorded


@dataclass
class State:
    """What training carries from step to step; it is changed in place."""

    model: Module
    optim: Any


class NumpyBackend(Backend[Module, np.ndarray, str]):
    """NumPy, which is also the reference that every other backend is tested against."""

    name = "numpy"
    by_hand = True
    models = by_name(lesson.DropoutMLPScratch, lesson.DropoutMLP, lesson.DropoutMLPRegressor, lesson.SoftmaxRegression)

    cpu, gpu, num_gpus = staticmethod(arrays.cpu), staticmethod(arrays.gpu), staticmethod(arrays.num_gpus)
    is_array, array, numpy = staticmethod(arrays.is_array), staticmethod(arrays.array), staticmethod(arrays.numpy)
    seed, dropout_layer = staticmethod(arrays.seed), staticmethod(lesson.dropout_layer)
    entropy, isolated = staticmethod(arrays.entropy), staticmethod(arrays.generator.isolated)
    keep_mask = staticmethod(masks.keep_mask)
    normal_like, where = staticmethod(masks.normal_like), staticmethod(masks.where)

    def real_floats(self, X: np.ndarray) -> np.ndarray:
        """Return an array of real numbers as floats; not as a matrix, whose `*` is the matrix product."""
        X = masks.real_floats(X)
        return np.asarray(X) if isinstance(X, np.matrix) else X

    def dtype_like(self, Y: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return `Y` in the dtype of `X`: in NumPy 1, an array of shape () times a number of Python is float64."""
        return np.asanyarray(Y, X.dtype)

    # Models

    def build(
        self, model: Module, inputs: Sequence[Any], device: str, seed: Any = None, draw: Draw | None = None
    ) -> bool:
        """Create the parameters that the model lacks."""
        if seed is not None:
            arrays.seed(seed)
        new = not self.is_built(model)
        if new:
            model.train(False)
            model(*map(as_floats, map(np.asarray, inputs)))
        if new and draw is not None:
            own = self.parameters(model).items()
            self.assign(model, draw({name: value.shape[:: -1 if turned else 1] for name, (value, turned) in own}))
        return new

    def is_built(self, model: Module) -> bool:
        """Return True if the model has its parameters."""
        return all(param.value is not None for param in model.parameters())

    def parameters(self, model: Module) -> dict[str, Parameter]:
        """Return `lin1.weight`, `lin1.bias`, ..., those of other layers counted by kind, such as `scale1.W`."""
        found: dict[str, Parameter] = {}
        numbers: dict[str, list[Layer]] = {}
        for param in model.parameters():
            linear = isinstance(param.layer, Linear)
            kind = "lin" if linear else type(param.layer).__name__.lower()
            same_kind = numbers.setdefault(kind, [])
            if param.layer not in same_kind:
                same_kind.append(param.layer)
            own = {"W": "weight", "b": "bias"}[param.name] if linear else param.name
            name = own if param.layer is model else f"{kind}{same_kind.index(param.layer) + 1}.{own}"
            found[name] = Parameter(param.value, transposed=own == "weight" and linear)
        return found

    def assign(self, model: Module, weights: Mapping[str, np.ndarray]) -> None:
        """Set parameters in place."""
        for name, (value, transposed) in self.parameters(model).items():
            value[...] = weights[name].T if transposed else weights[name]

    def predict(self, model: Module, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the model, without dropout."""
        model.train(False)
        return model(as_floats(X))

    def affine(self, layer: Linear) -> tuple[np.ndarray, np.ndarray]:
        """Return the parameters of a layer that has them."""
        assert layer.W is not None
        assert layer.b is not None
        return layer.W, layer.b

    def sample(self, model: Module, X: np.ndarray) -> np.ndarray:
        """Return the outputs of the model with dropout on: all of its layers are as in training."""
        modes = [(layer, layer.training) for layer in (model, *model.layers())]
        model.train()
        try:
            return model(as_floats(X))
        finally:
            for layer, mode in modes:
                layer.training = mode

    def device_of(self, model: Module) -> str:
        """Return the CPU: there is only one device."""
        return arrays.cpu()

    def linear_layers(self, model: Module) -> list[Linear]:
        """Return the layers of the class `Linear`."""
        return [layer for layer in model.layers() if isinstance(layer, Linear)]

    # Training

    def init_state(self, model: Module, seed: int | None) -> State:
        """Make the optimiser, and seed the dropout masks."""
        if seed is not None:
            arrays.seed(seed)
        return State(model, model.configure_optimizers())

    def train_step(self, state: State, batch: tuple[np.ndarray, ...], clip: float) -> tuple[State, Metrics]:
        """Take one step of the optimiser."""
        model = state.model
        model.train()
        _, metrics = recorded(model.training_step, _inputs(batch))
        model.gradients(model.dloss)
        if clip > 0:
            self.clip_gradients(clip, model)
        state.optim.step()
        return state, metrics

    def train_epoch(
        self, state: State, data: tuple[np.ndarray, ...], order: np.ndarray, batch_size: int, clip: float
    ) -> tuple[State, Numbers]:
        """Take a step for each `batch_size` entries of `order`."""
        steps = []
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            state, metrics = self.train_step(state, tuple(samples[chosen] for samples in data), clip)
            steps.append(metrics)
        return state, _numbers(steps)

    def eval_step(self, model: Module, batch: tuple[np.ndarray, ...]) -> Metrics:
        """Return the metrics of one batch, without dropout."""
        model.train(False)
        return recorded(model.validation_step, _inputs(batch))[1]

    def eval_epoch(self, model: Module, data: tuple[np.ndarray, ...], batch_size: int) -> Numbers:
        """Return the metrics of each `batch_size` samples, without dropout."""
        starts = range(0, len(data[-1]), batch_size)
        return _numbers([self.eval_step(model, tuple(X[i : i + batch_size] for X in data)) for i in starts])

    def clip_gradients(self, grad_clip_val: float, model: Module) -> Module:
        """Scale the gradients, so that their common norm is at most `grad_clip_val`."""
        grads = [param.grad for param in model.parameters() if param.grad is not None]
        norm = np.sqrt(sum(np.vdot(grad, grad) for grad in grads))
        if norm > grad_clip_val:
            for grad in grads:
                grad *= grad_clip_val / norm
        return model

    # The function edition

    def outputs(self, net: Any, X: np.ndarray) -> np.ndarray:
        """Return the outputs of a layer or function for a batch, without dropout."""
        if isinstance(net, Layer):
            net.train(False)
        return net(X)

    def learn(self, net: Any, X: np.ndarray, y: np.ndarray, loss: Any, updater: Any) -> tuple[np.ndarray, np.ndarray]:
        """Take a step; return the sum of the losses, and the outputs, under dropout.

        The backward passes, first that of `loss` and then that of `net`, leave the gradients where the updater reads
        them.
        """
        for part in (net, loss):
            if not hasattr(part, "backward"):
                raise UsageError(f"Expected a net and a loss with a backward pass. Received one without: {part!r}")
        if isinstance(net, Layer):
            net.train()
        y_hat = net(X)
        value = loss(y_hat, y)
        dY = loss.backward()
        total, dtotal = (value.sum(), dY) if value.ndim else (value * len(y), dY * len(y))
        if hasattr(updater, "step"):
            net.backward(dtotal / len(y))
            updater.step()
        else:  # divides by the batch size itself
            net.backward(dtotal)
            updater(len(y))
        return total, y_hat

    def num_correct(self, y_hat: np.ndarray, y: np.ndarray) -> Any:
        """Return how many of the predictions are right."""
        labels = y_hat.argmax(axis=1) if y_hat.ndim > 1 else y_hat
        return (labels == y).sum()


def _inputs(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Return a batch as the model takes it: pixels as floats, labels as they are."""
    return (*map(as_floats, batch[:-1]), batch[-1])


def _numbers(steps: list[Metrics]) -> Numbers:
    """Return the metrics of several steps as lists of numbers."""
    return {key: [float(metrics[key]) for metrics in steps] for key in steps[0]}


backend = NumpyBackend()

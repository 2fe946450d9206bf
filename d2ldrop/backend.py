"""The interface between what differs from framework to framework and what does not.

`Backend` names everything that shared code asks of a framework; each adapter, such as `d2ldrop.torch`, has one subclass
of it. To add a framework, write such a package and register it; `CONTRIBUTING.md` says how.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from d2ldrop.errors import UsageError
from d2ldrop.optimizers_by_hand import kept, set_rate
from d2ldrop.overlays import noting_calls
from d2ldrop.randomness import Odds
from d2ldrop.weight_checks import Shapes, check_shapes, converted

__all__ = ["AnyBackend", "Array", "Backend", "Draw", "Metrics", "Numbers", "Parameter", "by_name", "never_called"]

Array = Any  # an array of some framework, where shared code handles it without looking inside
Metrics = dict[str, Any]  # name -> the value of one batch, a scalar that is still on the device
Numbers = dict[str, list[float]]  # name -> the value of each batch, on the host
Draw = Callable[[Shapes], dict[str, np.ndarray]]  # draws initial weights of given shapes, as in files

ModelT = TypeVar("ModelT")  # the adapter's `Module`
ArrayT = TypeVar("ArrayT")  # the framework's arrays
DeviceT = TypeVar("DeviceT")  # the framework's devices


class Parameter(NamedTuple):
    """A parameter of a model, and how files hold it."""

    value: Array
    transposed: bool = False  # in files, the axes are in the opposite order


class Backend(ABC, Generic[ModelT, ArrayT, DeviceT]):
    """What shared code asks of a framework.

    A batch is a tuple of arrays on the device, inputs first and labels last. Inputs stored as uint8 are pixels, and
    become float32 in [0, 1] on their way into the model.
    """

    name: str
    """The name under which the backend is registered."""

    models: Mapping[str, type[ModelT]]
    """The chapter's models, and one for regression, by the names of their classes, such as `DropoutMLPScratch`."""

    channels_last: bool = False
    """Whether images are (N, H, W, C), as opposed to (N, C, H, W)."""

    label_dtype: Any = np.int64
    """The integer type in which the framework takes labels."""

    takes_keys: bool = False
    """Whether randomness may come from a key that is an argument."""

    stores_bytes: bool = True
    """Whether pixels are kept on the device as uint8; otherwise as float32, which takes four times the memory."""

    by_hand: bool = False
    """Whether models have a backward pass by hand, as opposed to gradients that the framework finds."""

    call_method: str = "forward"
    """The method of layers that the framework calls."""

    # Devices

    @abstractmethod
    def cpu(self) -> DeviceT:
        """Return the CPU."""

    @abstractmethod
    def gpu(self, i: int = 0) -> DeviceT:
        """Return the GPU number `i`."""

    @abstractmethod
    def num_gpus(self) -> int:
        """Return the number of GPUs that the framework can use."""

    def try_gpu(self, i: int = 0) -> DeviceT:
        """Return the GPU number `i`, or the CPU if there is no such GPU."""
        return self.gpu(i) if i < self.num_gpus() else self.cpu()

    def try_all_gpus(self) -> list[DeviceT]:
        """Return the GPUs that the framework can use, or the CPU if there are none."""
        return [self.gpu(i) for i in range(self.num_gpus())] or [self.cpu()]

    # Arrays

    @abstractmethod
    def is_array(self, X: Any) -> bool:
        """Return True if `X` is an array of this framework; what its compiler traces counts as one."""

    @abstractmethod
    def array(self, X: Any, device: DeviceT | None = None) -> ArrayT:
        """Copy an array of the host, or of the framework, to the device (None: the framework's default one).

        The dtype stays, where the framework has it.
        """

    @abstractmethod
    def numpy(self, X: ArrayT) -> np.ndarray:
        """Return an array's values on the host; this waits for the device."""

    def place(self, values: Iterable[Any], device: DeviceT) -> tuple[ArrayT, ...]:
        """Copy several arrays to the device."""
        return tuple(self.array(X, device) for X in values)

    # Randomness and dropout

    @abstractmethod
    def seed(self, seed: int) -> None:
        """Seed the generators that default initialisers and dropout masks draw from."""

    @abstractmethod
    def entropy(self) -> int:
        """Draw an integer of at least 31 bits from the framework's own global generator, which its users may seed."""

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Inside the block, seed and draw: what is drawn after it does not depend on that.

        Inside another such block, the generators that masks come from are as before, after the inner one.
        """
        after = self.entropy()
        try:
            yield
        finally:
            self.seed(after)

    def is_tracing(self) -> bool:
        """Return True if the framework compiles the code that runs: what Python draws would be a constant of it."""
        return False

    @abstractmethod
    def dropout_layer(self, X: ArrayT, dropout: float, *, axes: Iterable[int] = ()) -> ArrayT:
        """Set each element to zero with probability `dropout`, and divide the others by 1 - `dropout`.

        Along `axes` all elements share one draw. Frameworks with keys take a `key` as well.
        """

    # What other noise is made of, see `d2ldrop.noise`; draws are as those of `dropout_layer`

    @abstractmethod
    def real_floats(self, X: Any) -> ArrayT:
        """Return an array of real numbers as floats; errors as for `dropout_layer`."""

    @abstractmethod
    def keep_mask(self, X: ArrayT, p: Odds, axes: Iterable[int] = (), key: Any = None) -> ArrayT:
        """Draw a bool for each element of `X`, true with probability 1 - p; along `axes` the mask has size 1."""

    @abstractmethod
    def normal_like(self, X: ArrayT, key: Any = None) -> ArrayT:
        """Draw standard normal numbers in the shape and dtype of `X`, on its device."""

    @abstractmethod
    def where(self, mask: ArrayT, X: ArrayT, value: float) -> ArrayT:
        """Return `X` where the mask is true, and elsewhere a number; the dtype is that of `X`."""

    def sum_along(self, X: ArrayT, axis: int) -> ArrayT:
        """Return the sums of an array along an axis."""
        total: ArrayT = X.sum(axis)  # type: ignore[attr-defined]
        return total

    def entries(self, table: Sequence[float], indices: ArrayT, like: ArrayT) -> ArrayT:
        """Return the numbers of a table at indices (N,), in the dtype and on the device of another array."""
        found: ArrayT = self.array(np.asarray(table, like.dtype))[indices]  # type: ignore[arg-type, attr-defined, index]
        return found

    def dtype_like(self, Y: ArrayT, X: ArrayT) -> ArrayT:
        """Return the result of arithmetic on `X` and Python's numbers in the dtype of `X`, which it mostly has."""
        return Y

    # Models

    @abstractmethod
    def build(
        self, model: ModelT, inputs: Sequence[Any], device: DeviceT, seed: Any = None, draw: Draw | None = None
    ) -> bool:
        """Put a model on the device, and create the parameters that it lacks.

        Parameters
        ----------
        model, device
            The model, and where it goes.
        inputs
            Some inputs (N, ...), on the host or the device, from which the parameters take their shapes.
        seed
            Seeds the framework's initialisers; an integer or, in JAX, a key. None leaves their generator as it is.
        draw
            Draws the values of new parameters on the host. None leaves them to the framework's initialisers.

        Returns
        -------
        bool
            True if parameters were created; the parameters of a trained model are left as they are.
        """

    @abstractmethod
    def is_built(self, model: ModelT) -> bool:
        """Return True if the model has its parameters; most models get them when they are first called."""

    @abstractmethod
    def parameters(self, model: ModelT) -> dict[str, Parameter]:
        """Return all parameters and buffers of a built model by their names in files, in order of definition.

        The fully connected layers are `lin1.weight` (outputs, inputs), `lin1.bias` (outputs,), `lin2.weight`, ...
        """

    @abstractmethod
    def assign(self, model: ModelT, weights: Mapping[str, np.ndarray]) -> None:
        """Set parameters, given by their names in files, and in the layouts of files."""

    def get_weights(self, model: ModelT) -> dict[str, np.ndarray]:
        """Return copies of all parameters and buffers of a model, in the names and layouts of files.

        Raises
        ------
        UsageError
            If the model was never called, and has none yet.
        """
        if not self.is_built(model):
            raise never_called(model)
        parameters = self.parameters(model).items()
        return {
            name: np.array(self.numpy(value).T if transposed else self.numpy(value), order="C")
            for name, (value, transposed) in parameters
        }

    def set_weights(self, model: ModelT, weights: Mapping[str, np.ndarray]) -> None:
        """Set all parameters and buffers of a model, given in the form in which `get_weights` returns them.

        Floating-point numbers become those of the model. A model that was never called is put on the CPU; it takes the
        shape of its inputs from `lin1.weight`.

        Raises
        ------
        WeightsError
            If names, shapes or kinds of numbers are not those of the model; the message names those that differ.
        UsageError
            If the model was never called, and does not take rows of numbers.
        """
        if not self.is_built(model):
            self.build_for(model, weights)
        parameters = self.parameters(model)
        check_shapes(
            {name: tuple(value.shape)[:: -1 if turned else 1] for name, (value, turned) in parameters.items()},
            {name: np.shape(value) for name, value in weights.items()},
        )
        self.assign(model, converted(weights, {name: str(value.dtype) for name, (value, _) in parameters.items()}))

    def build_for(self, model: ModelT, weights: Mapping[str, np.ndarray]) -> None:
        """Create the parameters of a model whose first layer is `lin1`, as far as its weights tell."""
        first = np.shape(weights["lin1.weight"]) if "lin1.weight" in weights else ()
        if len(first) != 2 or any(np.ndim(value) > 2 for value in weights.values()):  # convolutions, say
            raise never_called(model)
        try:
            self.build(model, (np.zeros((1, first[1]), np.float32),), self.cpu())
        except Exception as error:  # whatever the reader's layers say of these inputs
            raise never_called(model) from error

    def sublayers(self, net: Any) -> Iterable[Any]:
        """Return the layers of a sequential network, in order, or the one layer that the network is."""
        layers: Iterable[Any] = net if isinstance(net, Iterable) else [net]
        return layers

    @abstractmethod
    def predict(self, model: ModelT, X: ArrayT) -> ArrayT:
        """Return the outputs of a built model, without dropout, gradients, or draws from any generator."""

    @abstractmethod
    def affine(self, layer: Any) -> tuple[ArrayT, ArrayT]:
        """Return weights (inputs, outputs) and bias (outputs,) of a fully connected layer, as its call uses them.

        In training, gradients with respect to them reach the layer's parameters.
        """

    def is_training(self, model: ModelT) -> bool:
        """Return True if a call of the model is one with dropout."""
        training: bool = model.training  # type: ignore[attr-defined]
        return training

    @abstractmethod
    def sample(self, model: ModelT, X: ArrayT) -> ArrayT:
        """Return the outputs of one call of a built model with dropout on, without gradients.

        Each row draws its own masks, from the generators that `seed` seeds. Layers that keep statistics, as for batch
        normalisation, are as in evaluation. Nothing of the model changes, nor of a training that goes on.
        """

    def linear_layers(self, model: ModelT) -> Iterable[Any]:
        """Return the fully connected layers of a built model, whose calls `linear_calls` watches."""
        return ()

    def linear_calls(self, model: ModelT, X: ArrayT) -> list[tuple[ArrayT, ArrayT]]:
        """Return the input and the output of each fully connected layer in a call with dropout on, as by `sample`."""
        with noting_calls(self.linear_layers(model), self.call_method) as calls:
            self.sample(model, X)
        return calls

    def device_of(self, model: ModelT) -> DeviceT:
        """Return the device on which a built model is; the CPU if it has no parameters."""
        values: list[Any] = [parameter.value for parameter in self.parameters(model).values()]
        device: DeviceT = values[0].device if values else self.cpu()
        return device

    # Training

    @abstractmethod
    def init_state(self, model: ModelT, seed: int | None) -> Any:
        """Return what training carries from step to step: the optimiser, its memory, and dropout's randomness.

        The optimiser is what `model.configure_optimizers()` returns, and is kept as the attribute `optim`. Dropout's
        randomness starts from `seed`; None: from the framework's own generator.
        """

    def optimizer_state(self, state: Any) -> dict[str, np.ndarray]:
        """Return copies of what the optimiser keeps from step to step, by name: arrays, and numbers as 0-d arrays.

        Here these are the arrays and numbers in the attributes of an optimiser by hand.
        """
        return {
            name: np.array(self.numpy(value) if self.is_array(value) else value)
            for name, _, _, value in kept(vars(state.optim), self.is_array)
        }

    def set_optimizer_state(self, state: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        """Return the state with what `optimizer_state` returned, for an optimiser of the same kind.

        What the optimiser makes at its first step, and has not yet, is made.
        """
        for name, owner, key, value in kept(vars(state.optim), self.is_array):
            if self.is_array(value) or (arrays[name].ndim and not isinstance(value, np.ndarray)):
                owner[key] = self.array(arrays[name])  # a number may have become one in the first step
            else:
                owner[key] = arrays[name] if isinstance(value, np.ndarray) else type(value)(arrays[name])
        return state

    def set_lr(self, state: Any, lr: float) -> Any:
        """Return the state with another learning rate, which stays until the next one.

        Here it is that of an optimiser by hand.

        Raises
        ------
        UsageError
            If the optimiser has no rate that can be set, or takes it from a schedule of the framework.
        """
        set_rate(state.optim, lr)
        return state

    def reseed(self, state: Any, seed: int) -> None:
        """Begin anew, from `seed`, what a training draws inside `isolated`."""
        self.seed(seed)

    @abstractmethod
    def train_step(self, state: Any, batch: tuple[ArrayT, ...], clip: float) -> tuple[Any, Metrics]:
        """Take one step of the optimiser; gradients are scaled to a norm of at most `clip` (0: as they are)."""

    @abstractmethod
    def train_epoch(
        self, state: Any, data: tuple[ArrayT, ...], order: np.ndarray, batch_size: int, clip: float
    ) -> tuple[Any, Numbers]:
        """Take a step for each `batch_size` entries of `order`, which index the samples of `data` on the device.

        The numbers of all batches are fetched together, after the last step: it is the one time that the host waits.
        """

    @abstractmethod
    def eval_step(self, model: ModelT, batch: tuple[ArrayT, ...]) -> Metrics:
        """Return the metrics of one batch, without dropout, gradients, or draws from any generator."""

    @abstractmethod
    def eval_epoch(self, model: ModelT, data: tuple[ArrayT, ...], batch_size: int) -> Numbers:
        """Return what `eval_step` does for each `batch_size` samples of `data` on the device."""

    @abstractmethod
    def clip_gradients(self, grad_clip_val: float, model: Any) -> Any:
        """Scale gradients so that their common norm is at most `grad_clip_val`; see `Trainer.clip_gradients`."""

    def finish_epoch(self, model: ModelT, state: Any) -> None:
        """Let the model have what the state learned; nothing to do where the optimiser changes it in place."""

    # The function edition

    @abstractmethod
    def outputs(self, net: Any, X: ArrayT) -> ArrayT:
        """Return the outputs of a network or function for a batch, without dropout and gradients."""

    @abstractmethod
    def learn(self, net: Any, X: ArrayT, y: ArrayT, loss: Any, updater: Any) -> tuple[ArrayT, ArrayT]:
        """Take a step with dropout on; return the sum of the batch's losses, and the outputs."""

    @abstractmethod
    def num_correct(self, y_hat: ArrayT, y: ArrayT) -> ArrayT:
        """Return how many predictions are right, on the device; `y_hat` is scores (N, K) or labels (N,)."""

    def device_of_net(self, net: Any) -> DeviceT | None:
        """Return the device of a net's parameters, or None where the net, such as a function, does not tell."""
        return None

    def total_loss(self, loss: Any, y_hat: Any, y: Any) -> Any:
        """Return the sum of a batch's losses, whether `loss` averages them or returns one per sample."""
        value = loss(y_hat, y)
        return value.sum() if value.ndim else value * len(y)


AnyBackend = Backend[Any, Any, Any]


def never_called(model: Any) -> UsageError:
    """Return the error for a model whose parameters are missing."""
    return UsageError(
        f"Expected a model that has its parameters. Received: {type(model).__name__}, which was never called. "
        "Fit it, or call it with some inputs, first."
    )


def by_name(*kinds: type[ModelT]) -> dict[str, type[ModelT]]:
    """Return classes by their names, for `Backend.models`."""
    return {kind.__name__: kind for kind in kinds}

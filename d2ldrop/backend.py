"""The seam between what differs from framework to framework and what does not.

An adapter is a module, such as `d2ldrop.torch`, that has everything listed in `Backend`. To add a framework, write such
a module, name it in `FRAMEWORKS`, and run the tests: they find it by that name.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from d2ldrop.errors import ArgumentTypeError, BackendError

Array = Any  # an array of the adapter's framework
Device = Any
Model = Any
State = Any
Metrics = dict[str, Any]  # name -> the value of one batch (or a vector of the values of many), still on the device

# adapter -> the package it needs; numpy comes last, because other packages' arrays may imitate NumPy's
FRAMEWORKS = {"torch": "torch", "tf": "tensorflow", "jax": "jax", "mxnet": "mxnet", "numpy": "numpy"}
ALIASES = {"tensorflow": "tf", "pytorch": "torch"}


class Backend(Protocol):
    """What an adapter provides; everything else in the library is written once, on top of these names.

    `model` is an instance of the adapter's own `Module`. A batch is a tuple of arrays on the device, inputs first and
    labels last; inputs stored as uint8 stand for pixels, and become float32 in [0, 1] on their way into the model.
    """

    name: str
    """The module's name below `d2ldrop`."""

    channels_last: bool
    """Whether images are (N, H, W, C), as opposed to (N, C, H, W)."""

    def is_array(self, X: Any) -> bool:
        """Tell whether `X` is an array of this framework; what a compiler traces counts."""

    def cpu(self) -> Device:
        """Return the CPU."""

    def try_all_gpus(self) -> list[Device]:
        """Return the GPUs that the framework can use, or the CPU if there are none."""

    def seed(self, seed: int) -> None:
        """Start the framework's own source of randomness afresh: default initialisers, and dropout, draw from it."""

    def array(self, X: Any, device: Device | None = None) -> Array:
        """Bring an array of the host, or of the framework, to the device (None: the framework's default one).

        The dtype stays, where the framework has it.
        """

    def numpy(self, X: Array) -> np.ndarray:
        """Copy an array to the host, waiting for its value."""

    def dropout_layer(self, X: Array, dropout: float) -> Array:
        """Set each element to zero with probability `dropout`, and scale the others so that the mean stays."""

    def build(self, model: Model, inputs: tuple[Array, ...], device: Device) -> bool:
        """Put the model on the device and create what parameters it lacks, with the shapes that some inputs need.

        Returns whether any were created, so that a trained model is left as it is.
        """

    def get_weights(self, model: Model) -> dict[str, np.ndarray]:
        """Return copies of all parameters of a built model, in order of definition, in the names and layouts of files.

        The fully connected layers are `lin1.weight` (outputs, inputs), `lin1.bias` (outputs,), `lin2.weight`, ...
        """

    def set_weights(self, model: Model, weights: dict[str, np.ndarray]) -> None:
        """Assign parameters of a built model, in the form in which `get_weights` gives them; shapes are checked."""

    def init_state(self, model: Model, optim: Any, seed: int | None) -> State:
        """Return what training carries from step to step: parameters, optimiser state, and dropout's randomness.

        The latter starts from `seed`; None: from wherever the framework's own source stands.
        """

    def train_step(self, state: State, batch: tuple[Array, ...], clip: float) -> tuple[State, Metrics]:
        """Take one step of the optimiser; gradients are scaled to a norm of at most `clip` (0: as they are)."""

    def train_epoch(
        self, state: State, data: tuple[Array, ...], order: np.ndarray, batch_size: int, clip: float
    ) -> tuple[State, Metrics]:
        """Take a step for each `batch_size` entries of `order`, which index the samples of the device-resident `data`.

        Returns vectors of metrics, one value per batch, without waiting for them.
        """

    def eval_step(self, state: State, batch: tuple[Array, ...]) -> Metrics:
        """Return the metrics of one batch, without dropout and without gradients."""

    def predict(self, model: Model, X: Array) -> Array:
        """Return the outputs of a built model, without dropout and without gradients."""

    def clip_gradients(self, grad_clip_val: float, model: Any) -> Any:
        """Scale gradients so that their common norm is at most `grad_clip_val`; see `Trainer.clip_gradients`."""


def available() -> tuple[str, ...]:
    """Return the names of the backends whose framework is installed, without importing any.

    Examples
    --------
    >>> "numpy" in available()
    True
    """
    return tuple(name for name, package in FRAMEWORKS.items() if importlib.util.find_spec(package) is not None)


def backend(name: str) -> Backend:
    """Return the adapter of that name, importing its framework.

    Parameters
    ----------
    name
        One of `available()`; `tensorflow` and `pytorch` are understood as well.

    Raises
    ------
    BackendError
        If there is no such backend, or its framework is not installed; the message names the extra to install.

    Examples
    --------
    >>> backend("numpy").name
    'numpy'
    """
    adapter = ALIASES.get(name, name)
    if adapter not in FRAMEWORKS:
        raise BackendError(f"Expected a backend among {', '.join(FRAMEWORKS)}. Received: {name!r}")
    if importlib.util.find_spec(FRAMEWORKS[adapter]) is None:
        raise BackendError(
            f"The backend {adapter!r} needs the package {FRAMEWORKS[adapter]!r}, which is not installed. "
            f"Install it with: pip install 'd2ldrop[{adapter}]'"
        )
    return cast(Backend, importlib.import_module(f"d2ldrop.{adapter}"))


def device_choice(
    cpu: Callable[[], Device], gpu: Callable[[int], Device], num_gpus: Callable[[], int]
) -> tuple[Callable[..., Device], Callable[[], list[Device]]]:
    """Return an adapter's `try_gpu` and `try_all_gpus`, given how it names devices and counts GPUs."""

    def try_gpu(i: int = 0) -> Device:
        """Return the GPU number `i`, or the CPU if there is no such GPU."""
        return gpu(i) if i < num_gpus() else cpu()

    def try_all_gpus() -> list[Device]:
        """Return the GPUs that the framework can use, or the CPU if there are none."""
        return [gpu(i) for i in range(num_gpus())] or [cpu()]

    return try_gpu, try_all_gpus


_backend_of_type: dict[type, Backend] = {}


def backend_of(X: Any) -> Backend:
    """Return the adapter to whose framework an array belongs.

    Only frameworks that the caller has imported are asked, so nothing is loaded that was not there.

    Raises
    ------
    ArgumentTypeError
        If `X` is no array of any of them.

    Examples
    --------
    >>> import numpy as np
    >>> backend_of(np.zeros(3)).name
    'numpy'
    """
    kind = type(X)
    if kind not in _backend_of_type:
        for name, package in FRAMEWORKS.items():
            if package in sys.modules and (candidate := backend(name)).is_array(X):
                _backend_of_type[kind] = candidate
                break
        else:
            raise ArgumentTypeError(
                f"Expected an array of one of the frameworks {', '.join(FRAMEWORKS)}. "
                f"Received: {X!r} of type {kind.__name__}"
            )
    return _backend_of_type[kind]


def dropout_layer(X: Array, dropout: float) -> Array:
    """Set each element of `X` to zero with probability `dropout`, and divide the others by 1 - `dropout`.

    Parameters
    ----------
    X
        An array of any framework, of any shape. Integers are promoted to the framework's default float.
    dropout
        The probability p of dropping an element, a real number in [0, 1].

    Returns
    -------
    array
        Same framework, shape, dtype and device as `X`. With p = 0 it is `X` itself, with p = 1 all zeros. A dropped
        inf or nan becomes 0. The gradient with respect to `X` is the same mask over 1 - p.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `X` is not an array, or `dropout` is not a real number in [0, 1].

    Notes
    -----
    p is realised to within 2**-16, and the scale is exact for the realised p.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, Dropout: a simple way to prevent neural
    networks from overfitting, JMLR 15 (2014), in the inverted form of Dive into Deep Learning.

    Examples
    --------
    >>> import numpy as np
    >>> Y = dropout_layer(np.ones((4, 4)), 0.5)
    >>> sorted(set(Y.ravel())) in ([0.0, 2.0], [0.0], [2.0])
    True
    """
    return backend_of(X).dropout_layer(X, dropout)


if TYPE_CHECKING:  # here the type checker compares each adapter with the Protocol
    from d2ldrop import jax as _jax
    from d2ldrop import mxnet as _mxnet
    from d2ldrop import numpy as _numpy
    from d2ldrop import tf as _tf
    from d2ldrop import torch as _torch

    _adapters: tuple[Backend, ...] = (_torch, _tf, _jax, _mxnet, _numpy)

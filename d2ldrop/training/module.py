"""What the models of all frameworks share: hyperparameters, steps, and how their metrics reach the trainer."""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from d2ldrop.backend import AnyBackend, Array, Metrics
from d2ldrop.errors import UsageError
from d2ldrop.hyperparameters import TINY, HyperParameters, is_overridden
from d2ldrop.plots.board import ProgressBoard
from d2ldrop.registry import get_backend

__all__ = ["BaseClassifier", "BaseMLP", "BaseModule", "BaseRegressor", "Logger", "by_weights", "recorded", "remade"]

Result = TypeVar("Result")

_recording: ContextVar[Metrics | None] = ContextVar("_recording", default=None)


def recorded(step: Callable[..., Result], *args: Any) -> tuple[Result, Metrics]:
    """Call a step; return its result, and what it reported through `Module.plot`, still on the device.

    It is how a step that runs many times, or is traced by a compiler, returns its metrics without waiting for them.
    """
    metrics: Metrics = {}
    token = _recording.set(metrics)
    try:
        return step(*args), metrics
    finally:
        _recording.reset(token)


class Logger(Protocol):
    """What a model needs of the trainer that it was handed to."""

    def log(self, key: str, value: Array, train: bool) -> None:
        """Take a metric of the current batch."""


class BaseModule(HyperParameters):
    """The part of `Module` that is the same in every framework; each adapter adds its framework's own base class."""

    backend_name: str
    """The backend to which the model belongs."""

    plot_train_per_epoch: int = 2
    plot_valid_per_epoch: int = 1
    host_init: bool = False
    """Whether a trainer with a seed draws the initial weights on the host, the same for every framework."""

    is_regression: bool = False
    """Whether labels are real numbers, as opposed to classes."""

    plotted: Mapping[str, str] = {"loss": "loss"}
    """The metrics that have a panel of the board from the start, and the words beside its axis."""

    trainer: Logger | None = None
    input_shape: tuple[int, ...] | None = None
    """The shape of a sample that the model was trained on, once it was; of a loaded one, how many numbers it has."""

    transient: tuple[str, ...] = ("trainer", "_board")
    """Attributes that copies and pickles leave out."""

    _board: ProgressBoard | None = None

    if TYPE_CHECKING:

        def __call__(self, *inputs: Array) -> Array:
            """Tell the type checker that the framework's base class makes models callable."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles of the model hold."""
        return {name: value for name, value in vars(self).items() if name not in self.transient}

    @property
    def backend(self) -> AnyBackend:
        """The backend named by `backend_name`."""
        return get_backend(self.backend_name)

    @property
    def board(self) -> ProgressBoard:
        """The plot that training draws, with a panel for each metric; made when it is first asked for."""
        if self._board is None:
            own = {"loss": "loss"} if is_overridden(self, "loss") else {}  # whatever it may be
            self._board = ProgressBoard(xlabel="epoch", panels={**self.plotted, **own})
        return self._board

    @board.setter
    def board(self, board: ProgressBoard) -> None:
        self._board = board

    def plot(self, key: str, value: Array, train: bool) -> None:
        """Report a metric of the current batch, to be averaged over samples, plotted, and kept in the history.

        Parameters
        ----------
        key
            The metric's name, such as `"loss"`; the curve's label is `train_` or `val_` followed by it.
        value
            A scalar on any device; nothing waits for it here.
        train
            Whether it belongs to training or to validation.

        Raises
        ------
        UsageError
            If the model was not handed to a trainer.
        """
        metrics = _recording.get()
        if metrics is not None:
            metrics[key] = value
        elif self.trainer is not None:
            self.trainer.log(key, value, train)
        else:
            raise UsageError("Expected the model to be in training when it plots. Call trainer.fit(model, data) first.")

    def report(self, metrics: Mapping[str, Array], train: bool) -> None:
        """Report several metrics of the current batch; see `plot`."""
        for key, value in metrics.items():
            self.plot(key, value, train)

    def training_step(self, batch: tuple[Array, ...]) -> Array:
        """Return the loss of a batch, whose gradient the optimiser uses."""
        loss = self.loss(self(*batch[:-1]), batch[-1])
        self.report({"loss": loss}, train=True)
        return loss

    def validation_step(self, batch: tuple[Array, ...]) -> None:
        """Report the loss of a batch of the validation data."""
        self.report({"loss": self.loss(self(*batch[:-1]), batch[-1])}, train=False)

    def loss(self, y_hat: Array, y: Array) -> Array:
        """Return the loss of the outputs `y_hat`, given the labels `y`: a scalar."""
        raise UsageError(f"Expected {type(self).__name__} to define loss(y_hat, y). It does not.")

    def configure_optimizers(self) -> Any:
        """Return the optimiser to train with, in the framework's own form."""
        raise UsageError(f"Expected {type(self).__name__} to define configure_optimizers(). It does not.")

    def layer_summary(self, X_shape: tuple[int, ...]) -> None:
        """Print the shape of each layer's output for random inputs of a shape.

        Raises
        ------
        UsageError
            If the model has no network `self.net`, whose layers are known.
        """
        if not hasattr(self, "net"):
            raise UsageError(
                f"Expected {type(self).__name__} to have its layers in self.net. It has no such attribute."
            )
        X = self.backend.array(np.random.default_rng(0).standard_normal(X_shape, np.float32))
        for layer in self.backend.sublayers(self.net):
            X = layer(X)
            print(f"{type(layer).__name__:<12} output shape: {tuple(X.shape)}")


def by_weights(model: Any) -> tuple[Any, ...]:
    """Return how a model is made again, for copies and pickles where those of the framework's own objects do not work.

    It is made from its class and hyperparameters, and gets its numbers, tuples of numbers, texts and weights.
    """
    weights = model.backend.get_weights(model) if model.backend.is_built(model) else None
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(model).items()
        if not name.startswith("_") and _is_plain(value)
    }
    return remade, (type(model), dict(model.hparams), plain, weights, model.input_shape)


def _is_plain(value: Any) -> bool:
    """Return True for a number, a text or None, and for a tuple or list of numbers that is not empty."""
    if isinstance(value, (tuple, list)):
        return bool(value) and all(isinstance(item, (int, float)) for item in value)
    return isinstance(value, (bool, int, float, str, np.number, type(None)))


def remade(
    kind: Any,
    hparams: Mapping[str, Any],
    plain: Mapping[str, Any],
    weights: Mapping[str, np.ndarray] | None,
    input_shape: tuple[int, ...] | None,
) -> Any:
    """Return a model from what `by_weights` found.

    Raises
    ------
    UsageError
        If the class cannot be called with the hyperparameters.
    """
    try:
        model = kind(**hparams)
    except TypeError as error:
        raise UsageError(
            f"Expected {kind.__name__} to keep its arguments by save_hyperparameters(), so that it can be made again "
            f"in a copy. Received {error}"
        ) from error
    for name, value in plain.items():
        if getattr(model, name, None) != value:
            setattr(model, name, value)
    if input_shape is not None:
        model.backend.build(model, (np.zeros((1, *input_shape), np.float32),), model.backend.cpu())
        model.input_shape = input_shape
    if weights is not None:
        model.backend.set_weights(model, weights)
    return model


class BaseClassifier(BaseModule):
    """The part of `Classifier` that is the same in every framework."""

    plotted = {"loss": "cross-entropy (nats)", "acc": "accuracy"}  # noqa: RUF012 - as declared above, never changed

    class_weights: Sequence[float] | None = None
    """How much samples of each class count in the loss; None: all the same."""

    def weighted(self, losses: Array, Y: Array, averaged: bool) -> Array:
        """Return losses (N,) times the weights of the classes Y (N,) or, if `averaged`, the weighted mean.

        The mean is the sum of the products over the sum of the weights; 0 where all weights of a batch are 0.
        """
        backend, table = self.backend, self.class_weights
        assert table is not None
        weights = backend.entries(table, Y, losses)
        products = losses * weights
        return backend.sum_along(products, 0) / (backend.sum_along(weights, 0) + TINY) if averaged else products

    def accuracy(self, Y_hat: Array, Y: Array, averaged: bool = True) -> Array:
        """Return the fraction of samples whose largest output is at their label; per sample if not `averaged`."""
        raise UsageError(f"Expected {type(self).__name__} to define accuracy(Y_hat, Y). It does not.")

    def training_step(self, batch: tuple[Array, ...]) -> Array:
        """Return the loss of a batch, and report it with the accuracy under dropout."""
        Y_hat = self(*batch[:-1])
        loss = self.loss(Y_hat, batch[-1])
        self.report({"loss": loss, "acc": self.accuracy(Y_hat, batch[-1])}, train=True)
        return loss

    def validation_step(self, batch: tuple[Array, ...]) -> None:
        """Report the loss and the accuracy of a batch of the validation data."""
        Y_hat = self(*batch[:-1])
        loss = self.loss(Y_hat, batch[-1])
        self.report({"loss": loss, "acc": self.accuracy(Y_hat, batch[-1])}, train=False)


class BaseRegressor(BaseModule):
    """The part of `Regressor` that is the same in every framework: labels are real numbers, not classes."""

    is_regression = True
    plotted = {"loss": "squared error / 2"}  # noqa: RUF012 - as above


class BaseMLP(BaseModule):
    """The part of the chapter's networks that is the same in every framework: hyperparameters and hidden layers.

    Subclasses make the layers in `setup`, which the constructor calls.

    Parameters
    ----------
    num_outputs, num_hiddens_1, num_hiddens_2
        Widths of the layers.
    dropout_1, dropout_2
        Probabilities of dropping an activation.
    lr
        Learning rate.
    num_hiddens, dropouts
        In place of the four numbers above: the widths of any number of hidden layers, and as many probabilities.
    weight_decay, momentum, optimizer
        The optimiser, `"sgd"`, `"adam"` or `"adamw"`, and its settings, see `d2ldrop.training.optimizers.chosen`.
    class_weights
        How much samples of each class count in the loss, a number of at least 0 per class; None: all the same.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If one of them is not what is said above, or hidden layers are given in both forms, or in half of one.
    """

    host_init = True
    num_hiddens_1: int | None = None
    num_hiddens_2: int | None = None
    dropout_1: float | None = None
    dropout_2: float | None = None
    num_hiddens: Sequence[int] | None = None
    dropouts: Sequence[float] | None = None

    if TYPE_CHECKING:

        def setup(self) -> None:
            """Make the layers."""

    def __init__(
        self,
        num_outputs: int,
        num_hiddens_1: int | None = None,
        num_hiddens_2: int | None = None,
        dropout_1: float | None = None,
        dropout_2: float | None = None,
        lr: float | None = None,
        *,
        num_hiddens: Sequence[int] | None = None,
        dropouts: Sequence[float] | None = None,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        optimizer: str = "sgd",
        class_weights: Sequence[float] | None = None,
    ):
        super().__init__()
        self.save_hyperparameters(check=True)
        self.setup()

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """The width of each hidden layer, in whichever form they were given."""
        if self.num_hiddens_1 is None or self.num_hiddens_2 is None:
            return tuple(self.num_hiddens or ())
        return self.num_hiddens_1, self.num_hiddens_2

    @property
    def hidden_dropouts(self) -> tuple[float, ...]:
        """The probability of dropping an activation, of each hidden layer."""
        if self.dropout_1 is None or self.dropout_2 is None:
            return tuple(self.dropouts or ())
        return self.dropout_1, self.dropout_2

    @property
    def hidden_layers(self) -> list[tuple[Any, float]]:
        """Each hidden layer with its probability, where they are `lin1`, `lin2`, ... as in the scratch model."""
        names = [f"lin{k}" for k in range(1, len(self.hidden_widths) + 1)]
        return [(getattr(self, name), dropout) for name, dropout in zip(names, self.hidden_dropouts, strict=True)]

    @property
    def output_layer(self) -> Any:
        """The last of the layers `lin1`, `lin2`, ..."""
        return getattr(self, f"lin{len(self.hidden_widths) + 1}")

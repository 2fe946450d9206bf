"""What the models of all frameworks share: hyperparameters, steps, and how their numbers reach the trainer."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from d2ldrop.backend import Array, Metrics
from d2ldrop.board import ProgressBoard
from d2ldrop.errors import UsageError
from d2ldrop.hyperparameters import HyperParameters

if TYPE_CHECKING:
    from d2ldrop.trainer import Trainer

_recording: ContextVar[Metrics | None] = ContextVar("_recording", default=None)


@contextmanager
def recording() -> Iterator[Metrics]:
    """Collect what `Module.plot` is called with inside the block, as a dictionary of values still on the device.

    It is how a step that runs many times, or is traced by a compiler, hands its metrics out without waiting for them.
    """
    metrics: Metrics = {}
    token = _recording.set(metrics)
    try:
        yield metrics
    finally:
        _recording.reset(token)


class BaseModule(HyperParameters):
    """The part of `Module` that is the same in every framework; each adapter adds its framework's own base class."""

    backend: Any
    plot_train_per_epoch: int = 2
    plot_valid_per_epoch: int = 1
    host_init: bool = False
    """Whether a trainer with a seed draws the initial weights on the host, the same for every framework."""

    trainer: "Trainer | None" = None
    _board: ProgressBoard | None = None

    if TYPE_CHECKING:

        def __call__(self, *inputs: Array) -> Array:
            """Tell the type checker that the framework's base class makes models callable."""

    @property
    def board(self) -> ProgressBoard:
        """The plot that training draws; made when it is first asked for."""
        if self._board is None:
            self._board = ProgressBoard(xlabel="epoch")
        return self._board

    @board.setter
    def board(self, board: ProgressBoard) -> None:
        self._board = board

    def plot(self, key: str, value: Array, train: bool) -> None:
        """Report a number of the current batch, to be averaged over samples, plotted, and kept in the history.

        Parameters
        ----------
        key
            What the number is, such as `"loss"`; the curve's label is `train_` or `val_` followed by it.
        value
            A scalar on any device; nothing waits for it here.
        train
            Whether it belongs to training or to validation.

        Raises
        ------
        UsageError
            If nobody listens: the model was not handed to a trainer.
        """
        metrics = _recording.get()
        if metrics is not None:
            metrics[key] = value
        elif self.trainer is not None:
            self.trainer.log(key, value, train)
        else:
            raise UsageError("Expected the model to be in training when it plots. Call trainer.fit(model, data) first.")

    def training_step(self, batch: tuple[Array, ...]) -> Array:
        """Return the loss of a batch, from which the trainer takes the gradient."""
        loss = self.loss(self(*batch[:-1]), batch[-1])
        self.plot("loss", loss, train=True)
        return loss

    def validation_step(self, batch: tuple[Array, ...]) -> None:
        """Report the loss of a batch that is not trained on."""
        self.plot("loss", self.loss(self(*batch[:-1]), batch[-1]), train=False)

    def loss(self, y_hat: Array, y: Array) -> Array:
        """Return how wrong the outputs `y_hat` are, given the labels `y`: a scalar."""
        raise UsageError(f"Expected {type(self).__name__} to define loss(y_hat, y). It does not.")

    def configure_optimizers(self) -> Any:
        """Return the optimiser that training shall use, in the framework's own form."""
        raise UsageError(f"Expected {type(self).__name__} to define configure_optimizers(). It does not.")


class BaseClassifier(BaseModule):
    """The part of `Classifier` that is the same in every framework."""

    def accuracy(self, Y_hat: Array, Y: Array, averaged: bool = True) -> Array:
        """Return the fraction of samples whose largest output is at their label; per sample if not `averaged`."""
        raise UsageError(f"Expected {type(self).__name__} to define accuracy(Y_hat, Y). It does not.")

    def training_step(self, batch: tuple[Array, ...]) -> Array:
        """Return the loss of a batch, and report it with the accuracy under dropout."""
        Y_hat = self(*batch[:-1])
        loss = self.loss(Y_hat, batch[-1])
        self.plot("loss", loss, train=True)
        self.plot("acc", self.accuracy(Y_hat, batch[-1]), train=True)
        return loss

    def validation_step(self, batch: tuple[Array, ...]) -> None:
        """Report the loss and the accuracy of a batch that is not trained on."""
        Y_hat = self(*batch[:-1])
        self.plot("loss", self.loss(Y_hat, batch[-1]), train=False)
        self.plot("acc", self.accuracy(Y_hat, batch[-1]), train=False)

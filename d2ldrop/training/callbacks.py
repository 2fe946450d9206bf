"""Hooks into training: subclass `Callback`, override the hooks that you need, and pass an instance to the trainer."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from d2ldrop.errors import ArgumentError, ArgumentTypeError
from d2ldrop.hyperparameters import number, positive

__all__ = ["Callback", "EarlyStopping", "LRSchedule", "Training", "epochs_since_best"]


class Training(Protocol):
    """What callbacks see of a `Trainer`, among other attributes."""

    max_epochs: int
    state: Any
    history: list[dict[str, float]]
    should_stop: bool

    @property
    def progressed(self) -> float:
        """How many epochs of training are done, fractions included."""

    def __getattr__(self, name: str) -> Any: ...


class Callback:
    """Base of callbacks: every hook does nothing. `trainer` is the `Trainer` that calls them."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def on_fit_start(self, trainer: Training) -> None:
        """Call before the first epoch, when model and data are ready."""

    def on_epoch_start(self, trainer: Training) -> None:
        """Call before each epoch."""

    def on_refresh(self, trainer: Training) -> None:
        """Call when new metrics were fetched from the device, a few times per epoch."""

    def on_epoch_end(self, trainer: Training) -> None:
        """Call after each epoch; its metrics are in `trainer.history[-1]`. Set `trainer.should_stop` to end there."""

    def on_fit_end(self, trainer: Training) -> None:
        """Call when training ends, also by an error or an interrupt; the last callback is called first."""

    def state(self) -> dict[str, np.ndarray]:
        """Return what the callback needs from one epoch to the next, besides the history, for checkpoints."""
        return {}

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what `state` returned, before `on_fit_start`."""


class EarlyStopping(Callback):
    """Stop when a number has not improved for some epochs.

    Parameters
    ----------
    monitor
        A key of the history's rows. One that ends in `acc` should grow, any other shrink.
    patience
        After how many epochs without improvement to stop.
    min_delta
        By how much it must change to count as an improvement.
    restore_best
        Whether the model gets the weights of the best epoch when training ends.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, restore_best: bool = False
    ):
        self.monitor, self.patience = monitor, positive("patience", patience)
        self.min_delta, self.restore_best = number("min_delta", min_delta), restore_best
        self._best: dict[str, np.ndarray] | None = None
        self._resumed = False

    def on_fit_start(self, trainer: Training) -> None:
        """Forget the weights of another training; look at the history of one that was resumed."""
        self._best, self._resumed = self._best if self._resumed else None, False
        if trainer.history:
            self.on_epoch_end(trainer)

    def on_epoch_end(self, trainer: Training) -> None:
        """Compare with the best value so far, and stop after `patience` epochs without improvement."""
        waited = epochs_since_best(trainer.history, self.monitor, self.min_delta)
        if self.restore_best and waited == 0:
            self._best = trainer.backend.get_weights(trainer.model)
        trainer.should_stop = trainer.should_stop or waited >= self.patience

    def on_fit_end(self, trainer: Training) -> None:
        """Let the model have the weights of the best epoch, if asked for."""
        if self._best is not None:
            trainer.backend.set_weights(trainer.model, self._best)

    def state(self) -> dict[str, np.ndarray]:
        """Return the weights of the best epoch, if they are wanted."""
        return self._best or {}

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over the weights of the best epoch."""
        self._best, self._resumed = arrays or None, True


class LRSchedule(Callback):
    """Set the learning rate of each epoch.

    Parameters
    ----------
    schedule
        A function of the epoch, counted from 0, that returns its learning rate, a number of at least 0.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `schedule` is no function; when an epoch begins, if it returns something else.
    UsageError
        When training begins, if the rate of the model's optimiser cannot be set. That of the model's own can, and of
        one by hand, such as `SGD`, that has a number as its attribute `lr`. With Optax, one of the reader's own is made
        by `optax.inject_hyperparams`.

    Examples
    --------
    >>> from d2ldrop import Trainer, numpy as d2l
    >>> halved = LRSchedule(lambda epoch: 0.5 * 0.5**epoch)
    >>> trainer = Trainer(max_epochs=3, seed=0, callbacks=[halved])
    >>> trainer.fit(d2l.SoftmaxRegression(num_outputs=10, lr=0.5), d2l.Digits())
    >>> trainer.optim.lr
    0.125
    """

    lr: float | None = None
    """The learning rate of the current or last epoch."""

    def __init__(self, schedule: Callable[[int], float]):
        if not callable(schedule):
            raise ArgumentTypeError(f"Expected schedule to be a function of the epoch. Received: {schedule!r}")
        self.schedule = schedule

    def on_epoch_start(self, trainer: Training) -> None:
        """Set the learning rate of this epoch, also of one with which a resumed training goes on."""
        self.lr = number(f"the learning rate of epoch {trainer.epoch}", self.schedule(trainer.epoch))
        trainer.state = trainer.backend.set_lr(trainer.state, self.lr)


def epochs_since_best(history: Sequence[Mapping[str, float]], monitor: str, min_delta: float = 0.0) -> int:
    """Return how many epochs ago a number was at its best: 0 if in the last row.

    Examples
    --------
    >>> epochs_since_best([{"val_loss": 3}, {"val_loss": 1}, {"val_loss": 2}], "val_loss")
    1
    """
    if monitor not in history[-1]:
        raise ArgumentError(f"Expected a number among {', '.join(history[-1])}. Received: {monitor!r}")
    sign = -1 if monitor.endswith("acc") else 1
    best, waited = math.inf, 0
    for row in history:
        value = sign * row[monitor]
        best, waited = (value, 0) if value < best - min_delta else (best, waited + 1)
    return waited

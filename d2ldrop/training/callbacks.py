"""Hooks into training: subclass `Callback`, override the hooks that you need, and pass an instance to the trainer."""

import csv
import math
import os
from typing import Any, Protocol

from d2ldrop.errors import ArgumentError
from d2ldrop.files import replacing


class Training(Protocol):
    """What callbacks see of a `Trainer`, among other attributes."""

    max_epochs: int
    history: list[dict[str, float]]
    should_stop: bool

    @property
    def progressed(self) -> float:
        """How many epochs of training are done, fractions included."""

    def __getattr__(self, name: str) -> Any: ...


class Callback:
    """Base of callbacks: every hook does nothing. `trainer` is the `Trainer` that calls them."""

    def on_fit_start(self, trainer: Training) -> None:
        """Call before the first epoch, when model and data are ready."""

    def on_epoch_start(self, trainer: Training) -> None:
        """Call before each epoch."""

    def on_refresh(self, trainer: Training) -> None:
        """Call when new metrics were fetched from the device, a few times per epoch."""

    def on_epoch_end(self, trainer: Training) -> None:
        """Call after each epoch; its metrics are in `trainer.history[-1]`. Set `trainer.should_stop` to end there."""

    def on_fit_end(self, trainer: Training) -> None:
        """Call when training ends, also by an error or an interrupt."""


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
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0):
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta

    def on_fit_start(self, trainer: Training) -> None:
        """Reset the best value and the count of epochs without improvement."""
        self.best, self.waited = math.inf, 0

    def on_epoch_end(self, trainer: Training) -> None:
        """Compare with the best value so far, and stop after `patience` epochs without improvement."""
        row = trainer.history[-1]
        if self.monitor not in row:
            raise ArgumentError(f"Expected monitor to be one of {', '.join(row)}. Received: {self.monitor!r}")
        value = -row[self.monitor] if self.monitor.endswith("acc") else row[self.monitor]
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
            trainer.should_stop = trainer.should_stop or self.waited >= self.patience


class CSVLog(Callback):
    """Keep the history in a CSV file, complete after each epoch.

    Parameters
    ----------
    path
        The file; what was there is replaced after the first epoch.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path

    def on_epoch_end(self, trainer: Training) -> None:
        """Write the history so far."""
        columns = list(dict.fromkeys(key for row in trainer.history for key in row))
        with replacing(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(trainer.history)

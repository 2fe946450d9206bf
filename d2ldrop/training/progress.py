"""How a training is shown in a terminal: a bar with the latest metrics, or a line per epoch."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from d2ldrop.plots.board import in_notebook
from d2ldrop.training.callbacks import Callback, Training

__all__ = ["Clock", "EpochLines", "ProgressBar", "in_terminal", "shown"]


def in_terminal() -> bool:
    """Return True if standard error is a terminal in which a line can be drawn again."""
    return _attached() and os.environ.get("TERM") != "dumb"


def _attached() -> bool:
    """Return True if standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def shown(progress: bool | None) -> list[Callback]:
    """Return what shows a training besides the board: a bar where it can be drawn, else lines, or nothing.

    Parameters
    ----------
    progress
        False for nothing, True for lines also where no terminal is, None to decide by that.
    """
    if progress is False or in_notebook():
        return []
    if in_terminal():
        return [ProgressBar()]
    return [EpochLines()] if progress or _attached() else []


class EpochLines(Callback):
    """Report a line per epoch.

    Parameters
    ----------
    report
        What takes the lines; by default they go to standard error.
    """

    def __init__(self, report: Callable[[str], None] | None = None):
        self.report = report or (lambda line: print(line, file=sys.stderr, flush=True))

    def on_epoch_end(self, trainer: Training) -> None:
        """Report the metrics of the last epoch."""
        row = trainer.history[-1]
        numbers = ", ".join(f"{key} {value:.4f}" for key, value in row.items() if key.startswith(("train_", "val_")))
        self.report(f"epoch {row['epoch']}/{trainer.max_epochs}: {numbers}, {row['seconds']:.2f} s")


class Clock:
    """The time that a training will still take, or has taken, as a text that is new whenever it is drawn.

    Parameters
    ----------
    done
        How many epochs are done when it starts, as a training that is resumed has some.

    Examples
    --------
    >>> clock = Clock(0.0)
    >>> str(clock)
    '0:00'
    >>> clock.move(0.5, total=1)
    >>> str(clock)
    '0:00 left'
    """

    def __init__(self, done: float):
        self._started, self._first = time.perf_counter(), done
        self._ends: float | None = None

    def move(self, done: float, total: float) -> None:
        """Take what is done for the rate of all that is to do; nothing is known before something is done."""
        now = time.perf_counter()
        if done > self._first:
            self._ends = now + (now - self._started) / (done - self._first) * (total - done)

    def stop(self) -> None:
        """Show the time that was taken, from now on."""
        self._ends = None

    def __str__(self) -> str:
        now = time.perf_counter()
        seconds = round(now - self._started if self._ends is None else max(0.0, self._ends - now))
        return f"{seconds // 60}:{seconds % 60:02}{'' if self._ends is None else ' left'}"


class ProgressBar(Callback):
    """Show how far training is, its metrics and the time left, in one line that stays at the end."""

    _bar: Any = None

    def on_fit_start(self, trainer: Training) -> None:
        """Open the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = Clock(trainer.progressed)
        texts = [TextColumn(f"{{task.fields[{name}]}}") for name in ("epoch", "numbers", "clock")]
        self._bar = Progress(texts[0], BarColumn(8), *texts[1:], console=Console(stderr=True))
        self._task = self._bar.add_task("", total=trainer.max_epochs, epoch="", numbers="", clock=self._clock)
        self._show(trainer, {})
        self._bar.start()

    def on_refresh(self, trainer: Training) -> None:
        """Show how far the epoch is, and its metrics up to here."""
        self._show(trainer, trainer.epoch_log.means())

    def on_epoch_end(self, trainer: Training) -> None:
        """Show the epoch's metrics."""
        self._show(trainer, {})

    def on_fit_end(self, trainer: Training) -> None:
        """Stop updating the line; it stays in the terminal, with the time that training took."""
        if self._bar is not None:
            self._clock.stop()
            self._bar.stop()

    def _show(self, trainer: Training, running: Mapping[str, float]) -> None:
        """Draw the line again, with what is known of the current epoch and, of the rest, what the last one had."""
        row = {**(trainer.history[-1] if trainer.history else {}), **running}
        numbers = " ".join(f"{key} {row[key]:.3f}" for key in ("train_loss", "val_loss", "val_acc") if key in row)
        epoch = f"epoch {max(trainer.epoch + 1, len(trainer.history))}/{trainer.max_epochs}"
        self._clock.move(trainer.progressed, trainer.max_epochs)
        self._bar.update(self._task, completed=trainer.progressed, epoch=epoch, numbers=numbers)

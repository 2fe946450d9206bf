"""A progress bar for terminals, with the latest metrics beside it."""

import os
import sys
from typing import Any

from d2ldrop.training.callbacks import Callback, Training


def in_terminal() -> bool:
    """Return True if standard error is a terminal in which a line can be drawn again."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class ProgressBar(Callback):
    """Show how far training is, and its metrics, in one line that stays at the end."""

    _bar: Any = None

    def on_fit_start(self, trainer: Training) -> None:
        """Open the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(8), TextColumn("{task.fields[numbers]}"))
        self._bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self._task = self._bar.add_task("", total=trainer.max_epochs, epoch=f"0/{trainer.max_epochs}", numbers="")
        self._bar.start()

    def on_refresh(self, trainer: Training) -> None:
        """Move the bar within the epoch."""
        self._bar.update(self._task, completed=trainer.progressed)

    def on_epoch_end(self, trainer: Training) -> None:
        """Show the epoch's metrics."""
        row = trainer.history[-1]
        shown = ("train_loss", "val_loss", "val_acc")  # what fits into 80 columns
        numbers = " ".join(f"{key} {row[key]:.3f}" for key in shown if key in row)
        numbers += f" {row['samples_per_second'] / 1000:.0f}k/s"
        done = row["epoch"]
        self._bar.update(self._task, completed=done, epoch=f"{done}/{trainer.max_epochs}", numbers=numbers)

    def on_fit_end(self, trainer: Training) -> None:
        """Stop updating the line; it stays in the terminal."""
        if self._bar is not None:
            self._bar.stop()

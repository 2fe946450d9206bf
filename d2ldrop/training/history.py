"""The history of a training where people look for it: CSV, JSON, JSON Lines, and TensorBoard."""

import csv
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from d2ldrop.errors import ArgumentError, need
from d2ldrop.files import as_json, is_stream, replacing
from d2ldrop.training.callbacks import Callback, Training

__all__ = ["ENDINGS", "CSVLog", "HistoryLog", "JSONLinesLog", "Row", "TensorBoardLog", "tag_of", "write_history"]

Row = Mapping[str, float]

ENDINGS = (".csv", ".json", ".jsonl")
"""What the names of history files end in, which says in which format they are written."""


class HistoryLog(Callback):
    """Keep the history in a file that is complete after each epoch.

    Parameters
    ----------
    path
        The file. Its name ends in .csv, .json (a list of rows) or .jsonl (a row per line); a pipe or a device gets CSV.
        What was there is replaced after the first epoch.

    Raises
    ------
    ArgumentError
        If the name ends in something else.
    """

    def __init__(self, path: str | os.PathLike[str]):
        _check_ending(path, ENDINGS)
        self.path = path

    def on_epoch_end(self, trainer: Training) -> None:
        """Write the history so far."""
        write_history(trainer.history, self.path)


CSVLog = HistoryLog
"""The name that it had when it wrote CSV alone."""


class JSONLinesLog(Callback):
    """Append a line of JSON to a file after each epoch, for programs that follow it (`tail -f`, log collectors).

    A new training begins the file anew; a training that is resumed goes on in it, without epochs that are there twice.

    Parameters
    ----------
    path
        The file, whose name ends in .jsonl, or a pipe or a device.

    Raises
    ------
    ArgumentError
        If the name ends in something else.
    """

    def __init__(self, path: str | os.PathLike[str]):
        _check_ending(path, (".jsonl",))
        self.path = path

    def on_fit_start(self, trainer: Training) -> None:
        """Begin the file; of a resumed training with the epochs to which the checkpoint belongs."""
        if trainer.history or not is_stream(self.path):
            with replacing(self.path) as temporary, open(temporary, "w", encoding="utf-8") as file:
                _write_lines(trainer.history, file)

    def on_epoch_end(self, trainer: Training) -> None:
        """Append the last row."""
        with open(self.path, "a", encoding="utf-8") as file:  # it is flushed when it is closed
            _write_lines(trainer.history[-1:], file)


class TensorBoardLog(Callback):
    """Write the history as scalars for TensorBoard: `train/loss`, `val/acc`, ..., with the epochs as steps.

    Look at them with `tensorboard --logdir FOLDER`. The package `tensorboard` writes them (the extra `tensorboard`),
    which needs neither TensorFlow nor PyTorch.

    Parameters
    ----------
    folder
        Where the file of events goes; it is made if it is missing. Give each training one of its own, side by side in
        one folder, to compare them. Where there are events of an earlier training, TensorBoard shows the last one; a
        training that is resumed goes on after the epochs that it has.

    Raises
    ------
    MissingPackageError
        If `tensorboard` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        need("tensorboard", "tensorboard", "TensorBoardLog")
        self.folder = Path(folder)
        self._writer: Any = None

    def on_fit_start(self, trainer: Training) -> None:
        """Begin a file of events; what has been written of later epochs does not count any more."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)  # files are read in the order of their names
        name = f"events.out.tfevents.{seconds:010}.{nanoseconds:09}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter(open(self.folder / name, "xb"))  # noqa: SIM115 - closed when training ends
        self._write(file_version="brain.Event:2")
        self._write(session_log=SessionLog(status=SessionLog.START), step=len(trainer.history) + 1)

    def on_epoch_end(self, trainer: Training) -> None:
        """Write the numbers of the last row."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        row = trainer.history[-1]
        values = [Summary.Value(tag=tag_of(key), simple_value=value) for key, value in row.items() if key != "epoch"]
        self._write(summary=Summary(value=values), step=int(row["epoch"]))

    def on_fit_end(self, trainer: Training) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._writer.flush()


def tag_of(key: str) -> str:
    """Return the name under which TensorBoard shows a number, which groups by what is before the stroke.

    Examples
    --------
    >>> tag_of("val_loss"), tag_of("samples_per_second")
    ('val/loss', 'samples_per_second')
    """
    return key.replace("_", "/", 1) if key.startswith(("train_", "val_")) else key


def write_history(history: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write the rows of a history to a file, in the format of its ending: .json, .jsonl, or else CSV.

    In JSON, which has no nan and infinity, such numbers become null.
    """
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        ending = Path(path).suffix
        if ending == ".json":
            json.dump([*map(as_json, history)], file, indent=1)
        elif ending == ".jsonl":
            _write_lines(history, file)
        else:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in history for key in row)))
            writer.writeheader()
            writer.writerows(history)


def _write_lines(history: Sequence[Row], file: TextIO) -> None:
    """Write rows as JSON, a line each."""
    for row in history:
        file.write(json.dumps(as_json(row)) + "\n")


def _check_ending(path: str | os.PathLike[str], endings: Sequence[str]) -> None:
    """Raise an ArgumentError if the name of a file does not end in one of some endings."""
    if Path(path).suffix not in endings and not is_stream(path):
        raise ArgumentError(f"Expected a name that ends in {', '.join(endings)}. Received: {os.fspath(path)!r}")

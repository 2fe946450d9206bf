"""The history in files: formats by the ending, lines that are appended, and TensorBoard's events."""

import csv
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import ArgumentError, Checkpoint, CSVLog, HistoryLog, JSONLinesLog, TensorBoardLog
from d2ldrop.training.history import write_history

NUMPY = d2ldrop.backend("numpy")


def read(path):
    """Return the rows of a history file."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_the_ending_says_the_format(ending, small, tmp_path):
    path = tmp_path / f"h.{ending}"
    trainer, _ = fitted(NUMPY, small, epochs=2, callbacks=[HistoryLog(path)])
    assert read(path) == trainer.history
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_another_ending_is_refused_before_training(tmp_path):
    for name in ("h.txt", "h", "h.CSV.gz", "jsonl"):
        with pytest.raises(ArgumentError, match=r"ends in \.csv, \.json, \.jsonl\. Received: .*" + name):
            HistoryLog(tmp_path / name)
    for name in ("h.json", "h.csv"):
        with pytest.raises(ArgumentError, match=r"ends in \.jsonl\. Received"):
            JSONLinesLog(tmp_path / name)
    assert HistoryLog("/dev/null").path == JSONLinesLog("/dev/null").path == "/dev/null"
    assert CSVLog is HistoryLog


def test_json_has_null_for_what_is_not_finite(tmp_path):
    for ending in ("json", "jsonl"):
        path = tmp_path / f"h.{ending}"
        write_history([{"epoch": 1, "val_loss": math.nan}, {"epoch": 2, "val_loss": -math.inf}], path)
        assert read(path) == [{"epoch": 1, "val_loss": None}, {"epoch": 2, "val_loss": None}]


class Lines(d2ldrop.Callback):
    """Counts the lines of a file after each epoch."""

    def __init__(self, path):
        self.path, self.counts = path, []

    def on_epoch_end(self, trainer):
        text = self.path.read_text()
        assert text.endswith("\n")
        self.counts.append(len(text.splitlines()))


def test_json_lines_are_there_after_each_epoch(small, tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text("of an earlier training\n")
    lines = Lines(path)
    trainer, _ = fitted(NUMPY, small, epochs=3, callbacks=[JSONLinesLog(path), lines])
    assert lines.counts == [1, 2, 3]
    assert read(path) == trainer.history


def resumed(small, tmp_path, log):
    """Train 2 epochs, of which the checkpoint has 1, and go on to 4; return the history."""
    folder = tmp_path / "ck"
    fitted(NUMPY, small, epochs=2, callbacks=[log(), Checkpoint(folder, keep=9)])
    (folder / "epoch-00002.safetensors").unlink()
    trainer = d2ldrop.Trainer(4, seed=0, progress=False, callbacks=[log(), Checkpoint(folder)])
    trainer.fit(NUMPY.DropoutMLPScratch(**small), NUMPY.Digits(), resume=folder)
    assert [row["epoch"] for row in trainer.history] == [1, 2, 3, 4]
    return trainer.history


def test_a_pipe_gets_json_lines_of_a_resumed_training_too(small, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    holding = os.open(path, os.O_RDWR)  # so that it stays open from line to line
    trainer = d2ldrop.Trainer(1, progress=False)
    trainer.history = [{"epoch": 1, "val_loss": 0.5}]
    log = JSONLinesLog(path)
    log.on_fit_start(trainer)
    log.on_epoch_end(trainer)
    received = os.read(holding, 10_000).decode().splitlines()
    os.close(holding)
    assert [json.loads(line) for line in received] == trainer.history * 2


def test_json_lines_go_on_where_a_training_is_resumed(small, tmp_path):
    path = tmp_path / "h.jsonl"
    history = resumed(small, tmp_path, lambda: JSONLinesLog(path))
    assert read(path) == history


def scalars(folder):
    """Return what TensorBoard reads in a folder: tag -> [(step, value), ...]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def tensorboard():
    """Skip where TensorBoard is not installed."""
    return pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


def test_tensorboard_reads_the_scalars_of_each_epoch(tensorboard, small, tmp_path):
    trainer, _ = fitted(NUMPY, small, epochs=2, callbacks=[TensorBoardLog(tmp_path / "runs" / "a")])
    found = scalars(tmp_path / "runs" / "a")
    assert set(found) == {"train/loss", "train/acc", "val/loss", "val/acc", "seconds", "samples_per_second"}
    for tag in ("train/loss", "val/acc"):
        expected = [(row["epoch"], pytest.approx(row[tag.replace("/", "_")])) for row in trainer.history]
        assert found[tag] == expected


def test_tensorboard_shows_each_epoch_once(tensorboard, small, tmp_path):
    history = resumed(small, tmp_path, lambda: TensorBoardLog(tmp_path / "runs"))
    assert scalars(tmp_path / "runs")["val/loss"] == [(row["epoch"], pytest.approx(row["val_loss"])) for row in history]
    trainer, _ = fitted(NUMPY, small, epochs=1, callbacks=[TensorBoardLog(tmp_path / "runs")])  # a new training
    assert scalars(tmp_path / "runs")["val/loss"] == [(1, pytest.approx(trainer.history[0]["val_loss"]))]


def test_tensorboard_closes_its_file_when_training_fails(tensorboard, tmp_path):
    log = TensorBoardLog(tmp_path)
    log.on_fit_start(SimpleNamespace(history=[]))
    handle = log._writer._writer
    log.on_fit_end(SimpleNamespace())
    assert handle.closed
    log.on_fit_end(SimpleNamespace())


def test_tensorboard_needs_no_other_framework(tensorboard, tmp_path):
    code = (
        "import sys, d2ldrop\n"
        "from d2ldrop import numpy as d2l\n"
        "from types import SimpleNamespace as Namespace\n"
        f"log = d2ldrop.TensorBoardLog({str(tmp_path)!r})\n"
        "log.on_fit_start(Namespace(history=[]))\n"
        "log.on_epoch_end(Namespace(history=[{'epoch': 1, 'val_loss': 0.5}]))\n"
        "log.on_fit_end(Namespace())\n"
        "assert not {'tensorflow', 'torch', 'jax'} & {*sys.modules}, sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
    assert scalars(tmp_path) == {"val/loss": [(1, 0.5)]}


def test_a_missing_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        d2ldrop.MissingPackageError, match=r"'tensorboard', which is not.*pip install '\.\[tensorboard\]'"
    ):
        TensorBoardLog(tmp_path)
    with pytest.raises(ImportError, match=r"pip install '\.\[csv\]'"):
        d2ldrop.CSVData("x.csv", "y")

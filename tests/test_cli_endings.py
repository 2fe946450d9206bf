"""However `d2ldrop train` ends, by a signal, an error or output that cannot be written, what was trained is kept."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import QUICK, run_cli

import d2ldrop
from d2ldrop import Digits, Trainer
from d2ldrop.cli import commands

OUTPUTS = {"--save": "w.safetensors", "--plot": "p.svg", "--history": "h.json"}


def outputs(folder):
    """Return options to write everything into a folder."""
    return [str(word) for option, name in OUTPUTS.items() for word in (option, folder / name)]


def check_outputs(folder, epochs):
    """Check that weights, plot and history are there, and belong to the same epoch."""
    rows = json.loads((folder / "h.json").read_text())
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
    model = d2ldrop.load_model(folder / "w.safetensors", "numpy")
    assert Trainer(1, progress=False).evaluate(model, Digits())["val_loss"] == pytest.approx(rows[-1]["val_loss"])
    assert b"<svg" in (folder / "p.svg").read_bytes()


def test_train_saves_weights_after_an_interrupt(monkeypatch, tmp_path, capsys):
    class Interrupting(commands.EpochLines):
        def on_refresh(self, trainer):
            if trainer.epoch == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(commands, "EpochLines", Interrupting)
    assert run_cli("train", "--backend", "numpy", *QUICK, *outputs(tmp_path)) == 130
    assert capsys.readouterr().err == "d2ldrop train: ended by SIGINT after 2 of 5 epochs\n"
    check_outputs(tmp_path, epochs=2)


def started(name, handler, *options):
    """Return a training that has done an epoch, begun with a handler of a signal, whatever this process does."""
    code = f"import signal, sys; from d2ldrop.cli.main import main; signal.signal(signal.{name}, signal.{handler}); "
    arguments = ["train", "--backend", "numpy", *QUICK, *options]
    command = [sys.executable, "-c", f"{code}sys.exit(main(sys.argv[1:]))", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not process.stdout.readline().startswith("epoch 2/"):
        assert process.poll() is None
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_training_and_what_was_trained_is_written(name, tmp_path):
    number, endless = getattr(signal, name), ["--epochs", "100000", "--checkpoint", str(tmp_path / "ck")]
    handler = "default_int_handler" if name == "SIGINT" else "SIG_DFL"
    process = started(name, handler, *endless, *outputs(tmp_path))
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert errors.count("\n") == 1
    epochs = int(re.search(rf"ended by {name} after (\d+) of 100000 epochs", errors).group(1))
    check_outputs(tmp_path, epochs)
    assert (tmp_path / "ck" / f"epoch-{epochs:05}.safetensors").exists()


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As `nohup` starts programs."""
    process = started("SIGHUP", "SIG_IGN", "--epochs", "30")
    process.send_signal(signal.SIGHUP)
    assert "epoch 30/30" in process.communicate()[0]
    assert process.returncode == 0


def test_train_resumes_from_a_checkpoint(tmp_path, capsys):
    command = ["train", "--backend", "numpy", *QUICK, "--checkpoint", tmp_path / "ck", "--resume"]
    assert run_cli(*command[:-3], "--save", tmp_path / "whole") == 0
    assert run_cli(*command, "--epochs", "2") == 0
    capsys.readouterr()
    assert run_cli(*command, "--save", tmp_path / "resumed", "--history", tmp_path / "h.csv") == 0
    shown = capsys.readouterr().out
    assert "epoch 2/5" not in shown
    assert "epoch 3/5" in shown
    assert len((tmp_path / "h.csv").read_text().splitlines()) == 6
    for name, value in d2ldrop.read_weights(tmp_path / "whole")[0].items():
        np.testing.assert_array_equal(d2ldrop.read_weights(tmp_path / "resumed")[0][name], value)
    assert run_cli(*command[:-1]) == 1
    assert "as this training begins anew" in capsys.readouterr().err
    assert run_cli("train", "--backend", "numpy", *QUICK, "--resume") == 2
    assert "--resume needs --checkpoint DIR" in capsys.readouterr().err
    assert (
        run_cli("train", "--backend", "numpy", *QUICK, "--save", tmp_path / "a.csv", "--history", tmp_path / "a.csv")
        == 1
    )
    assert "a file each" in capsys.readouterr().err


def test_divergence_ends_with_1_and_what_was_trained(d2l, tmp_path, capsys):
    options = ["train", "--backend", d2l.name, *QUICK, "--lr", "1e9", *outputs(tmp_path)]
    assert run_cli(*options) == 1
    shown = capsys.readouterr()
    assert "diverged in epoch" in shown.err
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing was trained"


@pytest.mark.parametrize("sink", ["closed pipe", "/dev/full"])
def test_output_that_cannot_be_written_loses_nothing(sink, tmp_path):
    command = [sys.executable, "-m", "d2ldrop", "train", "--backend", "numpy", *QUICK, *outputs(tmp_path)]
    if sink == "closed pipe":
        reader, handle = os.pipe()
        os.close(reader)
    else:
        handle = os.open(sink, os.O_WRONLY)
    done = subprocess.run(command, stdout=handle, stderr=subprocess.PIPE, text=True, check=False)
    os.close(handle)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Standard output could not be written" in done.stderr
    check_outputs(tmp_path, epochs=5)


@pytest.mark.parametrize("failing", OUTPUTS)
def test_each_output_is_written_whether_or_not_the_others_can_be(failing, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    places = {"--save": (commands, "save_weights"), "--history": (commands, "write_history")}
    if failing in places:
        monkeypatch.setattr(*places[failing], fail)
    else:
        monkeypatch.setattr("d2ldrop.plots.board.ProgressBoard.save", fail)
    assert run_cli("train", "--backend", "numpy", *QUICK, *outputs(tmp_path)) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "Could not write the" in shown.err
    for option, name in OUTPUTS.items():
        kept = option == "--history" or option != failing  # the history is written after each epoch as well
        assert (tmp_path / name).exists() == kept


def test_an_output_that_fails_during_training_ends_it_with_what_was_trained(tmp_path, monkeypatch, capsys):
    def fail(self, trainer):
        if trainer.epoch == 2:
            raise OSError(28, "No space left on device", "h.json")

    monkeypatch.setattr(commands.HistoryLog, "on_epoch_end", fail)
    assert run_cli("train", "--backend", "numpy", *QUICK, *outputs(tmp_path)) == 1
    assert "No space left on device" in capsys.readouterr().err
    check_outputs(tmp_path, epochs=3)

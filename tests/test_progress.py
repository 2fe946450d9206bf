"""What a terminal shows of a training: the bar, or lines where it cannot be drawn."""

import re

import pytest
from helpers import fitted

import d2ldrop
from d2ldrop.training import progress
from d2ldrop.training.progress import Clock, EpochLines, ProgressBar, shown


class Watched(ProgressBar):
    """A bar that notes what its line holds after each hook."""

    def __init__(self):
        self.lines = []

    def _show(self, trainer, running):
        super()._show(trainer, running)
        (task,) = self._bar.tasks
        self.lines.append((task.completed, task.fields["epoch"], task.fields["numbers"], str(self._clock)))


def test_the_first_epoch_shows_numbers_and_the_time_left(d2l, small):
    bar = Watched()
    trainer, _ = fitted(d2l, small, epochs=3, callbacks=[bar])
    (_, epoch, numbers, clock), first, *_ = bar.lines
    assert (epoch, numbers, clock) == ("epoch 1/3", "", "0:00")
    assert 0 < first[0] < 1
    assert first[1] == "epoch 1/3"
    assert re.fullmatch(r"train_loss \d\.\d{3}", first[2])
    assert re.fullmatch(r"\d+:\d\d left", first[3])
    done, epoch, numbers, _ = bar.lines[-1]
    assert (done, epoch) == (3, "epoch 3/3")
    assert numbers == " ".join(f"{key} {trainer.history[-1][key]:.3f}" for key in ("train_loss", "val_loss", "val_acc"))
    later = next(line for line in bar.lines if 1 < line[0] < 2)
    assert f"val_loss {trainer.history[0]['val_loss']:.3f}" in later[2]  # the last one, while the next is trained
    assert f"train_loss {trainer.history[0]['train_loss']:.3f}" not in later[2]


def test_the_line_fits_into_80_columns(small, capsys):
    fitted(d2ldrop.backend("numpy"), small, epochs=10, callbacks=[ProgressBar()])
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) + len("00 left") <= 80
    assert re.search(r"^epoch 10/10 .*train_loss .*val_loss .*val_acc .* \d+:\d\d$", line.strip())


def test_the_clock_counts_down_and_then_shows_what_was_taken(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    clock = Clock(2.0)
    now = 107.0
    assert str(clock) == "0:07"
    clock.move(2.0, total=10)
    assert str(clock) == "0:07"  # nothing was done, so nothing is known
    now = 110.0
    clock.move(2.5, total=10)  # half an epoch in 10 s
    assert str(clock) == "2:30 left"
    now = 130.0
    assert str(clock) == "2:10 left"
    now = 1000.0
    assert str(clock) == "0:00 left"
    clock.stop()
    assert str(clock) == "15:00"


@pytest.mark.parametrize(
    ("terminal", "term", "wanted", "kind"),
    [
        (True, "xterm", None, ProgressBar),
        (True, "xterm", False, None),
        (True, "dumb", None, EpochLines),
        (True, "dumb", False, None),
        (False, "xterm", None, None),
        (False, "xterm", True, EpochLines),
    ],
)
def test_what_is_shown_depends_on_the_terminal(terminal, term, wanted, kind, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", term)
    assert [type(callback) for callback in shown(wanted)] == ([kind] if kind else [])


def test_lines_go_to_standard_error(small, capsys):
    fitted(d2ldrop.backend("numpy"), small, epochs=2, progress=True)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("epoch 1/2: train_loss ")
    assert re.search(r", val_acc 0\.\d{4}, \d+\.\d\d s$", second)

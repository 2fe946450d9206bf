"""Curves and pictures, as figures that can be looked into."""

import io
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import d2ldrop
from d2ldrop.plots import board as boards
from d2ldrop.plots.board import ProgressBoard


@pytest.fixture
def notebook(monkeypatch):
    """Pretend to be in a notebook, and return what it displays."""
    from matplotlib import pyplot as plt

    shown = []

    class Handle:
        def update(self, figure):
            shown.append(("update", figure))

    def display(figure, display_id):
        shown.append(("display", figure))
        assert not plt.get_fignums()  # or the notebook would show the figure once more
        return Handle()

    class Events(list):
        def register(self, event, function):
            assert event == "post_execute"
            if function not in self:
                self.append(function)

        def unregister(self, event, function):
            self.remove(function)

    shell = types.SimpleNamespace(events=Events())
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setattr(boards, "kernel", lambda: shell)
    return shown


def test_draw_averages_every_n_points():
    board = ProgressBoard()
    for x in range(10):
        board.draw(x, 2 * x, "a", every_n=4)
    assert board.curves == {"a": ([1.5, 5.5], [3, 11])}


def test_data_holds_the_points_of_each_curve_without_a_display(d2l, small):
    model = d2l.DropoutMLP(**small)
    trainer = d2ldrop.Trainer(2, seed=0, progress=False)
    trainer.fit(model, d2l.Digits())
    assert set(model.board.data) == {"train_loss", "train_acc", "val_loss", "val_acc"}
    assert [point.x for point in model.board.data["val_loss"]] == [1, 2]
    assert model.board.data["val_loss"][-1].y == trainer.history[-1]["val_loss"]
    assert all(0 <= point.y <= 1 for point in model.board.data["train_acc"])


def test_flush_adds_the_points_that_wait_for_others(notebook):
    board = ProgressBoard()
    for x in range(5):
        board.draw(x, 2 * x, "a", every_n=3)
    board.draw(9, 1, "b")
    board.flush()
    assert board.data == {"a": [(1, 2), (3.5, 7)], "b": [(9, 1)]}
    assert board.axes.get_lines()[0].get_xdata() == [1, 3.5]
    board.flush()
    assert len(board.data["a"]) == 2
    board.draw(7, 0, "a", every_n=2)  # a flush begins a new mean
    assert len(board.data["a"]) == 2


def test_board_imports_no_matplotlib_in_a_script():
    code = (
        "import sys; from d2ldrop.plots.board import ProgressBoard; board = ProgressBoard()\n"
        "for x in range(10): board.draw(x, x, 'a')\n"
        "print('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_in_notebook_recognises_jupyter_shells(monkeypatch):
    jupyter = type("ZMQInteractiveShell", (), {})
    shells = {jupyter: True, type("Shell", (jupyter,), {}): True, type("TerminalInteractiveShell", (), {}): False}
    for shell, expected in shells.items():
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=shell))
        assert boards.in_notebook() is expected
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not boards.in_notebook()


def test_board_updates_one_output_with_one_line_per_curve(notebook, monkeypatch):
    monkeypatch.setattr(boards, "SHARE", 1e9)  # redraw at every point
    board = ProgressBoard(xlabel="epoch", xlim=(0, 5))
    for x in range(5):
        for k in range(7):
            board.draw(x, x + k, f"curve {k}")
    board.finish()
    assert [kind for kind, _ in notebook] == ["display"] + ["update"] * (len(notebook) - 1)
    assert len(notebook) > 30
    assert {figure for _, figure in notebook} == {board.fig}
    lines = board.axes.get_lines()
    assert [line.get_label() for line in lines] == [f"curve {k}" for k in range(7)]
    assert lines[6].get_ydata() == [6, 7, 8, 9, 10]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 7
    assert board.axes.get_xlim() == (0, 5)
    assert board.axes.get_ylim()[1] > 10


def test_legend_follows_line_styles(notebook, monkeypatch):
    monkeypatch.setattr(boards, "SHARE", 1e9)
    board = ProgressBoard()
    board.draw(1, 1, "first")  # a single point has a marker, a line has none
    board.draw(1, 2, "second")
    board.draw(2, 1, "first")
    handles = board.axes.get_legend().legend_handles
    assert [handle.get_marker() for handle in handles] == ["", "."]


def test_redrawing_is_throttled(notebook):
    board = ProgressBoard()
    for x in range(2000):
        board.draw(x, x, "a")
    assert 1 <= len(notebook) < 50
    board.finish()
    assert board.axes.get_lines()[0].get_xdata()[-1] == 1999


def test_board_shows_the_last_points_at_the_end_of_a_cell(notebook):
    board = ProgressBoard()
    events = boards.kernel().events
    for cell in (1, 2):
        for x in range(1000):
            board.draw(x, cell, "a")
        assert events == [board.finish]
        events[0]()
        xs, ys = board.axes.get_lines()[0].get_data()
        assert (xs[-1], ys[-1]) == (999, cell)
        assert events == []
    assert [kind for kind, _ in notebook].count("display") == 1
    shown = len(notebook)
    board.finish()
    assert len(notebook) == shown


def test_board_keeps_its_size(notebook):
    board, sizes = ProgressBoard(xlabel="epoch"), set()
    for y in (1, 0.25, -1e-6, 123_456):  # their ticks are of different widths
        board.draw(len(sizes), y, "a")
        board.show()
        file = io.StringIO()
        board.fig.savefig(file, format="svg", bbox_inches="tight")  # as notebooks do
        sizes.add(re.search('width="(.*?)" height="(.*?)"', file.getvalue()).groups())
    assert len(sizes) == 1


def test_board_on_given_axes_removes_old_curves(notebook):
    from matplotlib import pyplot as plt

    for given_by in ("fig", "axes", "both"):
        figure, axes = plt.subplots()
        board = ProgressBoard(**{key: value for key, value in (("fig", figure), ("axes", axes)) if given_by != key})
        for _ in range(3):
            board.draw(1, 2, "a")
            assert (board.fig, board.axes) == (figure, axes)
            assert len(axes.get_lines()) == 1
            board.reset(None, display=True)


def test_board_without_display_draws_nothing(notebook, d2l, small):
    d2ldrop.Trainer(1, seed=0, progress=False).fit(d2l.DropoutMLP(**small), d2l.Digits())
    assert notebook == []


def test_fit_draws_the_board_in_a_notebook(notebook, d2l, small):
    d2ldrop.Trainer(2, seed=0).fit(d2l.DropoutMLP(**small), d2l.Digits())
    assert notebook[0][0] == "display"
    labels = {line.get_label() for line in notebook[-1][1].axes[0].get_lines()}
    assert labels == {"train_loss", "train_acc", "val_loss", "val_acc"}


def test_board_with_one_batch_per_epoch(notebook, d2l, small, tmp_path):
    X, y = d2l.Digits().split(train=True)
    model = d2l.DropoutMLP(**small)
    d2ldrop.Trainer(2, seed=0).fit(model, d2l.ArrayData(X[:50], y[:50], X[50:60], y[50:60], batch_size=64))
    axes = notebook[-1][1].axes[0]
    assert {line.get_label(): len(line.get_xdata()) for line in axes.get_lines()} == {
        "train_loss": 2,
        "train_acc": 2,
        "val_loss": 2,
        "val_acc": 2,
    }
    model.board.save(tmp_path / "curves.png")  # the figure is as it was
    assert len(axes.get_lines()) == len(axes.get_legend().legend_handles) == 4
    assert axes.get_xlabel() == "epoch"
    assert all(line.get_visible() for line in axes.get_xgridlines())


def test_save(tmp_path):
    board = ProgressBoard(xlabel="epoch")
    with pytest.raises(d2ldrop.UsageError, match="at least one point"):
        board.save(tmp_path / "a.png")
    board.draw(1, 2, "a")
    for ending in ("png", "svg", "pdf"):
        board.save(tmp_path / f"a.{ending}")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "a.svg"]


def test_show_images(d2l):
    images = d2l.array(np.random.default_rng(0).random((3, 5, 4), np.float32))
    axes = d2l.show_images(images, 2, 2, titles=["one", "two", "three"])
    assert [axis.get_title() for axis in axes] == ["one", "two", "three", ""]
    np.testing.assert_allclose(axes[2].images[0].get_array(), d2l.numpy(images)[2])
    assert len(d2l.show_images(images, 1, 1)) == 1


def test_plot(d2l):
    x = d2l.arange(5)
    axes = d2l.plot(x, [x, x], "x", "y", legend=["a", "b"], xlim=(0, 4))
    assert [line.get_ydata().tolist() for line in axes.get_lines()] == [[0, 1, 2, 3, 4]] * 2
    assert (axes.get_xlabel(), axes.get_xlim()) == ("x", (0, 4))
    assert len(d2l.plot([1.0, 2.0]).get_lines()[0].get_xdata()) == 2
    d2l.set_figsize((4, 3))
    assert d2l.plt.rcParams["figure.figsize"] == [4, 3]

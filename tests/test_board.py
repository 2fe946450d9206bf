"""Curves and pictures, as figures that can be looked into."""

import io
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import d2ldrop
from d2ldrop.errors import ArgumentTypeError
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


def test_points_are_numbers():
    board = ProgressBoard()
    board.draw(np.float32(1), np.ones(1), "loss")  # of any framework, also in an array of one element
    assert board.data["loss"] == [(1, 1)]
    for x, y in ((0, "x"), (0, None), (None, 0), (0, np.ones(2)), (0, 1j)):
        with pytest.raises(ArgumentTypeError, match="Expected a point's coordinates to be numbers"):
            board.draw(x, y, "loss")


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
    assert lines[6].get_ydata().tolist() == [6, 7, 8, 9, 10]
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


def curves(axes):
    """Return the number of points of each curve of a panel."""
    return {line.get_label(): len(line.get_xdata()) for line in axes.get_lines()}


def test_fit_draws_losses_beside_accuracies(notebook, monkeypatch, d2l, small):
    monkeypatch.setattr(boards, "SHARE", 1e9)
    panels = []
    update = ProgressBoard._update
    monkeypatch.setattr(ProgressBoard, "_update", lambda board: (update(board), panels.append(len(board.fig.axes))))
    d2ldrop.Trainer(2, seed=0).fit(d2l.DropoutMLP(**small), d2l.Digits())
    assert notebook[0][0] == "display"
    assert set(panels) == {2}  # from the first point on
    losses, accuracies = notebook[-1][1].axes
    assert (losses.get_ylabel(), accuracies.get_ylabel()) == ("cross-entropy (nats)", "accuracy")
    assert (losses.get_xlabel(), accuracies.get_xlabel()) == ("epoch", "epoch")
    assert curves(losses) == {"train_loss": 4, "val_loss": 2}
    assert curves(accuracies) == {"train_acc": 4, "val_acc": 2}
    assert losses.get_xlim() == accuracies.get_xlim() == (0, 2)
    for one, other in zip(losses.get_lines(), accuracies.get_lines(), strict=True):
        assert (one.get_color(), one.get_linestyle()) == (other.get_color(), other.get_linestyle())


def test_a_loss_alone_has_one_panel(notebook, d2l, small):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    model = d2l.DropoutMLPRegressor(**small | {"num_outputs": 1})
    d2ldrop.Trainer(1, seed=0).fit(model, d2l.ArrayData(X, X[:, 0], X, X[:, 0], batch_size=20, regression=True))
    assert [axes.get_ylabel() for axes in model.board.fig.axes] == ["squared error / 2"]


def test_a_loss_of_ones_own_has_no_unit(d2l, small):
    class Own(d2l.DropoutMLP):
        def loss(self, *args, **kwargs):
            return super().loss(*args, **kwargs)

    assert Own(**small).board.panels == {"loss": "loss", "acc": "accuracy"}


def test_another_metric_gets_a_panel_when_it_comes(notebook):
    board = ProgressBoard(panels={"loss": "nats"})
    board.draw(1, 2, "train_loss")
    board.finish()
    (handle,) = {figure for _, figure in notebook}
    board.draw(1, 0.1, "lr")
    board.draw(1, 3, "val_f1_score")
    board.draw(1, 4, "val_loss")
    board.finish()
    assert board.fig is handle
    assert [axes.get_ylabel() for axes in board.fig.axes] == ["nats", "lr", "f1_score"]
    assert [curves(axes) for axes in board.fig.axes] == [
        {"train_loss": 1, "val_loss": 1},
        {"lr": 1},
        {"val_f1_score": 1},
    ]


def test_given_axes_hold_all_curves(notebook):
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    board = ProgressBoard(axes=axes, panels={"loss": "loss", "acc": "accuracy"})
    for label in ("train_loss", "train_acc"):
        board.draw(1, 2, label)
    board.finish()
    assert figure.axes == [axes]
    assert curves(axes) == {"train_loss": 1, "train_acc": 1}


def legend_places(axes):
    """Return where each text of a legend is, in inches from the figure's upper left corner."""
    figure = axes.get_figure()
    figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in axes.get_legend().get_texts()}
    height = figure.bbox.height
    return {
        name: (round(box.x0 / figure.dpi, 1), round((height - box.y1) / figure.dpi, 1)) for name, box in boxes.items()
    }


@pytest.mark.parametrize("labels", [("train_loss", "val_loss"), "abc"])
def test_the_legend_does_not_move(notebook, labels):
    board, seen = ProgressBoard(xlim=(0, 9), panels={"loss": "loss"} if len(labels) == 2 else None), []
    for x in range(10):
        for label in labels[: 1 if x < 3 else None]:
            board.draw(x, 5 * (-1) ** (x // 2), label)
        board.show()
        seen.append(legend_places(board.axes))
    assert all(place == seen[-1][name] for places in seen for name, place in places.items())
    assert len(seen[-1]) == len(labels)
    axes, legend = board.axes.get_window_extent(), board.axes.get_legend().get_window_extent()
    assert not axes.overlaps(legend)  # it hides no curve
    assert board.fig.bbox.x1 >= legend.x1


def test_values_that_are_not_finite_are_marked(notebook):
    board = ProgressBoard()
    for x, y in enumerate((1, np.nan, 2, 3, np.inf, np.nan, -np.inf)):
        board.draw(x, y, "a")
    board.draw(0, 1, "b")
    board.show()
    curve, *marks = board.axes.get_lines()[:4]
    assert {mark.get_label(): mark.get_xdata().tolist() for mark in marks} == {"nan": [1, 5], "inf": [4], "-inf": [6]}
    assert {mark.get_color() for mark in marks} == {curve.get_color()}
    assert len({mark.get_marker() for mark in marks}) == 3
    shown = [text.get_text() for text in board.axes.get_legend().get_texts()]
    assert sorted(shown) == ["-inf", "a", "b", "inf", "nan"]
    assert board.axes.get_ylim()[1] < 4  # of the finite values
    assert (curve.get_marker(), curve.get_markevery()) == (".", [0])  # a point between gaps would be invisible
    board.draw(7, np.nan, "a")
    board.show()
    assert marks[0].get_xdata().tolist() == [1, 5, 7]
    assert len(board.axes.get_lines()) == 5


def test_divergence_is_seen_on_the_board(d2l, small):
    model = d2l.DropoutMLP(**small | {"lr": 1e30})
    with pytest.raises(d2ldrop.DivergedError):
        d2ldrop.Trainer(2, seed=0, progress=False).fit(model, d2l.Digits())
    assert not np.isfinite(model.board.data["train_loss"][-1].y)


def test_board_with_one_batch_per_epoch(notebook, d2l, small, tmp_path):
    X, y = d2l.Digits().split(train=True)
    model = d2l.DropoutMLP(**small)
    d2ldrop.Trainer(2, seed=0).fit(model, d2l.ArrayData(X[:50], y[:50], X[50:60], y[50:60], batch_size=64))
    losses, accuracies = notebook[-1][1].axes
    assert curves(losses) == {"train_loss": 2, "val_loss": 2}
    assert curves(accuracies) == {"train_acc": 2, "val_acc": 2}
    model.board.save(tmp_path / "curves.png")  # the figure is as it was
    for axes in (losses, accuracies):
        assert len(axes.get_lines()) == len(axes.get_legend().legend_handles) == 2
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
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

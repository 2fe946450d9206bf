"""Curves that grow while a model trains: animated in a notebook, silent in a script."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.errors import ArgumentTypeError, UsageError
from d2ldrop.files import replacing
from d2ldrop.hyperparameters import HyperParameters

__all__ = ["NOT_FINITE", "SHARE", "SPLITS", "Point", "ProgressBoard", "in_notebook", "kernel"]

SHARE = 0.03
"""The fraction of the time that redrawing may take. With the notebook's own work on each picture, it is about twice."""

SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""What the label of a curve begins with, before the name of the metric; and the word for it in a legend."""

NOT_FINITE = {"nan": ("x", 0.04), "inf": ("^", 0.96), "-inf": ("v", 0.04)}
"""How a value that is not finite is marked: the marker, and its height as a fraction of the axes'."""


def kernel() -> Any:
    """Return the shell of a kernel that can show pictures (Jupyter), or None in a script or a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    names = {cls.__name__ for cls in type(shell).__mro__}  # some notebooks have a shell derived from Jupyter's
    return shell if "ZMQInteractiveShell" in names else None


def in_notebook() -> bool:
    """Return True in a notebook, as opposed to a script or a terminal."""
    return kernel() is not None


class Point(NamedTuple):
    """A point of a curve."""

    x: float
    y: float


class ProgressBoard(HyperParameters):
    """A plot of curves, identified by their labels, to which points are added one by one.

    Parameters
    ----------
    xlabel, ylabel, xlim, ylim, xscale, yscale
        The axes.
    ls, colors
        Line formats and colours, repeated for more curves. A format may include a colour.
    fig, axes
        A figure and axes to draw on instead of new ones.
    figsize
        Width and height in inches, of each panel.
    display
        Whether to draw at all while points come in.
    panels
        The words beside the axis of each metric that has a panel of its own: with `{"loss": "nats", "acc": "accuracy"}`
        the curves `train_loss` and `val_loss` are in the first panel. Any other metric gets one when its first point
        comes. By default, and where `fig` or `axes` are given, all curves are in one panel.

    Notes
    -----
    In a notebook the figure is redrawn in place, in one output, and the time between redraws is proportional to how
    long they take, so that they take a few percent of the time. A value that is nan or infinite is marked at the edge
    of the axes.
    """

    def __init__(
        self,
        xlabel: str | None = None,
        ylabel: str | None = None,
        xlim: tuple[float, float] | None = None,
        ylim: tuple[float, float] | None = None,
        xscale: str = "linear",
        yscale: str = "linear",
        ls: Sequence[str] = ("-", "--", "-.", ":"),
        colors: Sequence[str] = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9"),
        fig: Any = None,
        axes: Any = None,
        figsize: tuple[float, float] = (3.5, 2.5),
        display: bool = True,
        panels: Mapping[str, str] | None = None,
    ):
        self.save_hyperparameters()
        self._given = fig is not None or axes is not None
        self._lines: dict[str, Any] = {}
        self._marks: dict[tuple[str, str], Any] = {}
        self.reset(xlim, display)

    def reset(self, xlim: tuple[float, float] | None, display: bool) -> None:
        """Remove all curves, for a new training, which is drawn in a new figure."""
        if self._given:  # our own figure stays, with its curves
            for line in (*self._lines.values(), *self._marks.values()):
                line.remove()
        self.xlim, self.display = xlim, display
        self.fig, self.axes = self.hparams["fig"], self.hparams["axes"]
        self.curves: dict[str, tuple[list[float], list[float]]] = {}
        self._pending: dict[str, list[tuple[Any, Any]]] = {}
        self._panels: dict[str | None, Any] = {}  # metric -> axes; None -> those of all curves
        self._lines, self._marks = {}, {}
        self._handle: Any = None
        self._next_redraw, self._stale = 0.0, False

    @property
    def data(self) -> dict[str, list[Point]]:
        """The points of each curve by its label: `board.data["val_loss"][-1].y` is the last validation loss.

        They are there whether or not they are displayed.
        """
        return {label: [*map(Point, xs, ys)] for label, (xs, ys) in self.curves.items()}

    def draw(self, x: Any, y: Any, label: str, every_n: int = 1) -> None:
        """Add a point to the curve `label`; with `every_n`, the mean of that many points is added as one.

        Raises
        ------
        ArgumentTypeError
            When the mean is taken, if something in it is no number.
        """
        pending = self._pending.setdefault(label, [])
        pending.append((x, y))
        if len(pending) < every_n:
            return
        self._add_mean(label)
        shell = kernel() if self.display else None
        if shell is not None:
            shell.events.register("post_execute", self.finish)
            if time.perf_counter() >= self._next_redraw:
                self.show()

    def flush(self) -> None:
        """Add the means of points that wait for others (see `every_n` of `draw`), and show everything."""
        for label in [label for label, pending in self._pending.items() if pending]:
            self._add_mean(label)
        self.finish()

    def _add_mean(self, label: str) -> None:
        """Add the mean of the points that wait as one point of a curve."""
        pending = self._pending.pop(label)
        xs, ys = self.curves.setdefault(label, ([], []))
        across, up = [_number(x) for x, _ in pending], [_number(y) for _, y in pending]
        xs.append(sum(across) / len(pending))
        ys.append(sum(up) / len(pending))
        self._stale = True

    def show(self) -> None:
        """Update the display in a notebook."""
        started = time.perf_counter()
        from IPython.display import display
        from matplotlib import pyplot as plt

        self._update()
        if self._handle is None:
            plt.close(self.fig)  # otherwise the notebook shows it a second time when the cell ends
            self._handle = display(self.fig, display_id=True)
        else:
            self._handle.update(self.fig)
        ended = time.perf_counter()
        self._next_redraw = ended + (ended - started) / SHARE

    def finish(self) -> None:
        """Show the points that were added since the last redraw; called at the end of a notebook's cell as well."""
        shell = kernel() if self.display else None
        if shell is not None:
            if self._stale:
                self.show()
            with suppress(ValueError):  # if it is not registered any more
                shell.events.unregister("post_execute", self.finish)

    def save(self, path: Any) -> None:
        """Save the plot to a file, in the format of its ending (.png, .svg, .pdf).

        Raises
        ------
        UsageError
            If there are no points yet.
        """
        if not self.curves:
            raise UsageError("Expected at least one point to plot. Received none: train the model first.")
        self._update()
        with replacing(path) as temporary:
            self.fig.savefig(temporary, dpi=150, bbox_inches="tight")

    def _update(self) -> None:
        """Update the figure; each curve is one line whose data are replaced."""
        self._stale = False
        metrics = [None] if self.panels is None or self._given else [*self.panels, *map(_metric, self.curves)]
        if set(metrics) != set(self._panels):
            self._open_panels(list(dict.fromkeys(metrics)))
        restyled = {self._panel(label) for label, points in self.curves.items() if self._update_curve(label, *points)}
        for axes in restyled:  # a legend shows the lines as they were when it was created
            self._write_legend(axes)
        for axes in self._panels.values():
            axes.relim()
            axes.autoscale_view()

    def _open_panels(self, metrics: list[str | None]) -> None:
        """Make the axes of each metric, or take those that were given; what was on other panels is drawn anew."""
        if self._given:
            self.axes = self.fig.gca() if self.axes is None else self.axes
            self.fig, panels = self.axes.get_figure(), [self.axes]
        else:
            from matplotlib import pyplot as plt

            from d2ldrop.plots.layout import SteadyLayout

            columns = min(len(metrics), 2)
            rows = -(-len(metrics) // columns)
            size = (self.figsize[0] * columns, self.figsize[1] * rows)
            # Notebooks crop empty margins. This layout leaves none, so that the picture keeps its size.
            self.fig = self.fig or plt.figure(layout=SteadyLayout())
            self.fig.clear()
            self.fig.set_size_inches(size)
            panels = [self.fig.add_subplot(rows, columns, k + 1) for k in range(len(metrics))]
            self.axes = panels[0]
        self._panels, self._lines, self._marks = dict(zip(metrics, panels, strict=True)), {}, {}
        for metric, axes in self._panels.items():
            words = None if metric is None else self.panels.get(metric, metric)
            axes.set(xlabel=self.xlabel, ylabel=self.ylabel or words, xscale=self.xscale, yscale=self.yscale)
            axes.set(**{key: lim for key, lim in (("xlim", self.xlim), ("ylim", self.ylim)) if lim})
            axes.grid(alpha=0.3)

    def _panel(self, label: str) -> Any:
        """Return the axes of a curve."""
        return self._panels[None if None in self._panels else _metric(label)]

    def _update_curve(self, label: str, xs: list[float], ys: list[float]) -> bool:
        """Update a curve and the marks of what is not finite; return True if they look otherwise than before."""
        axes, is_new = self._panel(label), label not in self._lines
        if is_new:
            k = len(self._lines)
            if None not in self._panels:  # training looks the same in each panel, and so does validation
                k = [*SPLITS].index(label.partition("_")[0]) if _word(label) else len(axes.get_lines()) + len(SPLITS)
            color = {"color": self.colors[k % len(self.colors)]} if self.colors else {}
            (self._lines[label],) = axes.plot([], [], self.ls[k % len(self.ls)], label=label, **color)
        line, y = self._lines[label], np.array(ys, float)
        line.set_data(xs, np.where(np.isfinite(y), y, np.nan))
        padded = np.pad(np.isfinite(y), 1)
        alone = padded[1:-1] & ~padded[:-2] & ~padded[2:]  # between gaps, where a line is invisible
        before, marker = line.get_marker(), "." if alone.any() else ""
        line.set(marker=marker, markevery=np.flatnonzero(alone).tolist())
        marks = len(self._marks)
        if not np.isfinite(y).all():
            self._mark(label, np.array(xs, float), y)
        return is_new or marker != before or marks != len(self._marks)

    def _mark(self, label: str, x: np.ndarray, y: np.ndarray) -> None:
        """Mark values of a curve that are not finite, in its colour, at the edge of the axes."""
        axes, color = self._panel(label), self._lines[label].get_color()
        for kind, (marker, height) in NOT_FINITE.items():
            found = x[np.isnan(y) if kind == "nan" else y == float(kind)]
            if found.size and (label, kind) not in self._marks:
                style = {"ls": "", "marker": marker, "color": color, "label": kind}
                (self._marks[label, kind],) = axes.plot([], [], transform=axes.get_xaxis_transform(), **style)
            if found.size:
                self._marks[label, kind].set_data(found, np.full(len(found), height))

    def _write_legend(self, axes: Any) -> None:
        """Write the legend, which has its place above the axes, or in a corner where the axes were given."""
        entries = {}
        for line in axes.get_lines():
            name = line.get_label()
            entries[name if None in self._panels else _word(name) or name] = line
        if self._given:
            axes.legend(entries.values(), entries, loc="upper right")
            return
        columns = max(1, int(self.figsize[0] / (0.35 + 0.07 * max(map(len, entries)))))  # in inches
        names = [name for k in range(columns) for name in [*entries][k::columns]]  # row by row, so that none moves
        style = {"fontsize": "small", "frameon": False, "handlelength": 1.5, "columnspacing": 1, "borderaxespad": 0.1}
        handles = [entries[name] for name in names]
        axes.legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, **style)


def _number(value: Any) -> float:
    """Return a number, or what an array or tensor of one element holds, as a number of Python."""
    with suppress(TypeError, ValueError):
        return float(value.item() if getattr(value, "ndim", 0) else value)  # a loss may have the shape (1,)
    raise ArgumentTypeError(f"Expected a point's coordinates to be numbers. Received: {value!r}")


def _metric(label: str) -> str:
    """Return what a curve shows: the loss, of `train_loss` and of `val_loss`."""
    return label.partition("_")[2] if _word(label) else label


def _word(label: str) -> str | None:
    """Return the word for what a curve is measured on, or None if its label does not begin with that."""
    split, _, metric = label.partition("_")
    return SPLITS.get(split) if metric else None

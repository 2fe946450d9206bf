"""Curves that grow while a model trains: animated in a notebook, silent in a script."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from d2ldrop.errors import UsageError
from d2ldrop.files import replacing
from d2ldrop.hyperparameters import HyperParameters

__all__ = ["SHARE", "Point", "ProgressBoard", "in_notebook", "kernel"]

SHARE = 0.03
"""The fraction of the time that redrawing may take. With the notebook's own work on each picture, it is about twice."""


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
        Width and height in inches.
    display
        Whether to draw at all while points come in.

    Notes
    -----
    In a notebook the figure is redrawn in place, in one output, and the time between redraws is proportional to how
    long they take, so that they take a few percent of the time.
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
    ):
        self.save_hyperparameters()
        self._lines: dict[str, Any] = {}
        self.reset(xlim, display)

    def reset(self, xlim: tuple[float, float] | None, display: bool) -> None:
        """Remove all curves, for a new training, which is drawn in a new figure."""
        if (self.hparams["fig"], self.hparams["axes"]) != (None, None):  # our own figure stays, with its curves
            for line in self._lines.values():
                line.remove()
        self.xlim, self.display = xlim, display
        self.fig, self.axes = self.hparams["fig"], self.hparams["axes"]
        self.curves: dict[str, tuple[list[float], list[float]]] = {}
        self._pending: dict[str, list[tuple[Any, Any]]] = {}
        self._lines = {}
        self._handle: Any = None
        self._next_redraw, self._stale = 0.0, False

    @property
    def data(self) -> dict[str, list[Point]]:
        """The points of each curve by its label: `board.data["val_loss"][-1].y` is the last validation loss.

        They are there whether or not they are displayed.
        """
        return {label: [*map(Point, xs, ys)] for label, (xs, ys) in self.curves.items()}

    def draw(self, x: Any, y: Any, label: str, every_n: int = 1) -> None:
        """Add a point to the curve `label`; with `every_n`, the mean of that many points is added as one."""
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
        xs.append(sum(float(x) for x, _ in pending) / len(pending))
        ys.append(sum(float(y) for _, y in pending) / len(pending))
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
        from matplotlib import pyplot as plt

        self._stale = False
        if self.fig is None and self.axes is None:
            # Notebooks crop empty margins. This layout leaves none, so that the picture keeps its size.
            self.fig = plt.figure(figsize=self.figsize, layout="constrained")
        self.axes = self.fig.gca() if self.axes is None else self.axes
        self.fig = self.axes.get_figure()
        if not self._lines:
            self.axes.set(xlabel=self.xlabel, ylabel=self.ylabel, xscale=self.xscale, yscale=self.yscale)
            self.axes.set(**{key: lim for key, lim in (("xlim", self.xlim), ("ylim", self.ylim)) if lim})
            self.axes.grid(alpha=0.3)
        restyled = False
        for label, (xs, ys) in self.curves.items():
            if label not in self._lines:
                k = len(self._lines)
                color = {"color": self.colors[k % len(self.colors)]} if self.colors else {}
                (self._lines[label],) = self.axes.plot([], [], self.ls[k % len(self.ls)], label=label, **color)
            line, marker = self._lines[label], "." if len(xs) == 1 else ""  # a line of one point is invisible
            line.set_data(xs, ys)
            restyled |= line.get_marker() != marker
            line.set_marker(marker)
        if restyled:  # a legend shows the lines as they were when it was created
            self.axes.legend()
        self.axes.relim()
        self.axes.autoscale_view()

"""Curves that grow while a model trains: animated in a notebook, silent in a script."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from d2ldrop.errors import UsageError
from d2ldrop.files import replacing
from d2ldrop.hyperparameters import HyperParameters

SHARE = 0.05
"""The share of the time that redrawing may take."""


def in_notebook() -> bool:
    """Tell whether this is a kernel that can show pictures (Jupyter), as opposed to a script or a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class ProgressBoard(HyperParameters):
    """A plot of curves, each known by its label, to which points are added one by one.

    Parameters
    ----------
    xlabel, ylabel, xlim, ylim, xscale, yscale
        The axes.
    ls, colors
        Line formats and colours, used in turn; any number of curves can be drawn. Formats may have colours in them.
    fig, axes
        A figure and axes to draw on instead of new ones.
    figsize
        Width and height in inches.
    display
        Whether to draw at all while points come in.

    Notes
    -----
    In a notebook the figure is redrawn in place, in one output, no more often than a twentieth of the time allows.
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
        self.reset(xlim, display)

    def reset(self, xlim: tuple[float, float] | None, display: bool) -> None:
        """Forget all curves, for a new training: what is drawn from now on goes to a new figure."""
        self.xlim, self.display = xlim, display
        self.fig, self.axes = self.hparams["fig"], self.hparams["axes"]
        self.curves: dict[str, tuple[list[float], list[float]]] = {}
        self._pending: dict[str, list[tuple[Any, Any]]] = {}
        self._lines: dict[str, Any] = {}
        self._handle: Any = None
        self._next_redraw = 0.0

    def draw(self, x: Any, y: Any, label: str, every_n: int = 1) -> None:
        """Add a point to the curve `label`; with `every_n`, the mean of that many points becomes one."""
        pending = self._pending.setdefault(label, [])
        pending.append((x, y))
        if len(pending) < every_n:
            return
        xs, ys = self.curves.setdefault(label, ([], []))
        xs.append(sum(float(x) for x, _ in pending) / len(pending))
        ys.append(sum(float(y) for _, y in pending) / len(pending))
        pending.clear()
        if self.display and in_notebook() and time.perf_counter() >= self._next_redraw:
            self.show()

    def show(self) -> None:
        """Bring the display in a notebook up to date."""
        started = time.perf_counter()
        from IPython.display import display

        self._update()
        if self._handle is None:
            self._handle = display(self.fig, display_id=True)
        else:
            self._handle.update(self.fig)
        ended = time.perf_counter()
        self._next_redraw = ended + (ended - started) / SHARE

    def finish(self) -> None:
        """Show the last points, and let go of the figure, so that the notebook does not show it once more."""
        if self.display and in_notebook() and self.curves:
            from matplotlib import pyplot as plt

            self.show()
            plt.close(self.fig)

    def save(self, path: Any) -> None:
        """Draw the curves to a file, whose ending (.png, .svg, .pdf) says how.

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
        """Bring the figure's lines up to date; none is drawn twice."""
        from matplotlib import pyplot as plt

        if self.axes is None:
            self.fig, self.axes = plt.subplots(figsize=self.figsize)
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
            line, marker = self._lines[label], "." if len(xs) == 1 else ""
            line.set_data(xs, ys)
            restyled |= line.get_marker() != marker
            line.set_marker(marker)
        if restyled:  # the legend shows lines as they were when it was made
            self.axes.legend()
        self.axes.relim()
        self.axes.autoscale_view()

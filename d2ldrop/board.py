"""Curves that grow while a model trains: animated in a notebook, silent in a script."""

import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from d2ldrop.errors import UsageError
from d2ldrop.files import replacing
from d2ldrop.hyperparameters import HyperParameters

SHARE = 0.03
"""The share of the time that redrawing may take. What it costs is about twice that, as the notebook has to read it."""

STRETCHES = 500
"""Into how many stretches at most a curve is divided, of which two points each are drawn."""


def kernel() -> Any:
    """Return the shell of a kernel that can show pictures (Jupyter), or None in a script or a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    names = {cls.__name__ for cls in type(shell).__mro__}  # some notebooks have a shell derived from Jupyter's
    return shell if "ZMQInteractiveShell" in names else None


def in_notebook() -> bool:
    """Tell whether this is a notebook, as opposed to a script or a terminal."""
    return kernel() is not None


class Outline:
    """Which points of a growing curve to draw: the lowest and the highest of each of some hundred stretches.

    Spikes stay visible, and the time to draw does not grow with the number of points. A stretch begins as a single
    point; whenever there are too many, neighbours are joined, and stretches are twice as long from then on.

    Examples
    --------
    >>> outline, ys = Outline(), []
    >>> for x in range(100_000):
    ...     ys.append(7 if x == 1234 else x % 3)
    >>> chosen = outline.update(ys)
    >>> len(chosen) <= 1002, chosen[0], chosen[-1], 1234 in chosen
    (True, 0, 99999, True)
    """

    def __init__(self) -> None:
        self._seen, self._length = 0, 1
        self._stretches: list[set[int]] = []

    def update(self, ys: Sequence[float]) -> list[int]:
        """Look at what was added to `ys` since the last time, and return the indices of the points to draw."""

        def extremes(indices: set[int]) -> set[int]:
            numbers = {i for i in indices if math.isfinite(ys[i])} or indices  # they go before nan and infinities
            return {min(numbers, key=ys.__getitem__), max(numbers, key=ys.__getitem__)}

        for i in range(self._seen, len(ys)):
            if i == STRETCHES * self._length:
                pairs = zip(self._stretches[::2], self._stretches[1::2], strict=True)
                self._stretches = [extremes(first | second) for first, second in pairs]
                self._length *= 2
            if i % self._length == 0:
                self._stretches.append(set())
            self._stretches[-1] = extremes(self._stretches[-1] | {i})
        self._seen = len(ys)
        return sorted({0, len(ys) - 1}.union(*self._stretches))


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
    In a notebook the figure is redrawn in place, in one output, and so seldom that it takes a few percent of the time.
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
        """Forget all curves, for a new training: what is drawn from now on goes to a new figure."""
        if (self.hparams["fig"], self.hparams["axes"]) != (None, None):  # a figure of ours is left as it is
            for line in self._lines.values():
                line.remove()
        self.xlim, self.display = xlim, display
        self.fig, self.axes = self.hparams["fig"], self.hparams["axes"]
        self.curves: dict[str, tuple[list[float], list[float]]] = {}
        self._pending: dict[str, list[tuple[Any, Any]]] = {}
        self._lines = {}
        self._outlines: dict[str, Outline] = {}
        self._handle: Any = None
        self._next_redraw, self._stale = 0.0, False

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
        self._stale = True
        shell = kernel() if self.display else None
        if shell is not None:
            shell.events.register("post_execute", self.finish)
            if time.perf_counter() >= self._next_redraw:
                self.show()

    def show(self) -> None:
        """Bring the display in a notebook up to date."""
        started = time.perf_counter()
        from IPython.display import display
        from matplotlib import pyplot as plt

        self._update()
        if self._handle is None:
            plt.close(self.fig)  # or the notebook would show it once more when the cell ends
            self._handle = display(self.fig, display_id=True)
        else:
            self._handle.update(self.fig)
        ended = time.perf_counter()
        self._next_redraw = ended + (ended - started) / SHARE

    def finish(self) -> None:
        """Show the points that came too soon after a redraw; the end of a notebook's cell does it by itself."""
        shell = kernel() if self.display else None
        if shell is not None:
            if self._stale:
                self.show()
            with suppress(ValueError):  # it was not registered any more
                shell.events.unregister("post_execute", self.finish)

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

        self._stale = False
        if self.fig is None and self.axes is None:
            # Notebooks cut off empty margins. This layout leaves none, so that the picture's size stays the same.
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
                self._outlines[label] = Outline()
            line, marker = self._lines[label], "." if len(xs) == 1 else ""
            chosen = self._outlines[label].update(ys)
            line.set_data([xs[i] for i in chosen], [ys[i] for i in chosen])
            restyled |= line.get_marker() != marker
            line.set_marker(marker)
        if restyled:  # the legend shows lines as they were when it was made
            self.axes.legend()
        self.axes.relim()
        self.axes.autoscale_view()

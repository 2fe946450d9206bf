"""A layout without margins that is not computed anew for every picture; to be imported when something is drawn."""

from typing import Any

from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = ["SteadyLayout"]


class SteadyLayout(ConstrainedLayoutEngine):
    """matplotlib's constrained layout, computed when the texts beside the axes have changed.

    It takes as long as a third of the drawing, and an animation of curves would compute the same again and again.
    """

    _before: Any = None

    def execute(self, fig: Any) -> None:
        """Lay the figure out, if it needs it."""
        now: list[Any] = [fig.get_size_inches().tolist()]
        for axes in fig.axes:
            texts = [*axes.get_xticklabels(), *axes.get_yticklabels()]
            if axes.get_legend() is not None:
                texts += axes.get_legend().get_texts()
            now.append((axes.get_xlim(), [text.get_text() for text in texts]))
        if now != self._before:
            self._before = now
            super().execute(fig)

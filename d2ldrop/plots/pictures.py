"""Grids of images and plots of functions, under the book's names; matplotlib is imported when something is drawn."""

import importlib
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from d2ldrop.backend import Array
from d2ldrop.errors import DataError
from d2ldrop.plots.board import in_notebook
from d2ldrop.registry import backend_of

__all__ = [
    "PAGE",
    "fitting",
    "plain_images",
    "plot",
    "plt",
    "set_axes",
    "set_figsize",
    "show_heatmaps",
    "show_images",
    "to_host",
    "use_svg_display",
    "width",
    "wrapped",
]


class _Pyplot:
    """A proxy for `matplotlib.pyplot`, which is imported when an attribute is first used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("matplotlib.pyplot"), name)


plt: Any = _Pyplot()

PAGE = 8.5
"""The width of a notebook's page in inches."""


def use_svg_display() -> None:
    """Show figures as SVG in a notebook; without effect elsewhere."""
    if in_notebook():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")


def set_figsize(figsize: tuple[float, float] = (3.5, 2.5)) -> None:
    """Set the default size of figures: width and height in inches."""
    use_svg_display()
    plt.rcParams["figure.figsize"] = figsize


def show_images(
    imgs: Any, num_rows: int, num_cols: int, titles: Sequence[str] | None = None, scale: float = 1.5
) -> np.ndarray:
    """Draw images in a grid.

    Parameters
    ----------
    imgs
        Images (H, W), (H, W, C) or (C, H, W), grey or RGB, as arrays of any framework, on any device. Those that exceed
        the grid are left out. Shades of grey, and colours that are not in [0, 1], are scaled from the least value of an
        image to its largest.
    num_rows, num_cols
        The grid; cells without an image stay empty.
    titles
        A text above each image, broken into lines if it is wider than the cell.
    scale
        Inches per cell; with titles, cells are higher by their lines.

    Returns
    -------
    numpy.ndarray
        The matplotlib axes, shape (num_rows * num_cols,).

    Raises
    ------
    DataError
        If one is no image.
    """
    texts = [wrapped(str(title), scale - 0.1) for title in ([] if titles is None else titles)][: num_rows * num_cols]
    rows = [texts[k : k + num_cols] for k in range(0, len(texts), num_cols)]
    lines = sum(max(1 + text.count("\n") for text in row) for row in rows)
    size = (num_cols * scale, num_rows * scale + 0.15 * lines)
    _, grid = plt.subplots(num_rows, num_cols, figsize=size, squeeze=False, layout="compressed")
    axes = grid.ravel()
    for axis in axes:
        axis.set_axis_off()
    for i, (axis, image) in enumerate(zip(axes, imgs, strict=False)):
        axis.imshow(_shown(to_host(image)), cmap="gray_r")
        if i < len(texts):
            axis.set_title(texts[i], fontsize="small")
    return np.asarray(axes)


def plain_images(X: Array) -> np.ndarray:
    """Return images (N, C, H, W) or (N, H, W, C) of any framework on the host, as (N, H, W), or (N, H, W, C) in colour.

    Raises
    ------
    DataError
        If they are none, with one channel, three (RGB), or four (RGB and opacity).
    """
    images = to_host(X)
    if images.ndim == 4 and 1 in (images.shape[1], images.shape[3]):
        return images[:, 0] if images.shape[1] == 1 else images[..., 0]
    if images.ndim == 4 and images.shape[3] not in (3, 4):
        images = np.moveaxis(images, 1, 3)
    if images.ndim != 3 and (images.ndim != 4 or images.shape[3] not in (3, 4)):
        raise DataError(f"Expected images (N, C, H, W) or (N, H, W, C), C = 1 or 3. Received: shape {np.shape(X)}")
    return images


def _shown(image: np.ndarray) -> np.ndarray:
    """Return an image as matplotlib shows it."""
    (image,) = plain_images(image[np.newaxis])
    low, high = (image.min(), image.max()) if image.ndim == 3 and image.dtype.kind == "f" else (0, 1)
    return image if 0 <= low <= high <= 1 else (image - low) / ((high - low) or 1)


def wrapped(text: str, inches: float, lines: int | None = None) -> str:
    r"""Break the lines of a text in a small font so that they fit a width; of more than `lines`, the rest is left out.

    Examples
    --------
    >>> wrapped("a long name\nshort", 0.6)
    'a long\nname\nshort'
    """
    broken = []
    for line in text.split("\n"):
        letters = max(len(line), 1)
        while max(map(width, parts := textwrap.wrap(line, letters) or [""])) > inches and letters > 1:
            letters -= 1
        if lines is not None and len(parts) > lines:
            parts = [*parts[: lines - 1], parts[lines - 1][: letters - 1] + "…"]
        broken += parts
    return "\n".join(broken)


def width(text: str) -> float:
    """Return the width of a line in a small font in inches, as the sum of its letters' widths."""
    return sum(map(_letter_width, text))


@cache  # to measure takes long
def _letter_width(letter: str) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    # Between two others, as the width of a blank alone is 0.
    points = [
        text_to_path.get_text_width_height_descent(text, FontProperties(size="small"), ismath=False)[0]
        for text in (f"|{letter}|", "||")
    ]
    return float(points[0] - points[1]) / 72


def fitting(num_cols: int) -> float:
    """Return the inches per cell for a grid to fit on a page: 1.5, or less if there are many columns."""
    return min(1.5, PAGE / num_cols)


def set_axes(
    axes: Any,
    xlabel: str | None,
    ylabel: str | None,
    xlim: tuple[float, float] | None,
    ylim: tuple[float, float] | None,
    xscale: str,
    yscale: str,
    legend: Sequence[str] | None,
) -> None:
    """Set labels, scales, limits and legend of matplotlib axes; a limit that is None is matplotlib's own choice."""
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    axes.set(**{key: lim for key, lim in (("xlim", xlim), ("ylim", ylim)) if lim})
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(legend)


def show_heatmaps(
    matrices: Array,
    xlabel: str,
    ylabel: str,
    titles: Sequence[str] | None = None,
    figsize: tuple[float, float] = (2.5, 2.5),
    cmap: str = "Reds",
) -> np.ndarray:
    """Draw a grid of matrices as coloured cells on one scale, with a colour bar.

    Parameters
    ----------
    matrices
        An array of any framework, (rows of the grid, columns of the grid, H, W).
    xlabel, ylabel
        What columns and rows of a matrix are.
    titles
        A text above each column of the grid.
    figsize
        Width and height in inches.
    cmap
        The name of one of matplotlib's colour maps.

    Returns
    -------
    numpy.ndarray
        The matplotlib axes, (rows of the grid, columns of the grid).

    Raises
    ------
    DataError
        If the array has other axes, or no elements.
    """
    host = to_host(matrices)
    if host.ndim != 4 or not host.size:
        raise DataError(f"Expected matrices (rows, columns, H, W), one or more. Received: shape {host.shape}")
    rows, columns = host.shape[:2]
    figure, axes = plt.subplots(
        rows, columns, figsize=figsize, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for row, line in zip(axes, host, strict=True):
        for axis, matrix in zip(row, line, strict=True):
            image = axis.imshow(matrix, cmap=cmap, vmin=host.min(), vmax=host.max())
        row[0].set_ylabel(ylabel)
    for axis, title in zip(axes[0], titles or [""] * columns, strict=False):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    figure.colorbar(image, ax=axes, shrink=0.6)
    return np.asarray(axes)


def plot(
    X: Any,
    Y: Any = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    legend: Sequence[str] = (),
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    xscale: str = "linear",
    yscale: str = "linear",
    fmts: Sequence[str] = ("-", "m--", "g-.", "r:"),
    figsize: tuple[float, float] = (3.5, 2.5),
    axes: Any = None,
) -> Any:
    """Plot one or several curves, and return the matplotlib axes.

    Parameters
    ----------
    X, Y
        Coordinates, as vectors or lists of vectors of any framework. A single `X` is used for all `Y`; without `Y`,
        `X` is plotted over 0, 1, 2, ...
    xlabel, ylabel, legend, xlim, ylim, xscale, yscale
        The axes.
    fmts
        Line formats, repeated for more curves.
    figsize
        Width and height in inches, for new axes.
    axes
        matplotlib axes to draw on instead of new ones.
    """
    Xs, Ys = ([], _curves(X)) if Y is None else (_curves(X), _curves(Y))
    if axes is None:
        _, axes = plt.subplots(figsize=figsize)
    for i, y in enumerate(Ys):
        x = Xs[i if len(Xs) > 1 else 0] if Xs else np.arange(len(y))
        axes.plot(x, y, fmts[i % len(fmts)])
    set_axes(axes, xlabel, ylabel, xlim, ylim, xscale, yscale, legend)
    return axes


def _curves(X: Any) -> list[np.ndarray]:
    """Return a vector, or a list of vectors, as a list of vectors on the host."""
    nested = len(X) > 0 and hasattr(X[0], "__len__") and getattr(X[0], "shape", None) != ()
    return [to_host(x) for x in X] if nested else [to_host(X)]


def to_host(X: Array) -> np.ndarray:
    """Return an array of any framework, or nested lists, as an array of NumPy."""
    return backend_of(X).numpy(X) if hasattr(X, "shape") else np.asarray(X)

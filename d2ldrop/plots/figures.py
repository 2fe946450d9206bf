"""The chapter's own figures: a network under dropout, and the mistakes of a trained one."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from d2ldrop.backend import Array
from d2ldrop.calibration import check_probabilities
from d2ldrop.errors import ArgumentError, DataError
from d2ldrop.plots.pictures import fitting, plain_images, plt, show_images, to_host, width, wrapped

__all__ = [
    "AT_EACH_END",
    "NAME",
    "RADIUS",
    "WIDEST",
    "checked_predictions",
    "draw_network",
    "show_confusion",
    "show_mistakes",
]

RADIUS = 0.3
"""Of the circles that stand for units, whose centres are 1 apart."""

WIDEST = 20
"""The largest number of units in a layer that are all drawn."""

NAME = 1.5
"""The largest width of a class's name beside a matrix, in inches."""

AT_EACH_END = 4
"""How many units are drawn at each end of a layer that has more; between them is an ellipsis as wide as two."""


def draw_network(sizes: Sequence[int], masks: Sequence[Array] | None = None) -> np.ndarray:
    """Draw a fully connected network and, beside it, the same network under dropout.

    Parameters
    ----------
    sizes
        The number of units in each layer, from the inputs, drawn at the bottom, to the outputs. Of a layer that has
        more than 20, the first and the last few are drawn, with an ellipsis between them and the number beside them.
    masks
        For each hidden layer a vector, of any framework, that is zero where a unit is dropped, such as
        `dropout_layer(ones, p)`. Dropped units are crossed out, and their connections are not drawn. Beside a layer
        with an ellipsis is the number of those that are kept. Without masks, there is only one panel.

    Returns
    -------
    numpy.ndarray
        The matplotlib axes of the panels, shape (1,) or (2,).

    Raises
    ------
    ArgumentError
        If `sizes` are not two or more positive integers, or `masks` do not fit the hidden layers.
    """
    sizes = _checked_sizes(sizes)
    panels = {"without dropout": [np.ones(size, bool) for size in sizes]}
    if masks is not None:
        panels["with dropout"] = _kept(sizes, masks)
    figsize = (0.9 + 3.8 * len(panels), 3.4)
    _, grid = plt.subplots(1, len(panels), figsize=figsize, squeeze=False, sharey=True, layout="constrained")
    for axes, (title, kept) in zip(grid[0], panels.items(), strict=True):
        _draw_panel(axes, kept)
        axes.set_title(title)
    return np.asarray(grid[0])


def show_confusion(y: Array, guesses: Array, names: Sequence[str] | None = None, shares: bool = False) -> Any:
    """Draw the confusion matrix: how often samples of each class were assigned to each class.

    The row of a class of which there are no samples is grey and says so.

    Parameters
    ----------
    y, guesses
        True and predicted labels (N,), integers from 0 on, as arrays of any framework.
    names
        The names of the classes; by default their numbers.
    shares
        Whether to write percentages of each true class instead of counts.

    Returns
    -------
    matplotlib axes
        With a row for each true class and a column for each predicted one.

    Raises
    ------
    DataError
        If the numbers of labels differ, or there are fewer names than classes.
    """
    from sklearn.metrics import confusion_matrix

    y, guesses = _labels(y), _labels(guesses)
    if len(y) != len(guesses):
        raise DataError(f"Expected as many guesses as labels. Received: {len(guesses)} and {len(y)}")
    classes = max(y.max(), guesses.max()) + 1 if names is None else len(names)
    names = _names(names, max(y.max(), guesses.max()) + 1)
    counts = confusion_matrix(y, guesses, labels=range(classes))
    samples = counts.sum(axis=1, keepdims=True)
    values = np.where(samples, 100 * counts / np.maximum(samples, 1) if shares else counts, np.nan)
    names = [wrapped(name, NAME, lines=2) for name in names]
    rows = [name if count else f"{name}\n(no samples)" for name, count in zip(names, samples, strict=True)]
    room = max(width(line) for name in rows for line in name.split("\n"))  # that names need, in inches
    size = (max(2.5, 1.3 + room) + max(0.5 * classes, 2), max(1.5, 1.1 + 0.8 * room) + 0.45 * classes)
    _, axes = plt.subplots(figsize=size, layout="constrained")
    axes.set_facecolor("0.9")  # seen where there is no value
    # Most guesses are right, and on a linear scale all mistakes would look white: hence the square root.
    colors = np.sqrt(values / np.nanmax(values))
    axes.imshow(colors, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        color, text = "white" if colors[row, column] > 0.6 else "black", f"{value:.0f}" if samples[row] else "-"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 4 else {}
    axes.set_xticks(range(classes), names, fontsize="small", **slanted)
    axes.set_yticks(range(classes), rows, fontsize="small")
    axes.set(xlabel="predicted", ylabel="true", title="percent of each true class" if shares else "numbers of samples")
    return axes


def show_mistakes(
    images: Array,
    y: Array,
    probabilities: Array,
    names: Sequence[str] | None = None,
    num_rows: int = 2,
    num_cols: int = 6,
) -> np.ndarray:
    """Draw the images that a network misclassifies with the highest confidence, in descending order.

    The title of each is its true label and, below, the predicted one with its probability.

    Parameters
    ----------
    images
        Images (N, C, H, W) or (N, H, W, C), grey or RGB, as an array of any framework.
    y
        True labels (N,).
    probabilities
        The softmax of the network's outputs, (N, K).
    names
        The names of the K classes; by default their numbers.
    num_rows, num_cols
        The grid; cells stay empty if there are fewer mistakes.

    Returns
    -------
    numpy.ndarray
        The matplotlib axes, shape (num_rows * num_cols,).

    Raises
    ------
    DataError
        If the shapes do not match, or the rows of `probabilities` are no probabilities.
    """
    images, y, probabilities, names = checked_predictions(images, y, probabilities, names)
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != y)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][: num_rows * num_cols]
    titles = [f"{names[y[i]]}\n{names[guesses[i]]} {confidence[i]:.1%}" for i in chosen]
    return show_images(images[chosen], num_rows, num_cols, titles=titles, scale=fitting(num_cols))


def checked_predictions(
    images: Array, y: Array, probabilities: Array, names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return images (N, H, W) or (N, H, W, C), labels, probabilities and the names of the classes on the host.

    Parameters and errors are those of `show_mistakes`.
    """
    y, probabilities, images = _labels(y), to_host(probabilities), plain_images(images)
    if probabilities.ndim != 2 or not len(images) == len(y) == len(probabilities):
        shapes = ", ".join(str(array.shape) for array in (images, y, probabilities))
        raise DataError(f"Expected images (N, ...), labels (N,) and probabilities (N, K). Received: {shapes}")
    check_probabilities(probabilities)
    return images, y, probabilities, _names(names, max(probabilities.shape[1], y.max() + 1))


def _draw_panel(axes: Any, kept: Sequence[np.ndarray]) -> None:
    """Draw the units of each layer, and the connections between those that are kept."""
    from matplotlib.collections import LineCollection

    layers, last = [_places(len(layer)) for layer in kept], len(kept) - 1
    widest = max(1 + 2 * layer[-1][1] for layer in layers)
    height = max(1.5, 0.7 * widest / last)  # the distance between layers
    # Of each layer the units that are drawn: their centres, and whether they are kept.
    units = [[((x, height * i), kept[i][k]) for k, x in layer] for i, layer in enumerate(layers)]
    connections = [
        (start, end)
        for below, above in itertools.pairwise(units)
        for start, stays in below
        for end, stays_too in above
        if stays and stays_too
    ]
    axes.add_collection(LineCollection(connections, colors="0.55", linewidths=0.7, zorder=1))
    for i, layer in enumerate(units):
        _draw_units(axes, layer, "C1" if i == 0 else "C2" if i == last else "C0")
    arm, dropped = 0.7 * RADIUS, [centre for layer in units for centre, stays in layer if not stays]
    crosses = [((x - arm, y - s * arm), (x + arm, y + s * arm)) for x, y in dropped for s in (1, -1)]
    axes.add_collection(LineCollection(crosses, colors="0.3", linewidths=1.2, zorder=3))
    for i, mask in enumerate(kept):
        if len(mask) > WIDEST:
            axes.plot([-0.5, 0, 0.5], [height * i] * 3, "o", color="0.2", ms=2.5)
            if not mask.all():
                axes.text(widest / 2 + 0.2, height * i, f"{mask.sum()} kept", va="center")
    names = ["inputs", *([f"hidden layer {i}" for i in range(1, last)] if last > 2 else ["hidden layer"][: last - 1])]
    names.append("outputs")
    if max(map(len, kept)) > WIDEST:
        names = [f"{name}\n{len(mask)}" for name, mask in zip(names, kept, strict=True)]
    axes.set_yticks([height * i for i in range(last + 1)], names)
    axes.set(xticks=[], xlim=(-widest / 2, widest / 2), ylim=(-0.5, height * last + 0.5), aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _places(size: int) -> list[tuple[int, float]]:
    """Return which units of a layer are drawn, and where they are on its axis, whose middle is 0."""
    if size <= WIDEST:
        return [(k, k - (size - 1) / 2) for k in range(size)]
    right = [(size - AT_EACH_END + k, k + 1.5) for k in range(AT_EACH_END)]
    return [*((size - 1 - k, -x) for k, x in reversed(right)), *right]


def _draw_units(axes: Any, units: Sequence[tuple[tuple[float, float], bool]], color: str) -> None:
    """Draw the units of a layer as circles."""
    from matplotlib.patches import Circle

    for centre, stays in units:
        style = {"fc": color, "ec": "0.2"} if stays else {"fc": "white", "ec": "0.6", "ls": ":"}
        axes.add_patch(Circle(centre, RADIUS, zorder=2, **style))


def _checked_sizes(sizes: Sequence[int]) -> list[int]:
    sizes = list(sizes)
    integers = all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) for size in sizes)
    if len(sizes) < 2 or not integers or min(sizes) < 1:
        raise ArgumentError(f"Expected sizes to be two or more positive integers. Received: {sizes!r}")
    return sizes


def _kept(sizes: Sequence[int], masks: Sequence[Array]) -> list[np.ndarray]:
    """Return for each layer which units are kept; of inputs and outputs, all."""
    hidden = [to_host(mask) != 0 for mask in masks]
    expected = [(size,) for size in sizes[1:-1]]
    if (shapes := [mask.shape for mask in hidden]) != expected:
        raise ArgumentError(f"Expected a mask for each hidden layer, of shapes {expected}. Received: {shapes}")
    return [np.ones(sizes[0], bool), *hidden, np.ones(sizes[-1], bool)]


def _labels(y: Array) -> np.ndarray:
    labels = to_host(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
        received = f"{labels.dtype}, shape {labels.shape}"
        raise DataError(f"Expected labels (N,), integers from 0 on, at least one. Received: {received}")
    return labels


def _names(names: Sequence[str] | None, classes: int) -> list[str]:
    if names is not None and len(names) < classes:
        raise DataError(f"Expected {classes} class names. Received: {len(names)}")
    return [str(k) for k in range(classes)] if names is None else list(names)

"""Pictures of uncertainty: which images are uncertain, and whether it tells right from wrong, and own from foreign."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from d2ldrop.backend import Array
from d2ldrop.calibration import auroc, calibration_bins, expected_calibration_error, rejection_curve
from d2ldrop.errors import DataError
from d2ldrop.plots.figures import checked_predictions
from d2ldrop.plots.pictures import fitting, plt, show_images, to_host

__all__ = ["show_foreign", "show_rejection", "show_reliability", "show_uncertain"]


def show_uncertain(
    images: Array,
    y: Array,
    probabilities: Array,
    uncertainty: Array,
    names: Sequence[str] | None = None,
    num_rows: int = 2,
    num_cols: int = 6,
) -> np.ndarray:
    """Draw images in the order of their uncertainty, the most uncertain first.

    The title of each is its true label, the predicted one with its probability, and its uncertainty; red where the two
    labels differ.

    Parameters
    ----------
    images, y, probabilities, names, num_rows, num_cols
        As for `show_mistakes`.
    uncertainty
        (N,), such as `entropy` or `mutual_information` of what `mc_predict` returns.

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
    uncertainty = to_host(uncertainty)
    if uncertainty.shape != y.shape:
        raise DataError(f"Expected an uncertainty for each image, {y.shape}. Received: {uncertainty.shape}")
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    chosen = np.argsort(-uncertainty, kind="stable")[: num_rows * num_cols]
    titles = [f"{names[y[i]]}\n{names[guesses[i]]} {confidence[i]:.0%}\n{uncertainty[i]:.2f}" for i in chosen]
    axes = show_images(images[chosen], num_rows, num_cols, titles=titles, scale=fitting(num_cols))
    for axis, i in zip(axes, chosen, strict=False):
        axis.title.set_color("black" if guesses[i] == y[i] else "red")
    return axes


def show_rejection(y: Array, probabilities: Array, uncertainties: Mapping[str, Array]) -> Any:
    """Draw the accuracy on what is left when the most uncertain predictions are rejected.

    A dotted line shows the best curve, which rejects what is wrong first.

    Parameters
    ----------
    y, probabilities
        True labels (N,), and probabilities (N, K).
    uncertainties
        By what to reject: name -> uncertainty (N,).

    Returns
    -------
    matplotlib axes

    Raises
    ------
    DataError
        If the shapes do not match, or an uncertainty is nan.
    """
    labels, guesses = to_host(y), to_host(probabilities).argmax(axis=-1)
    if labels.shape != guesses.shape:
        raise DataError(f"Expected as many predictions as labels. Received: {guesses.shape} and {labels.shape}")
    hits = guesses == labels
    _, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    for name, values in uncertainties.items():
        axes.plot(*rejection_curve(to_host(values), hits), label=name)
    rate, accuracy = rejection_curve(1.0 - hits, hits)
    axes.plot([*rate, 1], [*accuracy, 1], "k:", lw=1, label="wrong ones first")
    axes.set(xlabel="fraction of images rejected", ylabel="accuracy on the others", xlim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def show_reliability(y: Array, probabilities: Array, bins: int = 15) -> Any:
    """Draw a reliability diagram: the accuracy of predictions by their confidence, with the calibration error above.

    Where bars end at the diagonal, confidence is accuracy. Below the axis of the bars, the fraction of the predictions
    in each bin.

    Parameters
    ----------
    y, probabilities, bins
        As for `calibration_bins`, which also says the errors and the source.

    Returns
    -------
    matplotlib axes
        Those of the bars.
    """
    y, probabilities = to_host(y), to_host(probabilities)
    edges, counts, confidence, accuracy = calibration_bins(probabilities, y, bins)
    filled, middles, width = counts > 0, (edges[1:] + edges[:-1]) / 2, 1 / bins
    size = {"figsize": (3.8, 4.4), "height_ratios": (4, 1)}
    _, (axes, below) = plt.subplots(2, 1, sharex=True, layout="constrained", **size)
    axes.bar(middles[filled], accuracy[filled], width, color="C0", edgecolor="white", label="accuracy")
    gap = (confidence - accuracy)[filled]
    axes.bar(middles[filled], gap, width, bottom=accuracy[filled], fc="none", ec="C3", hatch="///", label="gap")
    axes.plot([0, 1], [0, 1], "k--", lw=1)
    axes.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"ECE {expected_calibration_error(probabilities, y, bins):.4f}")
    axes.legend(loc="upper left")
    below.bar(middles, counts / counts.sum(), width, color="0.6", edgecolor="white")
    below.set(xlabel="confidence", ylabel="fraction")
    return axes


def show_foreign(own: Array, foreign: Mapping[str, Array], xlabel: str = "uncertainty", bins: int = 40) -> Any:
    """Draw histograms of the uncertainty of own and of foreign inputs, with the AUROC of each foreign kind.

    Parameters
    ----------
    own
        (N,): the uncertainty of inputs of the kind that was trained on.
    foreign
        Name -> (M,): that of inputs of another kind.
    xlabel
        What is drawn.
    bins
        The number of bars.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    DataError
        If an array is not (N,), empty, or not finite.
    """
    own, others = to_host(own), {name: to_host(values) for name, values in foreign.items()}
    labels = {name: f"{name}, AUROC {auroc(own, values):.3f}" for name, values in others.items()}
    edges = np.linspace(0, max(values.max() for values in (own, *others.values())) or 1, bins + 1)
    _, axes = plt.subplots(figsize=(4.8, 3.2), layout="constrained")
    for name, values in {"own": own, **others}.items():
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, edges, weights=weights, histtype="stepfilled", alpha=0.5, label=labels.get(name, "own"))
    axes.set(xlabel=xlabel, ylabel="fraction of the images")
    axes.legend()
    return axes

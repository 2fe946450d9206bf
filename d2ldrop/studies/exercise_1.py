"""Exercise 1: change the dropout probabilities of the two hidden layers, and swap them."""

from typing import Any

import numpy as np

from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Results, Row, compared, contrast, paired, row
from d2ldrop.studies.training import fitted

__all__ = ["BASELINE", "METRIC", "SWAPPED", "TITLE", "UNSWAPPED", "conclude", "draw", "grid", "label", "rows", "run"]

TITLE = "Change the dropout probabilities p1 and p2 of the hidden layers, and swap them"
METRIC = "validation accuracy"
BASELINE = {"dropout_1": 0.5, "dropout_2": 0.5}
UNSWAPPED, SWAPPED = {"dropout_1": 0.2, "dropout_2": 0.5}, {"dropout_1": 0.5, "dropout_2": 0.2}


def grid(quick: bool) -> list[Settings]:
    """Return the chapter's model with each pair of probabilities."""
    values, epochs = ((0.2, 0.5), 2) if quick else ((0.0, 0.2, 0.5, 0.8), 10)
    pairs = [{"dropout_1": p1, "dropout_2": p2} for p1 in values for p2 in values]
    return [{"epochs": epochs, **pair} for pair in sorted(pairs, key=lambda pair: pair != BASELINE)]


def run(seed: int, **settings: Any) -> Numbers:
    """Train, and return the accuracy after the last epoch."""
    return {"val_acc": fitted(seed, **settings).history[-1]["val_acc"]}


def rows(results: Results) -> list[Row]:
    """Return each pair against the baseline, and the swap."""
    baseline = results.values("val_acc", **BASELINE)
    lines = [
        row(label(each), METRIC, results.values("val_acc", **each), None if each is results.grid[0] else baseline)
        for each in results.grid
    ]
    swap = results.values("val_acc", **SWAPPED) - results.values("val_acc", **UNSWAPPED)
    return [*lines, contrast(f"{label(SWAPPED)} minus {label(UNSWAPPED)}", METRIC, swap)]


def conclude(results: Results) -> list[str]:
    """Say what the swap does, and how far the choice matters."""
    swapped, unswapped, baseline = (results.values("val_acc", **each) for each in (SWAPPED, UNSWAPPED, BASELINE))
    others = results.grid[1:]
    differences = [paired(results.values("val_acc", **each), baseline) for each in others]
    above, below = sum(each.low > 0 for each in differences), sum(each.high < 0 for each in differences)
    means = {label(each): float(results.values("val_acc", **each).mean()) for each in results.grid}
    best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return [
        compared(label(SWAPPED), METRIC, swapped, label(UNSWAPPED), unswapped),
        f"Of {len(others)} other pairs, {above} are above the chapter's {label(BASELINE)} and {below} below it by "
        f"intervals that exclude 0; by chance alone it would be about {0.05 * len(others):.1f}.",
        f"The means go from {means[worst]:.4f} ({worst}) to {means[best]:.4f} ({best}); these were picked after the "
        "fact, so their distance is an overestimate.",
    ]


def draw(results: Results, figure: Any) -> None:
    """Draw a heat map of the mean accuracies."""
    axes = figure.subplots()
    p1, p2 = (sorted({each[name] for each in results.grid}) for name in ("dropout_1", "dropout_2"))
    means = [[results.values("val_acc", dropout_1=a, dropout_2=b).mean() for b in p2] for a in p1]
    image = axes.imshow(np.array(means), origin="lower", cmap="viridis")
    for i, j in np.ndindex(len(p1), len(p2)):
        axes.text(
            j, i, f"{means[i][j]:.4f}", ha="center", va="center", color="w", bbox={"fc": "k", "alpha": 0.4, "lw": 0}
        )
    axes.set(xticks=range(len(p2)), xticklabels=p2, yticks=range(len(p1)), yticklabels=p1, xlabel="p2", ylabel="p1")
    figure.colorbar(image, ax=axes, label=METRIC)


def label(setting: Settings) -> str:
    """Return how the table calls a setting."""
    return f"p1 = {setting['dropout_1']}, p2 = {setting['dropout_2']}"

"""Exercise 3: the variance of the activations as training goes on, with dropout and without, beside the theory.

A mask that does not depend on the activation h leaves its mean as it is, up to chance, and makes its variance
Var(h') = Var(h) / (1 - p) + p / (1 - p) E[h]^2.
"""

from typing import Any

import numpy as np

from d2ldrop.studies.compare import CHAPTER
from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Results, Row, band, estimate, row, verdict
from d2ldrop.studies.training import fitted
from d2ldrop.training.activations import ActivationStats

__all__ = ["LAYERS", "SETTINGS", "TITLE", "WITH", "WITHOUT", "conclude", "draw", "grid", "predicted", "rows", "run"]

TITLE = "Variance of the activations over time, with and without dropout"
WITHOUT = {"dropout_1": 0.0, "dropout_2": 0.0}
WITH = {name: CHAPTER[name] for name in ("dropout_1", "dropout_2")}
SETTINGS = {"without dropout": WITHOUT, "with dropout": WITH}
LAYERS = (1, 2)


def grid(quick: bool) -> list[Settings]:
    """Return the chapter's model without dropout, and with it."""
    return [{"epochs": 4 if quick else 15, **each} for each in SETTINGS.values()]


def predicted(variance: Any, mean: Any, p: float) -> Any:
    """Return the variance of activations after the mask, given variance and mean before it.

    Examples
    --------
    >>> predicted(1.0, 2.0, 0.5)
    6.0
    """
    return variance / (1 - p) + p / (1 - p) * mean**2


def run(seed: int, **settings: Any) -> Numbers:
    """Train, and return variances after each epoch, over 1024 training samples and all units of a layer."""
    stats = ActivationStats()
    fitted(seed, callbacks=[stats], **settings)
    numbers: dict[str, Any] = {}
    for layer in LAYERS:
        rows = [row for row in stats.rows if row["layer"] == layer]
        before, after = ([row for row in rows if row["when"] == when] for when in ("before", "after"))
        variance, mean = (np.array([row[name] for row in before]) for name in ("variance", "mean"))
        measured = np.array([row["variance"] for row in after])
        theory = predicted(variance, mean, settings[f"dropout_{layer}"])
        numbers |= {
            f"before_{layer}": variance,
            f"after_{layer}": measured,
            f"predicted_{layer}": theory,
            f"error_{layer}": float((measured / theory - 1).mean()),
            f"growth_{layer}": float(variance[-1] / variance[0] - 1),
            f"last_{layer}": float(variance[-1]),
        }
    return numbers


def rows(results: Results) -> list[Row]:
    """Return variances before the mask and their growth, and how far those after it are from the theory."""
    epochs = results.grid[0]["epochs"]
    metrics = {
        "last": f"variance before the mask, epoch {epochs}",
        "growth": "its growth since epoch 1, relative",
    }
    lines = [
        row(name, f"layer {layer}: {title}", results.values(f"{metric}_{layer}", **each),
            None if each is WITHOUT else results.values(f"{metric}_{layer}", **WITHOUT))
        for layer in LAYERS for metric, title in metrics.items() for name, each in SETTINGS.items()
    ]  # fmt: skip
    for layer in LAYERS:
        errors = results.values(f"error_{layer}", **WITH)
        lines.append(row("with dropout", f"layer {layer}: measured / predicted - 1", errors, np.zeros(len(errors))))
    return lines


def conclude(results: Results) -> list[str]:
    """Say how far the measured variance is from the predicted one, and how the one before the mask changes."""
    sentences, epochs = [], results.grid[0]["epochs"]
    for layer in LAYERS:
        after = f"Layer {layer}, p = {WITH[f'dropout_{layer}']}: the variance after the mask, relative to the theory,"
        sentences.append(
            verdict(
                estimate(results.values(f"error_{layer}", **WITH)),
                f"{after} is too high",
                f"{after} is too low",
                f"{after} is not shown to differ",
            )
        )
    for layer in LAYERS:
        for name, each in SETTINGS.items():
            before = f"Layer {layer}, {name}: from epoch 1 to {epochs}, the variance before the mask"
            sentences.append(
                verdict(
                    estimate(results.values(f"growth_{layer}", **each)),
                    f"{before} grows, relative to the first",
                    f"{before} shrinks, relative to the first",
                    f"{before} is not shown to grow or shrink",
                )
            )
    return sentences


def draw(results: Results, figure: Any) -> None:
    """Draw the variances of each layer over the epochs, and those that the theory predicts as points."""
    for axes, layer in zip(figure.subplots(1, 2), LAYERS, strict=True):
        band(axes, results.values(f"before_{layer}", **WITHOUT), "without dropout", color="C0")
        band(axes, results.values(f"before_{layer}", **WITH), "with dropout, before the mask", color="C1", ls="--")
        band(axes, results.values(f"after_{layer}", **WITH), "with dropout, after the mask", color="C1")
        theory = results.values(f"predicted_{layer}", **WITH).mean(axis=0)
        axes.plot(np.arange(1, len(theory) + 1), theory, "k.", label="after the mask, predicted")
        axes.set(xlabel="epoch", ylabel="variance of the activations", title=f"layer {layer}", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")

"""Exercise 5: dropout and weight decay, each alone and both together."""

from typing import Any

from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Results, Row, band, contrast, estimate, row, verdict
from d2ldrop.studies.training import TrainingSamples, fitted

__all__ = [
    "BOTH",
    "DECAY",
    "DECAYED",
    "DROPOUT",
    "METRICS",
    "NEITHER",
    "SENTENCES",
    "SETTINGS",
    "TITLE",
    "conclude",
    "draw",
    "effects",
    "grid",
    "rows",
    "run",
]

TITLE = "Compare dropout and weight decay, and use both at the same time"
DECAY = 1e-3
NEITHER, DROPOUT, DECAYED, BOTH = (
    {"dropout_1": p, "dropout_2": p, "weight_decay": decay} for decay in (0.0, DECAY) for p in (0.0, 0.5)
)
SETTINGS = {"neither": NEITHER, "dropout": DROPOUT, "weight decay": DECAYED, "both": BOTH}
METRICS = {"last_val_acc": "validation accuracy", "gap": "generalisation gap"}

SENTENCES = {
    "effect of dropout": (
        "Dropout raises the {metric}",
        "Dropout lowers the {metric}",
        "No effect of dropout on the {metric} is shown",
    ),
    "effect of weight decay": (
        "Weight decay raises the {metric}",
        "Weight decay lowers the {metric}",
        "No effect of weight decay on the {metric} is shown",
    ),
    "interaction": (
        "The effect of dropout on the {metric} is higher with weight decay than without",
        "The effect of dropout on the {metric} is lower with weight decay than without",
        "No interaction of the two in the {metric} is shown",
    ),
}  # if the interval is above 0, below 0, or on both sides of it


def grid(quick: bool) -> list[Settings]:
    """Return the chapter's model with each of the two or neither, and with both."""
    return [{"epochs": 2 if quick else 20, **each} for each in SETTINGS.values()]


def run(seed: int, **settings: Any) -> Numbers:
    """Train, and return accuracies without dropout: after each epoch, and the gap after the last."""
    trained = TrainingSamples(settings["data"])
    val_acc = [each["val_acc"] for each in fitted(seed, callbacks=[trained], **settings).history]
    return {"val_acc": val_acc, "last_val_acc": val_acc[-1], "gap": trained.accuracies[-1] - val_acc[-1]}


def effects(results: Results, metric: str) -> dict[str, Any]:
    """Return the effects of the two-way design, a number per seed.

    An effect of one factor is the mean over the levels of the other. The interaction is by how much dropout does more
    with weight decay than without.
    """
    neither, dropout, decayed, both = (results.values(metric, **each) for each in SETTINGS.values())
    return {
        "effect of dropout": (dropout - neither + both - decayed) / 2,
        "effect of weight decay": (decayed - neither + both - dropout) / 2,
        "interaction": (both - decayed) - (dropout - neither),
    }


def rows(results: Results) -> list[Row]:
    """Return each combination against neither, and the effects."""
    lines = []
    for metric, title in METRICS.items():
        baseline = results.values(metric, **NEITHER)
        for name, each in SETTINGS.items():
            lines.append(row(name, title, results.values(metric, **each), None if each is NEITHER else baseline))
        lines += [contrast(name, title, values) for name, values in effects(results, metric).items()]
    return lines


def conclude(results: Results) -> list[str]:
    """Say what each does, and whether the one does something else beside the other."""
    sentences = [
        verdict(estimate(values), *(sentence.format(metric=title) for sentence in SENTENCES[name]))
        for metric, title in METRICS.items()
        for name, values in effects(results, metric).items()
    ]
    return [f"Weight decay is {DECAY}, of weights and biases; dropout is 0.5 in both layers.", *sentences]


def draw(results: Results, figure: Any) -> None:
    """Draw the validation accuracy after each epoch."""
    axes = figure.subplots()
    for name, each in SETTINGS.items():
        band(axes, results.values("val_acc", **each), name)
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")

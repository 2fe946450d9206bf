"""Exercise 6: noise on the weights in place of the activations: DropConnect, dropout, and neither.

With DropConnect the weights of both hidden layers are dropped, with the probability with which dropout drops what
these layers return. All samples of a batch share one mask, see `d2ldrop.studies.noisy.on_weights`; the paper draws one
for each sample (Wan, Zeiler, Zhang, LeCun and Fergus, ICML 2013).
"""

from typing import Any

from d2ldrop.studies.noisy import noisy_model
from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Results, Row, band, compared, contrast, row
from d2ldrop.studies.training import TrainingSamples, fitted

__all__ = ["METRICS", "NEITHER", "PROBABILITIES", "TITLE", "conclude", "draw", "grid", "label", "pairs", "rows", "run"]

TITLE = "Noise on the weights: DropConnect against dropout, and neither"
NEITHER: Settings = {"noise": "dropout", "strength": 0.0}
PROBABILITIES = (0.2, 0.5)
METRICS = {"last_val_acc": "validation accuracy", "gap": "generalisation gap"}


def grid(quick: bool) -> list[Settings]:
    """Return the chapter's model without noise, and with either kind at the same probabilities."""
    probabilities = PROBABILITIES[-1:] if quick else PROBABILITIES
    noisy = [{"noise": noise, "strength": p} for p in probabilities for noise in ("dropout", "DropConnect")]
    return [{"epochs": 2 if quick else 10, **each} for each in [NEITHER, *noisy]]


def run(seed: int, backend: str, noise: str, strength: float, **settings: Any) -> Numbers:
    """Train, and return accuracies without noise: after each epoch, and the gap after the last."""
    trained = TrainingSamples(settings["data"])
    kind = noisy_model(backend, noise, strength)
    history = fitted(seed, backend=backend, model=kind, callbacks=[trained], **settings).history
    val_acc = [each["val_acc"] for each in history]
    return {"val_acc": val_acc, "last_val_acc": val_acc[-1], "gap": trained.accuracies[-1] - val_acc[-1]}


def pairs(results: Results) -> list[tuple[Settings, Settings]]:
    """Return the settings of dropout and of DropConnect that have the same probability."""
    noisy = results.grid[1:]
    return list(zip(noisy[::2], noisy[1::2], strict=True))


def rows(results: Results) -> list[Row]:
    """Return each kind of noise against none, and the two against each other."""
    lines = []
    for metric, title in METRICS.items():
        baseline = results.values(metric, **NEITHER)
        for each in results.grid:
            lines.append(
                row(label(each), title, results.values(metric, **each), baseline if each["strength"] else None)
            )
        for dropout, dropconnect in pairs(results):
            difference = results.values(metric, **dropconnect) - results.values(metric, **dropout)
            lines.append(contrast(f"{label(dropconnect)} minus dropout", title, difference))
    return lines


def conclude(results: Results) -> list[str]:
    """Compare the two with each other at each probability, and each with none."""
    sentences = []
    for metric, title in METRICS.items():
        neither = results.values(metric, **NEITHER)
        for pair in pairs(results):
            dropout, dropconnect = (results.values(metric, **each) for each in pair)
            names = [label(each) for each in pair]
            sentences.append(compared(names[1], title, dropconnect, names[0], dropout))
            sentences.append(compared(names[1], title, dropconnect, "neither", neither))
            sentences.append(compared(names[0], title, dropout, "neither", neither))
    return ["All samples of a batch share one mask of the weights, where the paper has one per sample.", *sentences]


def draw(results: Results, figure: Any) -> None:
    """Draw the validation accuracy after each epoch."""
    axes = figure.subplots()
    styles = {"dropout": "C0", "DropConnect": "C1"}
    for each in results.grid:
        color = styles[each["noise"]] if each["strength"] else "k"
        lines = "--" if each["strength"] == PROBABILITIES[0] else "-"
        band(axes, results.values("val_acc", **each), label(each), color=color, ls=lines)
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def label(setting: Settings) -> str:
    """Return how the table calls a setting."""
    return f"{setting['noise']}, p = {setting['strength']}" if setting["strength"] else "neither"

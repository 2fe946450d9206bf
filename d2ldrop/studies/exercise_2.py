"""Exercise 2: train for more epochs, and compare what happens with dropout and without."""

from typing import Any

from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Results, Row, band, compared, estimate, row, verdict
from d2ldrop.studies.training import TrainingSamples, fitted

__all__ = ["METRICS", "SETTINGS", "TITLE", "WITH", "WITHOUT", "conclude", "draw", "grid", "rows", "run"]

TITLE = "Train for more epochs, with and without dropout"
WITHOUT, WITH = {"dropout_1": 0.0, "dropout_2": 0.0}, {"dropout_1": 0.5, "dropout_2": 0.5}
SETTINGS = {"without dropout": WITHOUT, "with dropout": WITH}
METRICS = {
    "last_train_acc": "training accuracy",
    "last_val_acc": "validation accuracy",
    "gap": "generalisation gap",
    "last_val_loss": "validation loss",
    "best_epoch": "epoch of the lowest validation loss",
}


def grid(quick: bool) -> list[Settings]:
    """Return the chapter's model without dropout, and with it."""
    return [{"epochs": 4 if quick else 30, **each} for each in SETTINGS.values()]


def run(seed: int, **settings: Any) -> Numbers:
    """Train, and return accuracies and losses after each epoch, all without dropout, and those after the last."""
    trained = TrainingSamples(settings["data"])
    history = fitted(seed, callbacks=[trained], **settings).history
    val_acc, val_loss = ([each[name] for each in history] for name in ("val_acc", "val_loss"))
    return {
        "train_acc": trained.accuracies,
        "val_acc": val_acc,
        "train_loss": trained.losses,
        "val_loss": val_loss,
        "last_train_acc": trained.accuracies[-1],
        "last_val_acc": val_acc[-1],
        "last_val_loss": val_loss[-1],
        "gap": trained.accuracies[-1] - val_acc[-1],
        "best_epoch": 1 + val_loss.index(min(val_loss)),
    }


def rows(results: Results) -> list[Row]:
    """Return each metric without dropout and with it."""
    return [
        row(name, title, results.values(metric, **each), None if each is WITHOUT else results.values(metric, **WITHOUT))
        for metric, title in METRICS.items()
        for name, each in SETTINGS.items()
    ]


def conclude(results: Results) -> list[str]:
    """Compare the two after the last epoch, and say when each is at its best."""
    epochs = results.grid[0]["epochs"]
    sentences = [
        compared("dropout", f"{METRICS[metric]} after {epochs} epochs", results.values(metric, **WITH), "none",
                 results.values(metric, **WITHOUT))
        for metric in ("gap", "last_val_acc", "last_val_loss")
    ]  # fmt: skip
    for name, each in SETTINGS.items():
        losses = results.values("val_loss", **each)
        best = int(losses.mean(axis=0).argmin())
        lowest = f"{name.capitalize()}, mean validation loss is lowest after epoch {best + 1}"
        since = [f"{lowest}, and {what}" for what in ("has risen since", "has fallen since", "no rise since is shown")]
        sentences.append(
            verdict(estimate(losses[:, -1] - losses[:, best]), *since) if best + 1 < epochs else f"{lowest}, the last."
        )
    return sentences


def draw(results: Results, figure: Any) -> None:
    """Draw curves of accuracy and loss, with bands over the seeds."""
    panels = figure.subplots(1, 2)
    for axes, metric, title in zip(panels, ("acc", "loss"), ("accuracy", "loss"), strict=True):
        for k, (name, each) in enumerate(SETTINGS.items()):
            band(axes, results.values(f"train_{metric}", **each), f"{name}, training", color=f"C{k}", ls="--")
            band(axes, results.values(f"val_{metric}", **each), f"{name}, validation", color=f"C{k}")
        axes.set(xlabel="epoch", ylabel=f"{title}, measured without dropout")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")

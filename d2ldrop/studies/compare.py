"""Train the chapter's models in several backends, from the same weights and, on request, with the same masks."""

import importlib.metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.data import ArrayData
from d2ldrop.files import replacing
from d2ldrop.registry import get_backend, package_of
from d2ldrop.training.callbacks import Callback, Training
from d2ldrop.training.trainer import Trainer

__all__ = ["CHAPTER", "LEAST", "POINTS", "Losses", "Run", "draw", "grouped", "means", "run", "show", "version_of"]

CHAPTER = {"num_hiddens_1": 256, "num_hiddens_2": 256, "dropout_1": 0.5, "dropout_2": 0.5, "lr": 0.1}
"""The chapter's hyperparameters, except the number of outputs."""


POINTS = 40
"""How many points a curve of `draw` has at most: each is a mean of several steps, as those of single ones are noisy."""

LEAST = 1e-9
"""What is drawn in the place of smaller differences, as the axis is logarithmic."""


class Run(NamedTuple):
    """The results of one training."""

    backend: str
    model: str
    seed: int
    accuracy: float  # on the validation samples, after the last epoch
    seconds: float  # median over the epochs, validation included
    version: str  # of the framework
    losses: np.ndarray  # of each step, under dropout
    accuracies: np.ndarray  # on the validation samples, after each epoch

    @property
    def name(self) -> str:
        """The backend and the model."""
        return f"{self.backend} {self.model.removeprefix('Dropout')}"


class Losses(Callback):
    """Keeps the training loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_epoch_end(self, trainer: Training) -> None:
        """Add the epoch's losses."""
        self.values += trainer.epoch_log["train_loss"][0]


def run(
    name: str,
    model_name: str,
    data: ArrayData,
    epochs: int,
    seed: int,
    shared_masks: bool,
    progress: bool = False,
    **hparams: Any,
) -> Run:
    """Train a model at the chapter's values, or at others.

    Parameters
    ----------
    name
        The backend.
    model_name
        The class of the model.
    data
        What to train on.
    epochs, seed, shared_masks, progress
        As for `Trainer`.
    hparams
        Hyperparameters of the model that replace those of `CHAPTER`.
    """
    model = get_backend(name).models[model_name](num_outputs=data.num_classes, **{**CHAPTER, **hparams})
    losses = Losses()
    trainer = Trainer(epochs, seed=seed, shared_masks=shared_masks, callbacks=[losses], progress=progress)
    trainer.fit(model, data)
    seconds = float(np.median([row["seconds"] for row in trainer.history]))
    accuracies = np.array([row["val_acc"] for row in trainer.history])
    version = version_of(name)
    return Run(name, model_name, seed, accuracies[-1], seconds, version, np.array(losses.values), accuracies)


def version_of(name: str) -> str:
    """Return the version of a backend's framework that is installed, without importing it."""
    package = package_of(name)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # of another name than the package, as tensorflow-cpu
        return importlib.metadata.version(importlib.metadata.packages_distributions()[package][0])


def grouped(runs: list[Run]) -> dict[str, list[Run]]:
    """Return the runs, one per seed, of each backend and model, by their name."""
    groups: dict[str, list[Run]] = {}
    for row in runs:
        groups.setdefault(row.name, []).append(row)
    return groups


def show(runs: list[Run]) -> None:
    """Print a table, with a row for each backend and model."""
    from rich.console import Console
    from rich.table import Table

    several = len({row.seed for row in runs}) > 1
    accuracy = ["mean accuracy", "least", "largest"] if several else ["validation accuracy"]
    table = Table("backend", "model", *accuracy, "seconds per epoch", "version")
    for group in grouped(runs).values():
        row, values = group[0], [row.accuracy for row in group]
        numbers = [np.mean(values), min(values), max(values)] if several else values
        seconds = np.median([row.seconds for row in group])
        model = row.model.removeprefix("Dropout")
        table.add_row(row.backend, model, *(f"{x:.4f}" for x in numbers), f"{seconds:.2f}", row.version)
    Console().print(table)


def draw(runs: list[Run], path: Path) -> None:
    """Draw the training losses, the validation accuracies, and how far the losses are from those of one of the runs.

    Each backend has a colour, each model a line style. With several seeds, lines are means over them, and bands reach
    from the least value to the largest. Differences are taken seed by seed, from NumPy's model by hand if it is there.
    """
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(9, 6.4), sharex="col", layout="constrained")
    (losses, accuracies), (differences, legend) = grid
    groups, epochs = grouped(runs), len(runs[0].accuracies)
    name = "numpy MLPScratch" if "numpy MLPScratch" in groups else next(iter(groups))
    reference = np.array([row.losses for row in groups[name]])
    backends, models = (list(dict.fromkeys(getattr(row, key) for row in runs)) for key in ("backend", "model"))
    for k, (label, group) in enumerate(groups.items()):
        row, steps = group[0], np.array([row.losses for row in group])
        wide = 1 + 3.5 * (len(groups) - 1 - k) / len(groups)  # the first ones wider, to be seen behind others
        style = {"color": f"C{backends.index(row.backend)}", "ls": ("-", "--")[models.index(row.model) % 2], "lw": wide}
        x, y = means(steps)
        _line(losses, epochs * x, y, style)
        _line(accuracies, np.arange(epochs) + 1, np.array([row.accuracies for row in group]), style)
        if label != name:
            x, y = means(np.abs(steps / reference - 1))
            _line(differences, epochs * x, np.maximum(y, LEAST), style)
        legend.plot([], [], label=label, **style)
    window = max(1, round(reference.shape[1] / POINTS))
    losses.set(title="training loss (nats)" + (f", means of {window} steps" if window > 1 else ""), xlabel="epoch")
    accuracies.set(title="validation accuracy", xlabel="epoch")
    accuracies.xaxis.get_major_locator().set_params(integer=True)
    differences.set(title=f"relative difference of the loss from that of\n{name}; {LEAST:g}: none", xlabel="epoch")
    differences.set_yscale("log")
    for axes in (losses, accuracies, differences):
        axes.grid(alpha=0.3)
        axes.tick_params(labelbottom=True)
    legend.set_axis_off()
    seeds = len({row.seed for row in runs})
    legend.legend(loc="center", title=f"means and ranges of {seeds} seeds" if seeds > 1 else None)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def means(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means over windows of steps, (runs, steps) -> (runs, points), and where they are, from 0 to 1."""
    count = steps.shape[1]
    starts = np.unique(np.linspace(0, count, POINTS, endpoint=False).astype(int))
    sizes = np.diff([*starts, count])
    return (starts + sizes / 2) / count, np.add.reduceat(steps, starts, axis=1) / sizes


def _line(axes: Any, x: np.ndarray, values: np.ndarray, style: dict[str, Any]) -> None:
    """Draw the mean of curves (runs, points) as a line, and their range as a band."""
    axes.plot(x, values.mean(axis=0), marker="." if len(x) == 1 else "", **style)
    if len(values) > 1:
        axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.12, lw=0)

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

__all__ = ["CHAPTER", "Losses", "Run", "draw", "run", "show", "version_of"]

CHAPTER = {"num_hiddens_1": 256, "num_hiddens_2": 256, "dropout_1": 0.5, "dropout_2": 0.5, "lr": 0.1}
"""The chapter's hyperparameters, except the number of outputs."""


class Run(NamedTuple):
    """The results of one training."""

    backend: str
    model: str
    accuracy: float  # on the validation samples, after the last epoch
    seconds: float  # median over the epochs, validation included
    version: str  # of the framework
    losses: np.ndarray  # of each step, under dropout


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
    epochs, seed, shared_masks
        As for `Trainer`.
    hparams
        Hyperparameters of the model that replace those of `CHAPTER`.
    """
    model = get_backend(name).models[model_name](num_outputs=data.num_classes, **{**CHAPTER, **hparams})
    losses = Losses()
    trainer = Trainer(epochs, seed=seed, shared_masks=shared_masks, callbacks=[losses], progress=False)
    trainer.fit(model, data)
    seconds = float(np.median([row["seconds"] for row in trainer.history]))
    return Run(name, model_name, trainer.history[-1]["val_acc"], seconds, version_of(name), np.array(losses.values))


def version_of(name: str) -> str:
    """Return the version of a backend's framework that is installed."""
    distributions = importlib.metadata.packages_distributions()  # its name may differ, as with tensorflow-cpu
    return importlib.metadata.version(distributions[package_of(name)][0])


def show(runs: list[Run]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("backend", "model", "validation accuracy", "seconds per epoch", "version")
    for row in runs:
        table.add_row(
            row.backend, row.model.removeprefix("Dropout"), f"{row.accuracy:.4f}", f"{row.seconds:.2f}", row.version
        )
    Console().print(table)


def draw(runs: list[Run], path: Path) -> None:
    """Draw the loss of each step, curves on top of each other, and below how far each is from the last one's."""
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    reference = runs[-1]
    for k, row in enumerate(runs):
        width = 1 + 1.5 * (len(runs) - 1 - k)  # the first ones wider, so that all can be seen
        label = f"{row.backend} {row.model}"
        above.plot(row.losses, lw=width, color=f"C{k}", label=label, alpha=0.8)
        if row is not reference and len(row.losses) == len(reference.losses):
            difference = np.abs(row.losses / reference.losses - 1)
            below.semilogy(np.maximum(difference, 1e-9), lw=0.8, color=f"C{k}", label=label)
    above.set(ylabel="training loss of each step")
    below.set(xlabel="step", ylabel=f"relative difference\nfrom {reference.backend} {reference.model}")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)

"""Exercise 7: is there a noise that does better than dropout? A search on validation samples, and one test.

Settings are chosen by the mean accuracy on samples that are held out of the training set, see `held_out`: the best of
dropout, and the best of all other noise. Only these two are then trained again, from other seeds, so that luck in the
search does not count, and measured once per seed on the test samples.

Where the noise goes: dropout, gaussian dropout and alpha dropout act on what both hidden layers return, input noise on
the pixels. Alpha dropout was made for SELU; behind ReLU it moves mean and variance a little.
"""

from typing import Any

import numpy as np

from d2ldrop.studies.noisy import noisy_model
from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Results, Row, estimate, paired, row, verdict
from d2ldrop.studies.training import fitted, held_out, load

__all__ = [
    "NONE",
    "OTHER_SEEDS",
    "SEARCH",
    "STRENGTHS",
    "TEST",
    "TITLE",
    "conclude",
    "draw",
    "finalists",
    "finals",
    "grid",
    "label",
    "rows",
    "run",
    "validated",
]

TITLE = "Other noise than dropout: a search on samples held out of training, and one test"
NONE: Settings = {"noise": "dropout", "strength": 0.0}
STRENGTHS = {
    "dropout": (0.1, 0.3, 0.5),
    "gaussian dropout": (0.1, 0.3, 0.5),
    "alpha dropout": (0.05, 0.1, 0.2),
    "input noise": (0.1, 0.2, 0.4),
}
SEARCH, TEST = {"stage": "search"}, {"stage": "test"}
OTHER_SEEDS = 1000  # is added to those of the search


def grid(quick: bool) -> list[Settings]:
    """Return the settings of the search: no noise, and each kind in several strengths."""
    noisy = [
        {"noise": noise, "strength": strength}
        for noise, strengths in STRENGTHS.items()
        for strength in (strengths[1:2] if quick else strengths)
    ]
    return [{"epochs": 2 if quick else 10, **each, **SEARCH} for each in [NONE, *noisy]]


def finals(results: Results) -> list[Settings]:
    """Return what is tested: the best of dropout, and the best of all other noise."""
    dropout = [each for each in results.grid if each["noise"] == "dropout" and each["strength"]]
    others = [each for each in results.grid if each["noise"] != "dropout"]
    best = [max(each, key=lambda setting: validated(results, setting).mean()) for each in (dropout, others)]
    return [{**each, **TEST} for each in best]


def validated(results: Results, setting: Settings) -> np.ndarray:
    """Return the validation accuracies of a setting in the search, (seeds,)."""
    return results.values("val_acc", **{**setting, **SEARCH})


def run(seed: int, backend: str, data: str, noise: str, strength: float, stage: str, **settings: Any) -> Numbers:
    """Train on what is not held out, and return the accuracy on what is or, in the test, on the test samples."""
    kind = noisy_model(backend, noise, strength)
    seed += OTHER_SEEDS * (stage == "test")
    trainer = fitted(seed, backend=backend, data=held_out(data), model=kind, **settings)
    if stage == "test":
        return {"test_acc": trainer.evaluate(data=load(data))["val_acc"]}
    return {"val_acc": trainer.history[-1]["val_acc"]}


def finalists(results: Results) -> list[Settings]:
    """Return the settings that were tested, dropout first."""
    return [each for each in results.grid if each["stage"] == "test"]


def rows(results: Results) -> list[Row]:
    """Return the search, each setting against no noise, and the test, against dropout."""
    none = validated(results, NONE)
    lines = [
        row(label(each), "accuracy on held-out samples", validated(results, each), none if each["strength"] else None)
        for each in results.grid if each["stage"] == "search"
    ]  # fmt: skip
    dropout, other = finalists(results)
    baseline = results.values("test_acc", **dropout)
    return [
        *lines,
        row(label(dropout), "test accuracy", baseline),
        row(label(other), "test accuracy", results.values("test_acc", **other), baseline),
    ]


def conclude(results: Results) -> list[str]:
    """Say what the search has chosen, and what the test says of it."""
    tested = finalists(results)
    names, tries = [label(each) for each in tested], [_tries(results, dropout) for dropout in (True, False)]
    found = [
        f"{name} (best of {count}, {validated(results, each).mean():.4f})"
        for name, count, each in zip(names, tries, tested, strict=True)
    ]
    dropout, other = (results.values("test_acc", **each) for each in tested)
    return [
        f"By the mean accuracy on held-out samples, the search chooses {found[0]} of dropout, and {found[1]} of the "
        "other noise; as they were chosen by these numbers, both are overestimates.",
        verdict(
            paired(other, dropout),
            f"On the test samples {names[1]} does better than {names[0]}",
            f"On the test samples {names[1]} does worse than {names[0]}",
            f"On the test samples no difference is shown between {names[1]} and {names[0]}, so no noise tried here is "
            "shown to do better than dropout",
        ),
        f"Test accuracies are {other.mean():.4f} and {dropout.mean():.4f}, of networks trained from other seeds than "
        "the search; nothing was chosen by them.",
    ]


def _tries(results: Results, dropout: bool) -> int:
    """Return how many settings of dropout, or of other noise, were in the search."""
    searched = [each for each in results.grid if each["stage"] == "search" and each["strength"]]
    return sum((each["noise"] == "dropout") == dropout for each in searched)


def draw(results: Results, figure: Any) -> None:
    """Draw the accuracies of the search and of the test, with their intervals."""
    axes = figure.subplots()
    searched = [each for each in results.grid if each["stage"] == "search"]
    places = {label(each): -k for k, each in enumerate(searched)}
    stages = (("held-out samples", "o", searched, 0.0), ("test samples", "D", finalists(results), -0.3))
    for k, (title, marker, settings, shift) in enumerate(stages):
        metric = "test_acc" if k else "val_acc"
        found = [estimate(results.values(metric, **each)) for each in settings]
        reach = [each.reach for each in found]
        y = [places[label(each)] + shift for each in settings]
        axes.errorbar(
            [each.mean for each in found], y, xerr=reach, fmt=marker, color=f"C{k}", capsize=2, ms=4, label=title
        )
    axes.set(yticks=list(places.values()), xlabel="accuracy, mean and 95% interval")
    axes.set_yticklabels(list(places), fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def label(setting: Settings) -> str:
    """Return how the table calls a setting."""
    if not setting["strength"]:
        return "no noise"
    name = "sigma" if setting["noise"] == "input noise" else "p"
    return f"{setting['noise']}, {name} = {setting['strength']}"

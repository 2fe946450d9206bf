"""Exercise 4: why dropout is not used at test time: what a network predicts with the mask, without it, and on average.

Three ways to predict, all by the same trained network: with one mask per sample; without a mask, which is called the
mean network, as each activation has the mean that it had over the masks; and by the mean of the probabilities over T
masks, Monte Carlo dropout (Gal and Ghahramani, ICML 2016).
"""

import time
from typing import Any

import numpy as np

from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Estimate, Results, Row, compared, estimate, row
from d2ldrop.studies.training import fitted, load
from d2ldrop.uncertainty import mc_predict, predict_proba

__all__ = ["MASKS", "METRICS", "PASSES", "TITLE", "WAYS", "conclude", "draw", "grid", "rows", "run", "scores"]

TITLE = "Why dropout is left out at test time: one mask, the mean network, and averages over masks"
MASKS = (1, 10, 100)
WAYS = {"mean": "mean network"} | {f"masks_{T}": "one mask" if T == 1 else f"average over {T} masks" for T in MASKS}
PASSES = {"mean": 1} | {f"masks_{T}": T for T in MASKS}
METRICS = {"acc": "validation accuracy", "log_loss": "validation log loss"}


def grid(quick: bool) -> list[Settings]:
    """Return the chapter's model; what is compared is how it predicts."""
    return [{"epochs": 2 if quick else 10}]


def run(seed: int, **settings: Any) -> Numbers:
    """Train, and return accuracy and log loss of each way to predict, its forward passes per sample, and its time."""
    model = fitted(seed, **settings).model
    X, y = load(settings["data"]).split(train=False, channels_last=model.backend.channels_last)

    def under_masks(samples: int) -> Any:
        return mc_predict(model, X, samples=samples, seed=seed)

    def predict(way: str, most: int = MASKS[-1]) -> Any:
        return predict_proba(model, X) if way == "mean" else under_masks(min(PASSES[way], most)).probabilities

    numbers: dict[str, Any] = {}
    for way in WAYS:
        predict(way, most=10)  # what a compiler does at first is not measured
        started = time.perf_counter()
        probabilities = predict(way)
        numbers[f"{way}_seconds"] = time.perf_counter() - started
        numbers |= {f"{way}_{metric}": value for metric, value in scores(probabilities, y).items()}
        numbers[f"{way}_passes"] = PASSES[way]
    ratios = under_masks(2).variation_ratio  # 1/2 where the two disagree, and otherwise 0
    numbers["changed"] = 2 * float(ratios.mean())
    return numbers


def scores(probabilities: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return accuracy and log loss, in nats, of probabilities (N, K) for labels (N,).

    Examples
    --------
    >>> scores(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1]))
    {'acc': 1.0, 'log_loss': 0.34657359027997264}
    """
    at_labels = np.maximum(probabilities[np.arange(len(y)), y], np.finfo(float).tiny)  # the logarithm stays finite
    return {"acc": float((probabilities.argmax(axis=1) == y).mean()), "log_loss": float(-np.log(at_labels).mean())}


def rows(results: Results) -> list[Row]:
    """Return each way against the mean network, and what it costs."""
    lines = [
        row(title, name, results.values(f"{way}_{metric}"), None if way == "mean" else results.values(f"mean_{metric}"))
        for metric, name in METRICS.items()
        for way, title in WAYS.items()
    ]
    lines += [row(title, "forward passes per sample", results.values(f"{way}_passes")) for way, title in WAYS.items()]
    mean = results.values("mean_seconds")
    for way, title in WAYS.items():
        lines.append(row(title, "time, mean network = 1", results.values(f"{way}_seconds") / mean))
    return [*lines, row("two masks", "share with different classes", results.values("changed"))]


def conclude(results: Results) -> list[str]:
    """Compare one mask and the average of most masks with the mean network, and say what an average costs."""
    most = f"masks_{MASKS[-1]}"
    sentences = [
        compared(f"the {WAYS[way]}" if way == most else f"{WAYS[way]} per sample", name,
                 results.values(f"{way}_{metric}"), "the mean network", results.values(f"mean_{metric}"))
        for way in ("masks_1", most) for metric, name in METRICS.items()
    ]  # fmt: skip
    changed: Estimate = estimate(results.values("changed"))
    cost = f"{PASSES[most]} forward passes per sample, the mean network {PASSES['mean']}"
    return [
        *sentences,
        f"Two masks of the same network put this share of the samples into different classes: {changed}.",
        f"The {WAYS[most]} takes {cost}; the table has the time, which is of this machine.",
    ]


def draw(results: Results, figure: Any) -> None:
    """Draw accuracy and log loss over the number of masks, and those of the mean network as lines."""
    panels = figure.subplots(1, 2)
    for axes, (metric, name) in zip(panels, METRICS.items(), strict=True):
        found = [estimate(results.values(f"masks_{T}_{metric}")) for T in MASKS]
        reach = [each.reach for each in found]
        axes.errorbar(MASKS, [each.mean for each in found], reach, fmt="o-", capsize=3, label="average over masks")
        mean = estimate(results.values(f"mean_{metric}"))
        axes.axhline(mean.mean, color="C1", label="mean network")
        if results.seeds > 1:
            axes.axhspan(mean.low, mean.high, color="C1", alpha=0.2, lw=0)
        axes.set(xscale="log", xticks=MASKS, xticklabels=MASKS, xlabel="masks = forward passes", ylabel=name)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")

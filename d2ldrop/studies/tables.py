"""From numbers to statements: means over seeds, paired differences with their intervals, tables, and conclusions.

Differences are *paired*: they are taken between runs of the same seed, which share initial weights and the order of the
samples, and then averaged. Intervals are Student's, at 95%: of such intervals, one in twenty misses the true mean.
"""

import csv
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.errors import ArgumentError
from d2ldrop.files import as_json, replacing
from d2ldrop.studies.store import Numbers, Settings

__all__ = [
    "HEADINGS",
    "Estimate",
    "Results",
    "Row",
    "band",
    "cells",
    "compared",
    "contrast",
    "estimate",
    "markdown",
    "paired",
    "row",
    "show",
    "verdict",
    "write_csv",
]


class Estimate(NamedTuple):
    """The mean of some numbers, and what it says about the mean of all that could have been drawn."""

    mean: float
    standard_error: float  # nan for a single number
    n: int
    low: float  # the ends of the 95% interval; infinite for a single number
    high: float

    @property
    def reach(self) -> float:
        """How far an error bar goes from the mean: to the ends of the interval; 0 for a single number."""
        return self.high - self.mean if self.n > 1 else 0.0

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.mean:+.4f} (1 seed, so no interval)"
        return f"{self.mean:+.4f} (95% interval {self.low:+.4f} to {self.high:+.4f}, {self.n} seeds)"


def estimate(values: Iterable[float]) -> Estimate:
    """Return mean, standard error and 95% interval of independent numbers.

    Examples
    --------
    >>> print(estimate([1.0, 2.0, 3.0]))
    +2.0000 (95% interval -0.4841 to +4.4841, 3 seeds)
    """
    from scipy.stats import t

    x = np.asarray(list(values), float)
    mean, n = float(x.mean()), len(x)
    if n == 1:
        return Estimate(mean, math.nan, n, -math.inf, math.inf)
    error = float(x.std(ddof=1)) / math.sqrt(n)
    reach = float(t.ppf(0.975, n - 1)) * error
    return Estimate(mean, error, n, mean - reach, mean + reach)


def paired(values: Iterable[float], baseline: Iterable[float]) -> Estimate:
    """Return the estimate of the difference `values - baseline`, in both of which seeds are in the same order."""
    return estimate(a - b for a, b in zip(values, baseline, strict=True))


class Results:
    """The numbers of all runs of a grid.

    Parameters
    ----------
    grid
        The settings.
    seeds
        How often each was run.
    numbers
        What the runs returned: for each setting, for each seed.
    """

    def __init__(self, grid: Sequence[Settings], seeds: int, numbers: Sequence[Numbers]):
        self.grid, self.seeds, self.numbers = list(grid), seeds, list(numbers)

    def values(self, metric: str, **setting: Any) -> np.ndarray:
        """Return a number in the order of the seeds, (seeds,), or a curve, (seeds, length).

        Parameters
        ----------
        metric
            A name in what the runs returned.
        setting
            As much of a setting as tells it from the others.
        """
        found = [k for k, each in enumerate(self.grid) if setting.items() <= each.items()]
        if len(found) != 1:
            raise ArgumentError(f"Expected values that one setting has. Received: {setting}, which {len(found)} have")
        (k,) = found
        return np.array([each[metric] for each in self.numbers[k * self.seeds : (k + 1) * self.seeds]])


class Row(NamedTuple):
    """A line of a table; `difference` and its interval are from the baseline, and nan in the baseline's own line."""

    setting: str
    metric: str
    mean: float
    standard_error: float
    n: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan


def row(setting: str, metric: str, values: Iterable[float], baseline: Iterable[float] | None = None) -> Row:
    """Return the line of a setting's metric; without a baseline, it has no difference."""
    difference = (math.nan,) * 3
    if baseline is not None:
        compared = paired(values, baseline)
        difference = (compared.mean, compared.low, compared.high)
    return Row(setting, metric, *estimate(values)[:3], *difference)


def contrast(name: str, metric: str, differences: Iterable[float]) -> Row:
    """Return the line of a comparison that is not with the baseline, one difference per seed."""
    found = estimate(differences)
    return Row(name, metric, math.nan, found.standard_error, found.n, found.mean, found.low, found.high)


def verdict(difference: Estimate, higher: str, lower: str, neither: str) -> str:
    """Return the sentence that a difference supports, with its interval.

    Parameters
    ----------
    difference
        Of which the interval decides: above 0, below 0, or on both sides of it. One of no length, of two seeds
        that happen to differ by the same number, decides nothing.
    higher, lower, neither
        The sentences for these, without a full stop.
    """
    decided = difference.n > 2 or difference.low < difference.high
    sentence = higher if decided and difference.low > 0 else lower if decided and difference.high < 0 else neither
    return f"{sentence}: {difference}."


def compared(what: str, metric: str, values: Iterable[float], than: str, baseline: Iterable[float]) -> str:
    """Return a sentence on whether one setting's metric is above or below another's, seed by seed."""
    return verdict(
        paired(values, baseline),
        f"With {what}, {metric} is higher than with {than}",
        f"With {what}, {metric} is lower than with {than}",
        f"Between {what} and {than}, no difference in {metric} is shown",
    )


HEADINGS = ("setting", "metric", "mean", "s.e.", "n", "difference", "95% interval")


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEADINGS)
    for each in rows:
        table.add_row(*cells(each))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def markdown(rows: Sequence[Row]) -> list[str]:
    """Return a table as lines of Markdown."""
    lines = [HEADINGS, tuple("---" if name in HEADINGS[:2] else "--:" for name in HEADINGS), *map(cells, rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cells(row: Row) -> tuple[str, ...]:
    """Return what a line of a table says, under `HEADINGS`."""
    interval = "" if math.isnan(row.low) else f"{row.low:+.4f} to {row.high:+.4f}"
    numbers = (_number(row.mean), _number(row.standard_error), str(row.n), _number(row.difference, "+"))
    return row.setting, row.metric, *numbers, interval


def _number(value: float, sign: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{sign}.4f}"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write a table; what is not there is empty."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        for each in rows:
            writer.writerow("" if value is None else value for value in as_json(each._asdict()).values())


# Figures


def band(axes: Any, curves: np.ndarray, label: str, **style: Any) -> None:
    """Draw the mean of curves (seeds, epochs), and around it the 95% interval of the mean at each epoch."""
    estimates = [estimate(values) for values in curves.T]
    x = np.arange(1, len(estimates) + 1)
    (line,) = axes.plot(x, [each.mean for each in estimates], label=label, **style)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(curves) > 1:
        low, high = [each.low for each in estimates], [each.high for each in estimates]
        axes.fill_between(x, low, high, alpha=0.2, color=line.get_color(), lw=0)

"""Measure an epoch of ours against one as the framework's users write it, in turn, in one process."""

import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from d2ldrop.backend import backend
from d2ldrop.compare import CHAPTER
from d2ldrop.trainer import Trainer

BATCH_SIZE = 256


def bench(names: list[str], data_name: str, repeats: int) -> list[dict[str, Any]]:
    """Time epochs at the chapter's values, with validation.

    Parameters
    ----------
    names
        Backends.
    data_name
        The class of the data set, such as `"FashionMNIST"`.
    repeats
        How many epochs to time of each, after one to warm up.

    Returns
    -------
    list of dict
        A row per backend and contestant: `seconds` (median), `fastest`, `slowest`, and `ratio`, the median time of
        the plain loop over its own.
    """
    rows = []
    for name in names:
        contestants = _contestants(name, data_name)
        times: dict[str, list[float]] = {who: [] for who in contestants}
        for turn in range(repeats + 1):
            for who, epoch in contestants.items():
                started = time.perf_counter()
                epoch()
                if turn > 0:
                    times[who].append(time.perf_counter() - started)
        medians = {who: statistics.median(values) for who, values in times.items()}
        for who, values in times.items():
            ratio = medians["plain loop"] / medians[who] if "plain loop" in medians else None
            row = {"backend": name, "what": who, "seconds": medians[who], "ratio": ratio}
            rows.append({**row, "fastest": min(values), "slowest": max(values)})
    return rows


def _contestants(name: str, data_name: str) -> dict[str, Callable[[], Any]]:
    """Return what to time, by name: functions that run one epoch."""
    d2l: Any = backend(name)
    data = getattr(d2l, data_name)(BATCH_SIZE)
    contestants: dict[str, Callable[[], Any]] = {}
    for kind in ("DropoutMLPScratch", "DropoutMLP"):
        trainer = Trainer(1, seed=0, progress=False)
        trainer.fit(getattr(d2l, kind)(num_outputs=data.num_classes, **CHAPTER), data)
        contestants[kind] = trainer.fit_epoch
    if importlib.util.find_spec(f"d2ldrop.{name}.rivals") is not None:
        rivals = importlib.import_module(f"d2ldrop.{name}.rivals")
        splits = (data.split(train, d2l.channels_last) for train in (True, False))
        contestants["plain loop"] = rivals.plain_loop(*splits, BATCH_SIZE, CHAPTER["lr"], CHAPTER["dropout_1"])
    return contestants


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the rows, as a table or as JSON."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("backend", "epoch of", "median s", "from", "to", "times as fast as the plain loop", title="Epochs")
    for row in rows:
        numbers = [f"{row[key]:.3f}" for key in ("seconds", "fastest", "slowest")]
        table.add_row(row["backend"], row["what"], *numbers, f"{row['ratio']:.2f}" if row["ratio"] else "")
    Console().print(table)

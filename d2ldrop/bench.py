"""The referee: our epochs and our dropout against what users of each framework would write, in turn, in one process.

Each backend is measured in a process of its own, where no other framework keeps threads or memory. Contestants take
turns, so that a machine that grows slower does so for all, and what counts is the ratio of two medians of one run.
"""

import gc
import importlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from d2ldrop.backend import backend
from d2ldrop.compare import CHAPTER, distribution
from d2ldrop.errors import UsageError
from d2ldrop.files import replacing
from d2ldrop.trainer import Trainer

PARTS = ("memory", "epochs", "layers", "scale")
SHAPES = ((256, 256), (4096, 1024))
PROBABILITIES = (0.5, 0.2)
BATCH_SIZE = 256

Row = dict[str, Any]
Contestants = dict[str, Callable[[], Any]]


def bench(names: list[str], parts: Iterable[str], data_name: str, repeats: int, device: str) -> list[Row]:
    """Measure, each backend in a process of its own.

    Parameters
    ----------
    names
        Backends.
    parts
        Some of `PARTS`: the memory that training takes; the time of epochs; the time of single dropout layers; how the
        time of an epoch grows with samples, width and batch.
    data_name
        The name of the data set for the command line, such as `"fashion-mnist"`.
    repeats
        How often to time each contestant, after a turn to warm up.
    device
        `"cpu"`, or `"gpu"`, on which all contestants but the copy of memory then run.

    Returns
    -------
    list of dict
        Rows with `backend`, `version`, `cores`, `device`, `part`, `what`, `who`; `value` (the median), `fastest` and
        `slowest`, in seconds or, for memory, in megabytes; and `rival`, `ratio`: the median of whoever it is compared
        with, over its own; and `floor`, `over_floor`: what an epoch or a layer cannot do without, and how many times
        as long the row's own median is.
    """
    rows = []
    for name in names:
        options = ["--backend", name, "--data", data_name, "--repeats", str(repeats), "--device", device, "--json"]
        options += [word for part in parts for word in ("--part", part)]
        done = subprocess.run([sys.executable, "-m", "d2ldrop", "bench", *options], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise UsageError(f"Expected to measure {name}. It ended with status {done.returncode}, see above.")
        rows += json.loads(done.stdout)
    return rows


def measure(name: str, parts: Iterable[str], data_class: str, repeats: int) -> list[Row]:
    """Measure one backend in this process, memory first, on a GPU if the framework sees one; see `bench`."""
    d2l: Any = backend(name)
    about = {"backend": name, "version": importlib.metadata.version(distribution(name)), "cores": cores()}
    measures = {
        "memory": lambda: memory(d2l, data_class),
        "epochs": lambda: epochs(d2l, data_class, repeats),
        "layers": lambda: layers(d2l, repeats),
        "scale": lambda: scale(d2l, repeats),
    }
    rows = [{**about, "part": part, **row} for part in PARTS if part in parts for row in measures[part]()]
    device = "gpu" if d2l.num_gpus() else "cpu"  # asked last: to look for a GPU takes memory
    return [{**row, "device": device} for row in rows]


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What is measured


def epochs(d2l: Any, data_class: str, repeats: int) -> list[Row]:
    """Time epochs at the chapter's values, with validation."""
    data = getattr(d2l, data_class)(BATCH_SIZE)
    contestants: Contestants = {
        "scratch": _epoch(d2l.DropoutMLPScratch(num_outputs=10, **CHAPTER), data),
        "concise": _epoch(d2l.DropoutMLP(num_outputs=10, **CHAPTER), data),
        "scratch, dropout 0": _epoch(
            d2l.DropoutMLPScratch(num_outputs=10, **{**CHAPTER, "dropout_1": 0, "dropout_2": 0}), data
        ),
    }
    rivals = _rivals(d2l)
    train, val = (data.split(train, d2l.channels_last) for train in (True, False))
    if hasattr(rivals, "plain_loop"):
        contestants["plain loop"] = rivals.plain_loop(train, val, BATCH_SIZE, CHAPTER["lr"], CHAPTER["dropout_1"])
    floors = dict.fromkeys(contestants, "matrix products")
    sizes = (train.X[0].size, 256, 256, 10)
    contestants["matrix products"] = rivals.matrix_products(sizes, BATCH_SIZE, len(train.y) // BATCH_SIZE, len(val.y))
    times = alternate(contestants, repeats)
    return summary(
        "epoch", times, {"scratch": "plain loop", "concise": "plain loop", "scratch, dropout 0": "scratch"}, floors
    )


def _epoch(model: Any, data: Any) -> Callable[[], None]:
    """Return what runs an epoch of a `fit` that goes on, on a GPU if the framework sees one."""
    trainer = Trainer(1, min(model.backend.num_gpus(), 1), seed=0, progress=False)
    trainer.fit(model, data)
    return trainer._fit_one_epoch


def layers(d2l: Any, repeats: int) -> list[Row]:
    """Time `dropout_layer`, the framework's own, and a product with a ready mask, both ways; and a copy of memory."""
    rows = []
    for shape in SHAPES:
        source, target = np.ones(shape, np.float32), np.empty(shape, np.float32)
        turns = max(1, 2**20 // source.size)  # a call too short to be timed is repeated
        for p in PROBABILITIES:
            calls = _rivals(d2l).dropout_calls(shape, p)
            for k, direction in enumerate(("forward", "forward and backward")):
                contestants = {who: _times(turns, directions[k]) for who, directions in calls.items()}
                contestants["copy"] = _times(turns, partial(np.copyto, target, source))
                times = alternate(contestants, repeats)
                times = {who: [seconds / turns for seconds in values] for who, values in times.items()}
                what = f"{shape[0]}x{shape[1]}, p = {p}, {direction}"
                rows += summary(what, times, {"dropout_layer": "own"}, {"dropout_layer": "product", "own": "product"})
    return rows


def _times(turns: int, call: Callable[[], Any]) -> Callable[[], None]:
    def several() -> None:
        for _ in range(turns):
            call()

    return several


def memory(d2l: Any, data_class: str) -> list[Row]:
    """Read how large this process is with the framework imported, and how large it was at most while training."""
    before = peak_memory()
    _epoch(d2l.DropoutMLPScratch(num_outputs=10, **CHAPTER), getattr(d2l, data_class)(BATCH_SIZE))()
    after = peak_memory()
    sizes = {"import": [before], "training": [after], "training beyond the import": [after - before]}
    return summary("peak memory", sizes, {}, {})


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in megabytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (2**20 if sys.platform == "darwin" else 2**10))


def scale(d2l: Any, repeats: int) -> list[Row]:
    """Time epochs while samples, width or batch grow, and fit an exponent: time goes like size to that power."""
    rng, rows = np.random.default_rng(0), []
    X, y = rng.integers(0, 256, (40_000, 784), np.uint8), rng.integers(0, 10, 40_000)
    axes = {"samples": (10_000, 20_000, 40_000), "width": (128, 256, 512, 1024), "batch": (64, 128, 256, 512, 1024)}
    for axis, sizes in axes.items():
        contestants: Contestants = {}
        for size in sizes:
            point = {"samples": 20_000, "width": 256, "batch": 256, axis: size}
            count = point["samples"]
            widths = {"num_hiddens_1": point["width"], "num_hiddens_2": point["width"]}
            data = d2l.ArrayData(X[:count], y[:count], X[:2000], y[:2000], batch_size=point["batch"])
            contestants[str(size)] = _epoch(d2l.DropoutMLPScratch(num_outputs=10, **{**CHAPTER, **widths}), data)
        times = alternate(contestants, repeats)
        medians = [statistics.median(values) for values in times.values()]
        exponent = float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])
        rows += [{**row, "exponent": exponent} for row in summary(axis, times, {}, {})]
    return rows


def _rivals(d2l: Any) -> Any:
    """Return the room of an adapter where its rivals are."""
    return importlib.import_module(f"{d2l.__name__}.rivals")


# How it is measured


def alternate(contestants: Contestants, repeats: int) -> dict[str, list[float]]:
    """Let each contestant run in turn, `repeats` times after a first time that does not count; return seconds."""
    times: dict[str, list[float]] = {who: [] for who in contestants}
    gc.collect()
    for turn in range(repeats + 1):
        for who, run in contestants.items():
            started = time.perf_counter()
            run()
            if turn > 0:
                times[who].append(time.perf_counter() - started)
    return times


def summary(what: str, values: dict[str, list[float]], rivals: dict[str, str], floors: dict[str, str]) -> list[Row]:
    """Return a row for each contestant: the median, the spread, and its ratios to its rival and its floor, if any."""
    medians = {who: statistics.median(numbers) for who, numbers in values.items()}
    rows = []
    for who, numbers in values.items():
        row = {"what": what, "who": who, "value": medians[who], "fastest": min(numbers), "slowest": max(numbers)}
        rival = rivals.get(who)
        if rival in medians:
            row |= {"rival": rival, "ratio": medians[rival] / medians[who]}
        if who in floors:
            row |= {"floor": floors[who], "over_floor": medians[who] / medians[floors[who]]}
        rows.append(row)
    return rows


# How it is shown


def show(rows: list[Row]) -> None:
    """Print a table for each thing that was measured: backends below each other, contestants side by side."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        people = max(([row["who"] for row in mine if row["backend"] == name] for name in _names(mine)), key=len)
        table = Table("backend", *people, title=f"{what}, {_scale(mine[0])[1]}: median (fastest to slowest)")
        for name in _names(mine):
            cells = {row["who"]: _cell(row) for row in mine if row["backend"] == name}
            table.add_row(name, *(cells.get(who, "") for who in people))
        console.print(table)
    versions = dict.fromkeys("{backend} {version} on {cores} cores, {device}".format(**row) for row in rows)
    console.print("; ".join(versions))


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["backend"] for row in rows))


def _scale(row: Row) -> tuple[float, str]:
    """Return in which unit to show a row's numbers, and by what to multiply them."""
    if row["part"] == "memory":
        return 1, "MB"
    return (1e6, "µs") if row["part"] == "layers" else (1, "s")


def _cell(row: Row) -> str:
    """Say how a contestant did, and how it compares with its rivals."""
    factor, unit = _scale(row)
    digits = 3 if unit == "s" else 0
    median, fastest, slowest = (f"{factor * row[key]:,.{digits}f}" for key in ("value", "fastest", "slowest"))
    lines = [median if fastest == slowest else f"{median} ({fastest} to {slowest})"]
    if "ratio" in row:
        lines.append(f"{row['ratio']:.2f} x as fast as {row['rival']}")
    if "floor" in row:
        lines.append(f"{row['over_floor']:.2f} x the {row['floor']}")
    if "exponent" in row:
        lines.append(f"time ~ {row['what']}^{row['exponent']:.2f}")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Draw the medians as bars, a panel for each thing that was timed; whiskers go from the fastest to the slowest."""
    from matplotlib import pyplot as plt

    timed = [row for row in rows if row["part"] in ("epochs", "layers")]
    panels = list(dict.fromkeys(row["what"] for row in timed))
    names = _names(timed)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    size = (5.5 * columns, (1.2 + 0.6 * len(names)) * lines)
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    for axes, what in zip(grid.ravel(), panels, strict=False):
        mine = [row for row in timed if row["what"] == what]
        factor, unit = _scale(mine[0])
        people = list(dict.fromkeys(row["who"] for row in mine))
        for k, who in enumerate(people):
            bars = [row for row in mine if row["who"] == who]
            places = [names.index(row["backend"]) + 0.8 * (k + 0.5) / len(people) - 0.4 for row in bars]
            values = np.array([row["value"] for row in bars]) * factor
            fastest, slowest = (np.array([row[key] for row in bars]) * factor for key in ("fastest", "slowest"))
            spread = [list(values - fastest), list(slowest - values)]
            axes.barh(places, values, 0.8 / len(people), xerr=spread, color=f"C{k}", label=who, error_kw={"lw": 0.8})
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel=f"median, {unit}", title=what)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, not on them
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)

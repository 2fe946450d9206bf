"""The benchmark: our epochs and our dropout, alternating in one process with what users of each framework would write.

Each backend is measured in a process of its own, where no other framework keeps threads or memory. Contestants
alternate, so that a machine that becomes slower does so for all; what counts is the ratio of two medians of one run.
"""

import gc
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend
from d2ldrop.data import ArrayData
from d2ldrop.errors import UsageError
from d2ldrop.files import replacing
from d2ldrop.registry import get_backend
from d2ldrop.studies.compare import CHAPTER, version_of
from d2ldrop.training.trainer import Trainer

__all__ = [
    "BATCH_SIZE",
    "FLOORS",
    "PARTS",
    "PROBABILITIES",
    "SCALE",
    "SETTINGS",
    "SHAPES",
    "Contestants",
    "Row",
    "alternate",
    "baselines_of",
    "bench",
    "cell",
    "cores",
    "draw",
    "epochs",
    "false_floors",
    "layers",
    "machine",
    "measure",
    "memory",
    "peak_memory",
    "scale",
    "show",
    "summary",
    "transformer",
    "unit_of",
]

PARTS = ("memory", "epochs", "layers", "transformer", "scale")
SHAPES = ((256, 256), (4096, 1024))
PROBABILITIES = (0.5, 0.2)
BATCH_SIZE = 256
SCALE = {"samples": (10_000, 100_000, 1_000_000), "width": (256, 1024, 4096), "batch": (64, 128, 256, 512, 1024)}
"""How samples, hidden units and batches grow, one of them at a time."""
FLOORS = ("matrix products", "NumPy's matrix products")
"""What an epoch takes at least: the faster of the two counts."""
SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)
"""Environment variables that change how fast the frameworks are."""

Row = dict[str, Any]
Contestants = dict[str, Callable[[], Any]]


def bench(names: list[str], parts: Iterable[str], data_name: str, repeats: int, device: str) -> list[Row]:
    """Measure, each backend in a process of its own.

    Parameters
    ----------
    names
        Backends.
    parts
        Some of `PARTS`: the memory that training takes; the time of epochs; the time of single dropout layers; the
        time of a training step of a transformer encoder; how the time of an epoch grows with samples, width and batch.
    data_name
        The name of the data set for the command line, such as `"fashion-mnist"`.
    repeats
        How often to time each contestant, after a first run that does not count.
    device
        `"cpu"`, or `"gpu"`, on which all contestants but the copy of memory then run.

    Returns
    -------
    list of dict
        Rows with `backend`, `version`, `device`, and what `machine` returns; `part`, `what`, `who`; `value` (the
        median), `fastest` and `slowest`, in seconds or, for memory, in megabytes; `baseline` and `ratio`: what it is
        compared with, and the median of that over its own; `floor` and `over_floor`: a lower bound for an epoch or a
        layer, and its own median over that of the bound.
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


def measure(name: str, parts: Iterable[str], data_class: Callable[..., ArrayData], repeats: int) -> list[Row]:
    """Measure one backend in this process, memory first, on a GPU if the framework sees one; see `bench`."""
    backend = get_backend(name)
    measures = {
        "memory": lambda: memory(backend, data_class),
        "epochs": lambda: epochs(backend, data_class, repeats),
        "layers": lambda: layers(backend, repeats),
        "transformer": lambda: transformer(backend, repeats),
        "scale": lambda: scale(backend, repeats),
    }
    rows = [{"part": part, **row} for part in PARTS if part in parts for row in measures[part]()]
    device = "gpu" if backend.num_gpus() else "cpu"  # asked last: to look for a GPU takes memory
    about = {"backend": name, "version": version_of(name), "device": device, **machine()}
    return [{**about, **row} for row in rows]


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return what times depend on: processor, cores, libraries with threads of their own, and settings of these."""
    from threadpoolctl import threadpool_info

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wide = " with AVX-512" if "avx512f" in told.get("flags", "").split() else ""
    pools = [
        " ".join(str(pool[key]) for key in ("internal_api", "version", "architecture") if pool.get(key))
        + f", {pool['num_threads']} threads"
        for pool in threadpool_info()
    ]
    return {
        "processor": (told.get("model name") or platform.processor() or platform.machine()) + wide,
        "cores": cores(),
        "pools": sorted({*pools}),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


# What is measured


def epochs(backend: AnyBackend, data_class: Callable[..., ArrayData], repeats: int) -> list[Row]:
    """Time epochs at the chapter's values, with validation."""
    data = data_class(batch_size=BATCH_SIZE)
    scratch, concise = backend.models["DropoutMLPScratch"], backend.models["DropoutMLP"]
    without = {**CHAPTER, "dropout_1": 0, "dropout_2": 0}
    contestants: Contestants = {
        "scratch": _epoch(scratch(num_outputs=10, **CHAPTER), data),
        "concise": _epoch(concise(num_outputs=10, **CHAPTER), data),
        "scratch, dropout 0": _epoch(scratch(num_outputs=10, **without), data),
    }
    baselines = baselines_of(backend.name)
    train, val = (data.split(train, backend.channels_last) for train in (True, False))
    if hasattr(baselines, "plain_loop"):
        contestants["plain loop"] = baselines.plain_loop(train, val, BATCH_SIZE, CHAPTER["lr"], CHAPTER["dropout_1"])
    floors: dict[str, tuple[str, ...]] = {}
    if hasattr(baselines, "matrix_products"):
        floors = dict.fromkeys(contestants, FLOORS)
        sizes, steps = (train.X[0].size, 256, 256, 10), len(train.y) // BATCH_SIZE
        sources = (baselines,) if backend.num_gpus() or backend.name == "numpy" else (baselines, baselines_of("numpy"))
        for who, source in zip(FLOORS, sources, strict=False):
            contestants[who] = source.matrix_products(sizes, BATCH_SIZE, steps, len(val.y))
    times = alternate(contestants, repeats)
    return summary(
        "epoch", times, {"scratch": "plain loop", "concise": "plain loop", "scratch, dropout 0": "scratch"}, floors
    )


def _epoch(model: Any, data: ArrayData) -> Callable[[], None]:
    """Return a function that runs one more epoch of a `fit`, on a GPU if the framework sees one."""
    trainer = Trainer(1, min(model.backend.num_gpus(), 1), seed=0, progress=False)
    trainer.fit(model, data)
    return trainer._fit_one_epoch


def layers(backend: AnyBackend, repeats: int) -> list[Row]:
    """Time `dropout_layer`, the framework's own, and a product with a ready mask, both ways; and a copy of memory."""
    baselines, rows = baselines_of(backend.name), []
    for shape in SHAPES if hasattr(baselines, "dropout_calls") else ():
        source, target = np.ones(shape, np.float32), np.empty(shape, np.float32)
        turns = max(1, 2**20 // source.size)  # a call too short to be timed is repeated
        for p in PROBABILITIES:
            calls = baselines.dropout_calls(shape, p)
            for k, direction in enumerate(("forward", "forward and backward")):
                contestants = {who: _times(turns, directions[k]) for who, directions in calls.items()}
                contestants.setdefault("copy", _times(turns, partial(np.copyto, target, source)))  # if not on the GPU
                times = alternate(contestants, repeats)
                times = {who: [seconds / turns for seconds in values] for who, values in times.items()}
                what = f"{shape[0]}x{shape[1]}, p = {p}, {direction}"
                rows += summary(
                    what, times, {"dropout_layer": "own"}, {"dropout_layer": ("product",), "own": ("product",)}
                )
    return rows


def _times(turns: int, call: Callable[[], Any]) -> Callable[[], None]:
    def several() -> None:
        for _ in range(turns):
            call()

    return several


def transformer(backend: AnyBackend, repeats: int) -> list[Row]:
    """Time a training step of a small transformer encoder, with our dropout layers and with the framework's own."""
    baselines = baselines_of(backend.name)
    if not hasattr(baselines, "encoder_steps"):
        return []
    steps: Contestants = {who: _times(5, step) for who, step in baselines.encoder_steps().items()}
    times = {who: [seconds / 5 for seconds in values] for who, values in alternate(steps, repeats).items()}
    return summary("step of a transformer encoder", times, {"Dropout": "own"}, {})


def memory(backend: AnyBackend, data_class: Callable[..., ArrayData]) -> list[Row]:
    """Read how large this process is with the framework imported, and how large it was at most while training."""
    before = peak_memory()
    _epoch(backend.models["DropoutMLPScratch"](num_outputs=10, **CHAPTER), data_class(batch_size=BATCH_SIZE))()
    after = peak_memory()
    sizes = {"import": [before], "training": [after], "training beyond the import": [after - before]}
    return summary("peak memory", sizes, {}, {})


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in megabytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / (2**20 if sys.platform == "darwin" else 2**10))


def scale(backend: AnyBackend, repeats: int) -> list[Row]:
    """Time epochs while samples, width or batch grow, and fit an exponent: time goes like size to that power."""
    rng, rows, model = np.random.default_rng(0), [], backend.models["DropoutMLPScratch"]
    X, y = rng.integers(0, 256, (SCALE["samples"][-1], 784), np.uint8), rng.integers(0, 10, SCALE["samples"][-1])
    for axis, sizes in SCALE.items():
        contestants: Contestants = {}
        for size in sizes:
            point = {"samples": 4_000 if axis == "width" else 20_000, "width": 256, "batch": 256, axis: size}
            count = point["samples"]
            widths = {"num_hiddens_1": point["width"], "num_hiddens_2": point["width"]}
            data = ArrayData(X[:count], y[:count], X[:2000], y[:2000], batch_size=point["batch"])
            contestants[str(size)] = _epoch(model(num_outputs=10, **{**CHAPTER, **widths}), data)
        times = alternate(contestants, repeats)
        medians = [statistics.median(values) for values in times.values()]
        exponent = float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])
        rows += [{**row, "exponent": exponent} for row in summary(axis, times, {}, {})]
    return rows


def baselines_of(name: str) -> Any:
    """Return the module with a backend's baselines, some or all of them; None if it has none."""
    module = f"d2ldrop.benchmarks.baselines.{name}"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


# How it is measured


def alternate(contestants: Contestants, repeats: int) -> dict[str, list[float]]:
    """Run the contestants one after the other; return seconds for `repeats` rounds, after one that does not count."""
    times: dict[str, list[float]] = {who: [] for who in contestants}
    gc.collect()
    for turn in range(repeats + 1):
        for who, run in contestants.items():
            started = time.perf_counter()
            run()
            if turn > 0:
                times[who].append(time.perf_counter() - started)
    return times


def summary(
    what: str, values: dict[str, list[float]], baselines: dict[str, str], floors: dict[str, tuple[str, ...]]
) -> list[Row]:
    """Return a row for each contestant: median, spread, and its ratios to its baseline and its floor, if any.

    Of several floors the lowest counts.
    """
    medians = {who: statistics.median(numbers) for who, numbers in values.items()}
    rows = []
    for who, numbers in values.items():
        row = {"what": what, "who": who, "value": medians[who], "fastest": min(numbers), "slowest": max(numbers)}
        baseline = baselines.get(who)
        if baseline in medians:
            row |= {"baseline": baseline, "ratio": medians[baseline] / medians[who]}
        if who in floors:
            floor = min((each for each in floors[who] if each in medians), key=medians.__getitem__)
            row |= {"floor": floor, "over_floor": medians[who] / medians[floor]}
        rows.append(row)
    return rows


def false_floors(rows: list[Row]) -> list[str]:
    """Return a sentence for each epoch that took less time than its floor: that is an error of the benchmark."""
    return [
        f"{row['backend']}: {row['who']} takes {row['over_floor']:.2f} times as long as {row['floor']}"
        for row in rows
        if row["part"] == "epochs" and row.get("over_floor", 1) < 1
    ]


# How it is shown


def show(rows: list[Row]) -> None:
    """Print a table for each thing that was measured: backends below each other, contestants side by side."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        contestants = max(([row["who"] for row in mine if row["backend"] == name] for name in _names(mine)), key=len)
        table = Table("backend", *contestants, title=f"{what}, {unit_of(mine[0])[1]}: median (fastest to slowest)")
        for name in _names(mine):
            cells = {row["who"]: cell(row) for row in mine if row["backend"] == name}
            table.add_row(name, *(cells.get(who, "") for who in contestants))
        console.print(table)
    versions = dict.fromkeys("{backend} {version}, {device}".format(**row) for row in rows)
    console.print("; ".join(versions))
    for about in dict.fromkeys("{cores} cores of {processor}".format(**row) for row in rows):
        console.print(about)
    for name in _names(rows):
        row = next(row for row in rows if row["backend"] == name)
        settings = [f"{key}={value}" for key, value in row["settings"].items()]
        console.print(f"{name}: {'; '.join([*row['pools'], *settings])}", highlight=False)


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["backend"] for row in rows))


def unit_of(row: Row) -> tuple[float, str]:
    """Return in which unit to show a row's numbers, and by what to multiply them."""
    if row["part"] == "memory":
        return 1, "MB"
    return {"layers": (1e6, "µs"), "transformer": (1e3, "ms")}.get(row["part"], (1, "s"))


def cell(row: Row) -> str:
    """Return the text of a contestant's median, spread and ratios."""
    factor, unit = unit_of(row)
    digits = {"s": 3, "ms": 1}.get(unit, 0)
    median, fastest, slowest = (f"{factor * row[key]:,.{digits}f}" for key in ("value", "fastest", "slowest"))
    lines = [median if fastest == slowest else f"{median} ({fastest} to {slowest})"]
    if "ratio" in row:
        lines.append(f"{row['ratio']:.2f} x as fast as {row['baseline']}")
    if "floor" in row:
        lines.append(f"{row['over_floor']:.2f} x the {row['floor']}")
    if "exponent" in row:
        lines.append(f"time ~ {row['what']}^{row['exponent']:.2f}")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Draw the medians as bars, a panel for each thing that was timed; whiskers go from the fastest to the slowest."""
    from matplotlib import pyplot as plt

    timed = [row for row in rows if row["part"] in ("epochs", "layers", "transformer")]
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
        factor, unit = unit_of(mine[0])
        contestants = list(dict.fromkeys(row["who"] for row in mine))
        for k, who in enumerate(contestants):
            bars = [row for row in mine if row["who"] == who]
            places = [names.index(row["backend"]) + 0.8 * (k + 0.5) / len(contestants) - 0.4 for row in bars]
            values = np.array([row["value"] for row in bars]) * factor
            fastest, slowest = (np.array([row[key] for row in bars]) * factor for key in ("fastest", "slowest"))
            spread = [list(values - fastest), list(slowest - values)]
            axes.barh(
                places, values, 0.8 / len(contestants), xerr=spread, color=f"C{k}", label=who, error_kw={"lw": 0.8}
            )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel=f"median, {unit}", title=what)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, not on them
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)

"""The check of a GPU: whether training and masks are right there, and how fast. It needs no network.

`python -m d2ldrop.benchmarks.gpu_check FOLDER` checks PyTorch and JAX, each in a process of its own, and writes a JSON
file and a log for each into the folder. A check that fails is part of the result, the others go on, and the status is
1. `--device cpu` runs the same, smaller, where there is no GPU.
"""

import argparse
import json
import math
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from d2ldrop.backend import AnyBackend
from d2ldrop.benchmarks import bench
from d2ldrop.data import ArrayData, Digits, FashionMNIST
from d2ldrop.registry import get_backend
from d2ldrop.studies.compare import CHAPTER, version_of
from d2ldrop.training.trainer import Trainer

__all__ = [
    "BACKENDS",
    "FAILED",
    "SECONDS",
    "SHAPES",
    "Data",
    "check",
    "curves",
    "histories",
    "layers",
    "main",
    "masks",
    "score",
]

BACKENDS = ("torch", "jax")
SHAPES = ((256, 256), (4096, 1024), (8192, 8192))
FAILED = "failed"  # a result has this key, with the traceback, if its check ended with an error
SECONDS = 120  # for one backend

Data = Callable[[], ArrayData]


def check(name: str, num_gpus: int) -> Iterator[tuple[str, Any]]:
    """Yield the name and the result of each check of a backend."""
    backend = get_backend(name)
    data = partial(FashionMNIST if FashionMNIST.locate() else Digits, batch_size=bench.BATCH_SIZE)
    parts: dict[str, Callable[[], Any]] = {
        "about": lambda: {"version": version_of(name), **bench.baselines_of(name).about()},
        "curves": lambda: curves(backend, num_gpus),
        "masks": lambda: masks(backend, num_gpus),
        "histories": lambda: histories(backend, data, num_gpus),
        "epochs": lambda: bench.epochs(backend, data, repeats=5),
        "memory": lambda: bench.baselines_of(name).device_memory(),
    }
    for shape in SHAPES if num_gpus else SHAPES[:1]:
        for dtype in ("float32", "bfloat16"):
            for p in bench.PROBABILITIES:
                parts[f"{shape[0]}x{shape[1]}, {dtype}, p = {p}"] = partial(layers, backend, shape, dtype, p)
    for what, part in parts.items():
        started = time.perf_counter()
        try:
            result = part()
            outcome = "done"
        except Exception:  # whatever a framework raises on a GPU: it is told, and the other checks go on
            result, outcome = {FAILED: traceback.format_exc()}, "FAILED"
        print(f"{name}, {what}: {outcome} in {time.perf_counter() - started:.1f} s", flush=True)
        yield what, result


def curves(backend: AnyBackend, num_gpus: int) -> dict[str, float]:
    """Train on the CPU and on the GPU, scratch with the same masks, concise without; return how far losses differ."""
    distances = {}
    for kind, hparams, shared in (
        ("DropoutMLPScratch", CHAPTER, True),
        ("DropoutMLP", {**CHAPTER, "dropout_1": 0, "dropout_2": 0}, False),
    ):
        losses = []
        for devices in (0, num_gpus):
            trainer = Trainer(3, devices, seed=0, shared_masks=shared, progress=False)
            trainer.fit(backend.models[kind](num_outputs=10, **hparams), Digits())
            losses.append([[row["train_loss"], row["val_loss"]] for row in trainer.history])
        distances[kind] = float(np.abs(np.diff(np.array(losses), axis=0)).max())
    return distances


def masks(backend: AnyBackend, num_gpus: int) -> dict[str, dict[str, float | str]]:
    """Return standard scores of what `dropout_layer` keeps: of a mask, two masks, neighbours, and the columns.

    Where elements are kept independently with probability 1 - p, they are below 5 in all likelihood, and the standard
    deviation of the columns' is near 1.
    """
    results: dict[str, dict[str, float | str]] = {}
    device, side = (backend.gpu(), 4096) if num_gpus else (backend.cpu(), 512)
    for dtype in ("float16", "bfloat16", "float32"):
        for p in (0.5, 0.2, 0.1):
            X = bench.baselines_of(backend.name).ones((side, side), dtype, device)
            kept = [np.asarray(backend.numpy(backend.dropout_layer(X, p) != 0)) for _ in range(2)]
            columns = score(kept[0], 1 - p, axis=0)
            results[f"{dtype}, p = {p}"] = {
                "device": str(backend.dropout_layer(X, p).device),
                "kept": float(score(kept[0], 1 - p)),
                "kept by two": float(score(kept[0] & kept[1], (1 - p) ** 2)),
                "neighbours": float(score(kept[0][:, 1::2] & kept[0][:, ::2], (1 - p) ** 2)),
                "largest of the columns": float(np.abs(columns).max()),
                "standard deviation of the columns": float(columns.std()),
            }
    return results


def score(hits: np.ndarray, chance: float, axis: int | None = None) -> Any:
    """Return by how many standard deviations a share of independent hits differs from the chance of each."""
    draws = hits.size if axis is None else hits.shape[axis]
    return (hits.mean(axis=axis) - chance) / math.sqrt(chance * (1 - chance) / draws)


def histories(backend: AnyBackend, data: Data, num_gpus: int) -> dict[str, Any]:
    """Train three epochs, twice as it is and once with a loss of the reader's, which is not recorded as a graph."""
    results = {}
    for kind in ("DropoutMLPScratch", "DropoutMLP"):
        ours: Any = backend.models[kind]

        class Own(ours):  # type: ignore[misc]
            def loss(self, *args: Any, **options: Any) -> Any:
                return super().loss(*args, **options)

        for who, model in {kind: ours, f"{kind}, again": ours, f"{kind}, own loss": Own}.items():
            trainer = Trainer(3, num_gpus, seed=0, progress=False)
            trainer.fit(model(num_outputs=10, **CHAPTER), data())
            results[who] = trainer.history
    return results


def layers(backend: AnyBackend, shape: tuple[int, int], dtype: str, p: float) -> dict[str, dict[str, float]]:
    """Return median seconds of a call, many in a row before the host waits: forward, and forward and backward."""
    turns = 100 if math.prod(shape) <= 2**22 else 10
    calls = bench.baselines_of(backend.name).dropout_calls(shape, p, dtype, turns)
    results = {}
    for k, direction in enumerate(("forward", "forward and backward")):
        times = bench.alternate({who: both[k] for who, both in calls.items()}, 5)
        results[direction] = {who: float(np.median(seconds)) / turns for who, seconds in times.items()}
    return results


def main() -> None:
    """Check each backend in a process of its own, and write what came out."""
    parser = argparse.ArgumentParser(description="Check training, masks and speed on a GPU.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="gpu")
    parser.add_argument("--backend", choices=BACKENDS, help="check this one in this process")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.backend:
        results = {}
        for what, result in check(args.backend, 1 if args.device == "gpu" else 0):
            results[what] = result
            (args.folder / f"{args.backend}.json").write_text(json.dumps(results, indent=1))
        sys.exit(any(isinstance(result, dict) and FAILED in result for result in results.values()))
    failed = False
    for name in BACKENDS:
        command = [sys.executable, "-m", "d2ldrop.benchmarks.gpu_check", str(args.folder)]
        with open(args.folder / f"{name}.log", "w") as log:
            try:
                done = subprocess.run(
                    [*command, "--device", args.device, "--backend", name],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=SECONDS,
                )
                print(f"{name}: status {done.returncode}", flush=True)
                failed = failed or done.returncode != 0
            except subprocess.TimeoutExpired:
                print(f"{name}: stopped after {SECONDS} s", flush=True)
                failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()

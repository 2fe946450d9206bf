"""Measure how much memory is left behind by training new models: python tests/memory.py [--fits N] [backend ...]."""

import argparse
import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import d2ldrop

WARM_UP = 20  # fits that may fill pools and caches of constant size
LIMIT = 20.0  # MB, over 200 fits


def resident() -> float:
    """Return the memory of this process that is in use, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(name: str, fits: int) -> float:
    """Return how much memory a process takes more, in MB, after a number of fits of new models than before them."""
    d2l: Any = d2ldrop.backend(name)
    X, y = np.random.default_rng(0).random((64, 8, 8, 1), np.float32), np.arange(64) % 10
    X = X if d2l.channels_last else X.transpose(0, 3, 1, 2)
    before = 0.0
    for k in range(WARM_UP + fits):
        model = (d2l.DropoutMLPScratch, d2l.DropoutMLP)[k % 2](
            num_outputs=10, num_hiddens_1=32, num_hiddens_2=16, dropout_1=0.5, dropout_2=0.5, lr=0.1
        )
        d2l.Trainer(max_epochs=2, seed=k, progress=False).fit(model, d2l.ArrayData(X, y, X, y, batch_size=24))
        del model
        gc.collect()
        if k + 1 == WARM_UP:
            before = resident()
    return resident() - before


def main() -> None:
    """Print the growth of each backend, in a process of its own; exit with 1 if one is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("backend", nargs="*", default=d2ldrop.available())
    options = parser.parse_args()
    if options.alone:
        print(growth(options.backend[0], options.fits))
        return
    failed = False
    for name in options.backend:
        command = [sys.executable, __file__, "--alone", "--fits", str(options.fits), name]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        grown = float(result.stdout.split()[-1])
        failed |= grown > LIMIT
        print(f"{name}: {grown:.1f} MB more after {options.fits} fits of new models (limit: {LIMIT:.0f})", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""Count how often shared code and an adapter call each other in a `fit`: python tests/crossings.py torch."""

import functools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import d2ldrop

ROOT = Path(d2ldrop.__file__).parent


def trace(name: str) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Return how often each side called the other, and how often each function was called, by file and name."""
    d2l: Any = d2ldrop.backend(name)
    X, y = np.random.default_rng(0).random((64, 64), np.float32), np.arange(64) % 10
    data = d2l.ArrayData(X, y, X, y, batch_size=64)
    model = d2l.DropoutMLPScratch(
        num_outputs=10, num_hiddens_1=32, num_hiddens_2=16, dropout_1=0.5, dropout_2=0.5, lr=0.1
    )
    trainer = d2l.Trainer(max_epochs=1, seed=0, progress=False)
    crossings: Counter[str] = Counter()
    calls: Counter[tuple[str, str]] = Counter()

    def look(frame: Any, event: str, _: Any) -> None:
        file = own_file(frame.f_code.co_filename)
        if event != "call" or file is None:
            return
        calls[file, frame.f_code.co_name] += 1
        caller = frame.f_back
        while caller is not None and own_file(caller.f_code.co_filename) is None:  # by way of the framework
            caller = caller.f_back
        if caller is not None:
            files = own_file(caller.f_code.co_filename) or "", file
            sides = ["adapter" if own.startswith(f"{name}/") else "shared" for own in files]
            crossings[" to ".join(sides)] += sides[0] != sides[1]

    sys.setprofile(look)
    try:
        trainer.fit(model, data)
    finally:
        sys.setprofile(None)
    return crossings, calls


@functools.cache  # it is asked at each call of any function
def own_file(filename: str) -> str | None:
    """Return the path of a file of this library below its root, and None for others."""
    path = Path(filename)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else None


if __name__ == "__main__":
    for backend in sys.argv[1:] or d2ldrop.available():
        crossed, called = trace(backend)
        files = {file for file, _ in called}
        print(f"{backend}: {dict(crossed)}; {sum(called.values())} calls, {len(called)} functions, {len(files)} files")

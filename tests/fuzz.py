"""Fuzz a reader of files with Atheris: `nox -s fuzz -- idx`, `weights` or `checkpoint`.

Each input is what a file holds, mutated from valid ones. A reader may return something, or raise an error of this
library; any other error ends the run with the input. `-runs` says how many inputs to try.
"""

import gzip
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["d2ldrop", "json"]):
    import d2ldrop
    from d2ldrop import numpy as d2l
    from d2ldrop.data import read_idx
    from d2ldrop.training import checkpoints

RUNS = 200_000
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def trained(folder: Path) -> d2ldrop.Trainer:
    """Return a trainer that has written a checkpoint and weights into a folder."""
    trainer = d2ldrop.Trainer(1, seed=0, progress=False, callbacks=[d2ldrop.Checkpoint(folder, best="val_loss")])
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    trainer.fit(d2l.DropoutMLPScratch(2, 2, 2, 0.5, 0.5, 0.1), (X, y))
    return trainer


def read_images(path: Path) -> object:
    """Read a file of images."""
    return read_idx(path, ndim=3)


def seeds(reader: str) -> list[bytes]:
    """Return valid files."""
    if reader == "idx":
        images = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3)) + bytes(range(12))
        return [images, gzip.compress(images, mtime=0)]
    trained(FOLDER / "seeds")
    name = "best.safetensors" if reader == "weights" else "epoch-00001.safetensors"
    found = [(FOLDER / "seeds" / name).read_bytes()]
    if reader == "weights":
        deep = d2l.DropoutMLP(2, num_hiddens=[2, 2], dropouts=[0.5, 0], lr=0.1, optimizer="adam", class_weights=[1, 2])
        d2l.backend.build(deep, (np.zeros((1, 3), np.float32),), d2l.cpu())
        d2ldrop.save_weights(deep, FOLDER / "deep")
        found.append((FOLDER / "deep").read_bytes())
    return found


READERS = {"idx": read_images, "weights": d2ldrop.load_model, "checkpoint": checkpoints.read}


def main() -> None:
    """Fuzz the reader that the first argument names."""
    name = sys.argv.pop(1)
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for k, content in enumerate(seeds(name)):
        (corpus / str(k)).write_bytes(content)
    path, read, tried, refused = FOLDER / "input", READERS[name], 0, 0

    def one(content: bytes) -> None:
        nonlocal tried, refused
        tried += 1
        path.write_bytes(content)
        try:
            read(path)
        except d2ldrop.D2LDropError:
            refused += 1
        if tried == RUNS:
            print(f"{name}: {tried} inputs, {refused} refused by errors of this library, 0 other errors", flush=True)

    atheris.Setup(
        [sys.argv[0], f"-runs={RUNS}", "-max_len=8192", "-rss_limit_mb=4096", *sys.argv[1:], str(corpus)], one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()

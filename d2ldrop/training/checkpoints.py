"""Checkpoints: all that a training needs to go on as if it had not been interrupted, in a file per epoch.

A file holds, in the safetensors format, the weights with their buffers, the optimiser's memory, and what callbacks
keep; its metadata, in JSON, hold the history, the streams of randomness, and what is being trained on what. It is
written under a temporary name, flushed, and renamed, so that a process may be killed at any moment.
"""

import json
import os
import platform
import re
import sys
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2ldrop.data import ArrayData, chunks
from d2ldrop.errors import ArgumentError, CheckpointError, WeightsError
from d2ldrop.hyperparameters import positive
from d2ldrop.registry import package_of
from d2ldrop.training.callbacks import Callback, Training, epochs_since_best
from d2ldrop.training.weights import read_weights, save_weights, write_arrays

__all__ = [
    "FORMAT",
    "Checkpoint",
    "checkpoints_in",
    "checksum_of",
    "description",
    "named",
    "part_of",
    "read",
    "restore",
    "save",
    "versions",
]

FORMAT = 1
"""Of the files; a newer one is refused."""


class Checkpoint(Callback):
    """Keep the state of training in a folder, from which `Trainer.fit(..., resume=folder)` goes on.

    Parameters
    ----------
    folder
        Where the files are; it is made if it is missing. A new training needs one without checkpoints.
    every
        After how many epochs to write one; there is one after the last epoch in any case.
    keep
        How many of the newest to keep.
    best
        A key of the history's rows, such as `"val_loss"`: the weights of the epoch that was best in it are kept in
        `best.safetensors`, which `load_model` reads. A key that ends in `acc` should grow, any other shrink.

    Notes
    -----
    A training that was killed and resumed ends with the same weights and history, bit by bit, as one that was not: on
    the CPU, with the same versions, and with callbacks that keep nothing from epoch to epoch, or say what (see
    `Callback.state`). Only `seconds` and `samples_per_second` differ.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 1, keep: int = 2, best: str | None = None):
        self.folder, self.best = Path(folder), best
        self.every, self.keep = positive("every", every), positive("keep", keep)
        self._newest = 0  # the epoch of the newest checkpoint
        self._lock: Any = None

    def on_fit_start(self, trainer: Training) -> None:
        """Make the folder, and see to it that no other training is overwritten."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "training.lock")  # a process that is killed lets go of it
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise CheckpointError(f"Expected a folder that no other training uses. Received: {self.folder}") from error
        for pattern in (".epoch-*-*.safetensors", ".best-*.safetensors"):
            for left in self.folder.glob(pattern):  # temporary files of a process that was killed
                left.unlink()
        found = [*checkpoints_in(self.folder), *self.folder.glob("best.safetensors")]
        if not trainer.history and found:
            raise CheckpointError(
                f"Expected a folder without checkpoints, as this training begins anew. Received: {found[-1]}. "
                f"Pass resume={str(self.folder)!r} to go on from it, or another folder."
            )
        self.about, self._newest = description(trainer), len(trainer.history)

    def on_epoch_end(self, trainer: Training) -> None:
        """Write a checkpoint if it is time, and remove what is older than the newest ones."""
        if self.best and epochs_since_best(trainer.history, self.best) == 0:
            save_weights(trainer.model, self.folder / "best.safetensors", epoch=len(trainer.history))
        if len(trainer.history) % self.every == 0:
            self._write(trainer)

    def on_fit_end(self, trainer: Training) -> None:
        """Write a checkpoint of the last epoch, if there is none, and no other has begun."""
        try:
            if self._newest < len(trainer.history) == trainer.epoch + 1:
                self._write(trainer)
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _write(self, trainer: Training) -> None:
        done = len(trainer.history)
        save(trainer, self.folder / f"epoch-{done:05}.safetensors", self.about)
        self._newest = done  # not before: an interrupt may come at any moment
        for old in checkpoints_in(self.folder)[: -self.keep]:
            old.unlink()


def named(callbacks: Sequence[Callback]) -> list[tuple[str, Callback]]:
    """Return callbacks with the names of their classes, and a number where there are several of a class."""
    kinds = [type(callback).__name__ for callback in callbacks]
    return [(f"{kind}{kinds[:k].count(kind) or ''}", callbacks[k]) for k, kind in enumerate(kinds)]


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("epoch-*.safetensors") if re.fullmatch(r"epoch-\d+", path.stem))


def description(trainer: Training) -> dict[str, Any]:
    """Return what is trained on what: where it differs, training cannot be resumed."""
    model, data = trainer.model, trainer.data
    about = {
        "backend": model.backend_name,
        "model": type(model).__name__,
        "optimizer": type(trainer.optim).__name__,
        "data": type(data).__name__,
        "batch_size": data.batch_size,
        "seed": trainer.seed,
        "shared_masks": trainer.shared_masks,
        "gradient_clip_val": trainer.gradient_clip_val,
        **{
            name: value if isinstance(value, (int, float, str)) else repr(value)
            for name, value in model.hparams.items()
        },
    }
    if schedules := getattr(trainer.state, "schedulers", []):
        about["schedules"] = ", ".join(type(schedule).__name__ for schedule in schedules)
    for train in (True, False) if isinstance(data, ArrayData) else ():
        X, y = data.split(train)
        checksum = 0
        for _, part in (*chunks(X), *chunks(y)):
            checksum = zlib.crc32(part.data, checksum)
        about["training samples" if train else "validation samples"] = f"{X.dtype} {X.shape}, checksum {checksum:08x}"
    return about


def save(trainer: Training, path: Path, about: Mapping[str, Any]) -> None:
    """Write a checkpoint."""
    arrays = {f"weights.{name}": value for name, value in trainer.backend.get_weights(trainer.model).items()}
    arrays |= {f"optimizer.{name}": value for name, value in trainer.backend.optimizer_state(trainer.state).items()}
    for owner, callback in named(trainer.callbacks):
        arrays |= {f"{owner}.{name}": value for name, value in callback.state().items()}
    body = json.dumps(
        {
            "about": about,
            "history": trainer.history,
            "batches": [trainer.train_batch_idx, trainer.val_batch_idx],
            "stopped": trainer.should_stop,
            "entropy": trainer.entropy,
            "versions": versions(trainer),
        }
    )
    write_arrays(path, arrays, {"format": FORMAT, "checkpoint": body, "checksum": checksum_of(body, arrays)})


def restore(trainer: Any, folder: str | os.PathLike[str]) -> None:
    """Let a trainer that is ready to begin go on from the newest checkpoint in a folder, if there is one.

    Raises
    ------
    CheckpointError
        If it belongs to another training, or is of a newer format, or if all are damaged.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ArgumentError(f"Expected resume to be a folder with checkpoints. Received: {os.fspath(folder)!r}")
    found = checkpoints_in(Path(folder))
    for path in reversed(found):
        try:
            arrays, saved = read(path)
            break
        except (WeightsError, OSError) as error:
            warnings.warn(f"A damaged checkpoint is passed over: {error}", stacklevel=3)
    else:
        if found:
            raise CheckpointError(f"Expected checkpoints in {folder}. Received damaged ones alone, see the warnings.")
        return
    about = description(trainer)
    differing = [key for key in {**saved["about"], **about} if saved["about"].get(key) != about.get(key)]
    if differing:
        raise CheckpointError(
            f"Expected {path} to be a checkpoint of this training. It differs in "
            + "; ".join(f"{key}: {saved['about'].get(key)!r}, and here {about.get(key)!r}" for key in differing)
        )
    if saved["versions"] != versions(trainer):
        warnings.warn(f"{path} was written with other versions, so results may differ slightly", stacklevel=3)
    trainer.backend.set_weights(trainer.model, part_of(arrays, "weights"))
    trainer.state = trainer.backend.set_optimizer_state(trainer.state, part_of(arrays, "optimizer"))
    callbacks = dict(named(trainer.callbacks))
    owners = {name.partition(".")[0] for name in arrays} - {"weights", "optimizer"}
    if missing := owners - {*callbacks}:
        raise CheckpointError(f"Expected the callbacks that {path} has the state of. Missing: {', '.join(missing)}")
    for owner, callback in callbacks.items():
        callback.load_state(part_of(arrays, owner))
    trainer.history, trainer.should_stop = saved["history"], saved["stopped"]
    trainer.entropy, (trainer.train_batch_idx, trainer.val_batch_idx) = saved["entropy"], saved["batches"]
    for row in trainer.history:
        for label in (label for label in row if label.startswith(("train_", "val_"))):
            trainer.model.board.draw(row["epoch"], row[label], label)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a checkpoint, and the rest.

    Raises
    ------
    WeightsError
        If it is damaged.
    CheckpointError
        If it is of a newer format.
    """
    arrays, about = read_weights(path)
    form, body = about.get("format"), about.get("checkpoint")
    if isinstance(form, int) and form > FORMAT:
        raise CheckpointError(f"Expected {path} to be of format {FORMAT} or older. Received {form}: upgrade d2ldrop.")
    if not isinstance(body, str) or about.get("checksum") != checksum_of(body, arrays):
        raise WeightsError(f"Expected {path} to be a checkpoint. Received one that is damaged: its checksum is wrong.")
    saved: dict[str, Any] = json.loads(body)
    return arrays, saved


def checksum_of(body: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return a checksum of all that is in a checkpoint."""
    total = zlib.crc32(body.encode())
    for name in sorted(arrays):
        total = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def part_of(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with a prefix and a point, without these."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


def versions(trainer: Training) -> dict[str, str]:
    """Return the versions on which results depend."""
    package = package_of(trainer.model.backend_name)
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        package: str(getattr(sys.modules.get(package), "__version__", "")),
    }

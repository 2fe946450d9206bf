"""Find the files of a data set on this machine, and check that they are those that were published."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from d2ldrop.errors import ArgumentTypeError, DataError, DataNotFoundError
from d2ldrop.files import replacing

__all__ = ["Published", "cache_folder", "check", "find", "keras_folder", "lacks", "locate", "places"]


class Published(NamedTuple):
    """What is known of a published file."""

    size: int
    """In bytes."""
    sha256: str


def cache_folder() -> Path:
    """Return the folder in which downloads are kept: `d2ldrop` below the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("d2ldrop"))


def keras_folder(name: str) -> Path:
    """Return the folder in which Keras keeps its copy of a data set."""
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"), "datasets", name)


def places(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders to look in: `root`, or if there is none `$D2LDROP_DATA`, then the cache folder."""
    if root is not None:
        if not isinstance(root, (str, os.PathLike)):
            raise ArgumentTypeError(f"Expected root to be a path. Received: {root!r}")
        return [Path(os.path.expanduser(root))]
    named = os.environ.get("D2LDROP_DATA")
    return [*([Path(os.path.expanduser(named))] if named else []), cache_folder()]


def find(parts: Iterable[str], folder: Path) -> dict[str, Path]:
    """Return those files that a folder has, by their names without `.gz`: gzipped as published, or unpacked."""
    candidates = ((part, folder / f"{part}{ending}") for part in parts for ending in ("", ".gz"))
    return {part: path for part, path in candidates if os.path.isfile(path)}


def locate(parts: Iterable[str], folders: Iterable[Path]) -> Path | None:
    """Return the first folder that has all parts, or None."""
    parts = tuple(parts)
    return next((folder for folder in folders if len(find(parts, folder)) == len(parts)), None)


def lacks(parts: Iterable[str], folder: Path) -> str:
    """Return what a folder lacks, in a line for messages."""
    if not os.path.isdir(folder):
        return f"{folder}: no such folder"
    return f"{folder}: lacks {', '.join(f'{part}.gz' for part in parts if part not in find([part], folder))}"


def check(path: Path, published: Published) -> None:
    """Compare a file with what was published under its name.

    The hash is computed once: a list in the cache folder, of sizes and times of modification, remembers for which
    files it was right. Where that folder cannot be written, it is computed each time.

    Raises
    ------
    DataError
        If it is another file, or cannot be read.
    """
    try:
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, published.sha256]
        checked = _read_marker()
        if checked.get(str(path.resolve())) == seen:
            return
        received = f"{stat.st_size} bytes"
        if stat.st_size == published.size:
            with path.open("rb") as file:
                received += f", SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except FileNotFoundError as error:
        raise DataNotFoundError(f"Expected {path} to be a file. Received: {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"Expected {path} to be a file that can be read. Received: {error}") from error
    if received != (expected := f"{published.size} bytes, SHA-256 {published.sha256}"):
        raise DataError(
            f"Expected {path} to be the published file of that name: {expected}. Received: {received}. If it is "
            "damaged, remove it to have it fetched again. Another data set of this form can be used under its own "
            "name: ImageData(read_idx(images, 3), read_idx(labels, 1)), both from d2ldrop.data."
        )
    _write_marker({**checked, str(path.resolve()): seen})


def _marker() -> Path:
    return cache_folder() / "checked.json"


def _read_marker() -> Mapping[str, Any]:
    """Return size, time of modification and hash of the files that were checked, by path; empty if unreadable."""
    try:
        with _marker().open(encoding="utf-8") as file:
            checked = json.loads(file.read(2**20))
    except (OSError, ValueError, RecursionError):
        return {}
    return checked if isinstance(checked, dict) else {}


def _write_marker(checked: Mapping[str, Any]) -> None:
    """Remember the files that were checked and still exist; without effect where the folder cannot be written."""
    with suppress(OSError):
        _marker().parent.mkdir(parents=True, exist_ok=True)
        with replacing(_marker()) as temporary:
            kept = {path: seen for path, seen in checked.items() if os.path.exists(path)}
            temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")

"""Find the files of a data set on this machine, or download them over https, with their hashes checked."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2ldrop.errors import DataNotFoundError

TIMEOUT = 20.0
"""Seconds without an answer after which the next mirror is tried."""


def cache_folder() -> Path:
    """Return the folder in which downloads are kept: `d2ldrop` below the user's cache folder."""
    return Path(_pooch().os_cache("d2ldrop"))


def places(root: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders to look in, best first: `root`, then `$D2LDROP_DATA`, then the cache folder."""
    named = [root, os.environ.get("D2LDROP_DATA")]
    return [*(Path(place) for place in named if place), cache_folder()]


def locate(files: Sequence[str], root: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the first of the `places` that holds all of the files, or None."""
    for place in places(root):
        if all((place / file).is_file() for file in files):
            return place
    return None


def fetch(sha256: dict[str, str], mirrors: Sequence[str], folder: Path) -> Path:
    """Download the files that `folder` lacks.

    Parameters
    ----------
    sha256
        The expected hash of each file, by name.
    mirrors
        Addresses of folders that have them, tried one after the other for each file.
    folder
        Where they go. A file appears there once it is complete and its hash is right.

    Returns
    -------
    pathlib.Path
        `folder`

    Raises
    ------
    DataNotFoundError
        If no mirror has a file; the message says what each answered.
    """
    pooch = _pooch()
    pooch.get_logger().setLevel(logging.WARNING)
    for name, expected in sha256.items():
        answers = []
        for mirror in mirrors:
            try:
                pooch.retrieve(
                    f"{mirror}/{name}",
                    known_hash=f"sha256:{expected}",
                    fname=name,
                    path=folder,
                    downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
                )
                break
            except (OSError, ValueError) as error:  # no network, refused, not found; or the wrong hash
                answers.append(f"{mirror}: {_first_line(error)}")
        else:
            raise DataNotFoundError(
                f"Could not download {name} to {folder}. Put the file there by hand, or into a folder named by "
                f"$D2LDROP_DATA or root=. The mirrors answered:\n  " + "\n  ".join(answers)
            )
    return folder


def _pooch() -> Any:
    """Import pooch: only here, as it takes time, and silently, as in a notebook tqdm behind it asks for widgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    return pooch


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]

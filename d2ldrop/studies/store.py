"""Finished runs in an SQLite file."""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from d2ldrop.errors import DataError

__all__ = ["TABLE", "Numbers", "Settings", "Store"]

Settings = dict[str, Any]  # plain numbers and texts by name
Numbers = dict[str, Any]  # numbers, and lists of numbers, by name

TABLE = """CREATE TABLE IF NOT EXISTS runs (
    function TEXT, settings TEXT, seed INTEGER, code TEXT, numbers TEXT NOT NULL,
    PRIMARY KEY (function, settings, seed, code)
)"""


class Store:
    """The runs that finished, in a file, or nowhere if `path` is None; a context manager.

    A run is in the file, to survive the machine, when `add` returns. Several processes may use the same file.

    Raises
    ------
    DataError
        If the file cannot be opened, or is none of this kind.
    """

    def __init__(self, path: str | os.PathLike[str] | None):
        self.path = path
        with self._checked():
            self._file = sqlite3.connect(":memory:" if path is None else path, timeout=60)
            self._file.execute(TABLE)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def find(self, function: str, settings: Mapping[str, Any], seed: int, code: str) -> Numbers | None:
        """Return the numbers of a run, or None if it did not finish."""
        with self._checked():
            row = self._file.execute(
                "SELECT numbers FROM runs WHERE function = ? AND settings = ? AND seed = ? AND code = ?",
                (function, _text(settings), seed, code),
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def add(self, function: str, settings: Mapping[str, Any], seed: int, code: str, numbers: Numbers) -> None:
        """Keep the numbers of a run."""
        row = (function, _text(settings), seed, code, json.dumps(numbers))
        with self._checked(), self._file:
            self._file.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)", row)

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """Let errors of the database name the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(f"Expected {self.path} to be an SQLite file of finished runs. Received: {error}") from error


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)

"""Data sets of your own in CSV files: one column is predicted from the others."""

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2ldrop.data.modules import ArrayData, Split
from d2ldrop.data.splits import divided
from d2ldrop.data.tables import (
    Frame,
    NumberColumn,
    TablePreparation,
    as_classes,
    as_numbers,
    listed,
    numbers_of,
    read_table,
)
from d2ldrop.errors import ArgumentError, DataError
from d2ldrop.files import MAX_TEXT

__all__ = ["MAX_CATEGORIES", "MAX_WHOLE_CLASSES", "CSVData"]

MAX_CATEGORIES = 100
"""The most frequent values of a column of text have an input each; all inputs are 0 for any other."""

MAX_WHOLE_CLASSES = 20
"""A target of whole numbers counts as classes if there are no more different ones than this."""


class CSVData(ArrayData):
    """A table in a CSV file: one column is predicted from the others.

    Columns of numbers are standardised; of other columns each value has an input of its own. All that is taken from the
    data for this (means, deviations, medians, values) is taken from the rows that are trained on.

    Parameters
    ----------
    path
        The file, in UTF-8; its first line names the columns. Columns without a name, as row numbers have, are left out.
    target
        The column that is predicted.
    task
        `"classification"`, `"regression"`, or `"auto"`: regression if the target holds numbers that are not all whole,
        or more than 20 different ones.
    batch_size
        The number of samples in a batch. By default as many as make 100 steps in an epoch, but 16 to 256.
    sep
        The character between cells; None: the one of comma, semicolon, tab and bar that the first line has.
    ignore
        Columns to leave out.

    Attributes
    ----------
    preparation : TablePreparation
        How rows become inputs; for `save_weights(model, path, table=data.preparation.as_json())`.
    notes : list of str
        What was done with the columns, a line each: which are left out, and where values are missing.

    Raises
    ------
    DataError
        If the file is no such table, has no such columns, has a column without values, or less than two classes.
    MissingPackageError
        If pandas is not installed: it is the extra `csv`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: str,
        task: str = "auto",
        batch_size: int | None = None,
        sep: str | None = None,
        ignore: Sequence[str] = (),
    ):
        self.save_hyperparameters()
        if task not in ("auto", "classification", "regression"):
            raise ArgumentError(f'Expected task to be "auto", "classification" or "regression". Received: {task!r}')
        whole = read_table(path, sep)
        frame = _columns(whole, target, ignore, path)
        classes = _classes(frame, target, task)
        y = np.unique(as_classes(frame[target]), return_inverse=True)[1] if classes else numbers_of(frame, target)
        train, val = divided(y)
        self.preparation = _prepared(frame, target, classes, train)
        X, y = self.preparation.inputs(frame), self.preparation.labels(frame)
        if batch_size is None:
            batch_size = min(256, max(16, len(train) // 100))
        self._fill(Split(X[train], y[train]), Split(X[val], y[val]), batch_size, classes or None)
        nameless = [f"columns without a name are left out: {count}"] if (count := sum(whole.columns == "")) else []
        self.notes = [*self._summary(frame, path), *nameless, *_missing(frame, self.preparation)]

    def _summary(self, frame: Frame, path: str | os.PathLike[str]) -> list[str]:
        """Return what the table is, in a line or two."""
        prepared, parts = self.preparation, [len(self.split(train).y) for train in (True, False)]
        kind = f"{len(prepared.classes)} classes" if prepared.classes else "numbers, a regression"
        first = (
            f"{Path(path).name}: {parts[0]} rows to train on, {parts[1]} to validate on; "
            f"{len(prepared.numbers)} columns of numbers, {len(prepared.texts)} of text; "
            f"target {prepared.target!r}: {kind}"
        )
        many = [
            f"column {name!r}: {frame[name].nunique()} different texts, the {MAX_CATEGORIES} most frequent are inputs"
            for name, values in prepared.texts.items()
            if len(values) == MAX_CATEGORIES
        ]
        return [first, *many]


def _columns(frame: Frame, target: str, ignore: Sequence[str], path: str | os.PathLike[str]) -> Frame:
    """Return the target and the columns to predict it from, all of which hold something."""
    for name in (target, *ignore):
        _check_column(frame, name, path)
    if target in ignore:
        raise ArgumentError(f"Expected to ignore other columns than the target. Received: {target!r}")
    names = [target, *(name for name in frame.columns if name and name not in (target, *ignore))]
    if len(names) == 1:
        raise DataError(f"Expected columns to predict {target!r} from. {path} has no other.")
    if empty := [name for name in names if frame[name].isna().all()]:
        raise DataError(f"Expected values in column {empty[0]!r}. It is empty: ignore it, or leave it out of the file.")
    if frame[target].isna().any():
        row = int(np.flatnonzero(frame[target].isna())[0]) + 1
        raise DataError(f"Expected a value of {target!r} in each row. Received none in row {row}.")
    return frame[names]


def _check_column(frame: Frame, name: str, path: str | os.PathLike[str]) -> None:
    """Raise a DataError that lists the columns if there is none of that name."""
    if name in frame.columns and name:
        return
    names = [column for column in frame.columns if column]
    near = difflib.get_close_matches(name, names, 1)
    hint = f" Do you mean {near[0]!r}?" if near else ""
    hint += " If they are separated by something else, pass it as sep." if len(names) == 1 else ""
    raise DataError(f"Expected a column {name!r} in {path}. It has: {listed(names)}.{hint}")


def _classes(frame: Frame, target: str, task: str) -> list[str]:
    """Return the names of the classes of a target, or an empty list for a regression."""
    numbers, texts = as_numbers(frame[target])
    if task == "auto" and not len(texts):
        whole = np.all(numbers == np.floor(numbers)) and len(np.unique(numbers)) <= MAX_WHOLE_CLASSES
        task = "classification" if whole else "regression"
    if task == "regression":
        return []
    names = sorted({*as_classes(frame[target])}, key=None if len(texts) else lambda name: (float(name), name))
    if len(names) < 2:
        raise DataError(f"Expected at least 2 classes in column {target!r}. Received only {names[0]!r}.")
    return names


def _prepared(frame: Frame, target: str, classes: list[str], train: np.ndarray) -> TablePreparation:
    """Return what the rows `train` tell about the columns; which of them are numbers, all rows decide."""
    numbers, texts = {}, {}
    for name in (name for name in frame.columns if name != target):
        values, wrong = as_numbers(frame[name])
        if len(wrong):
            counts = frame[name].iloc[train].fillna("").value_counts()
            texts[name] = sorted(map(str, counts.index[:MAX_CATEGORIES]))
        elif np.isnan(values[train]).all():
            raise DataError(f"Expected values of column {name!r} in the rows to train on. There are none: ignore it.")
        else:
            numbers[name] = NumberColumn.of(values[train], name)
    scale = NumberColumn(0.0, 1.0) if classes else NumberColumn.of(numbers_of(frame, target)[train], target)
    prepared = TablePreparation(target, numbers, texts, classes, scale)
    if (size := len(json.dumps(prepared.as_json()))) > MAX_TEXT:
        raise DataError(f"Expected names and values of columns of at most {MAX_TEXT} characters. Received: {size}")
    return prepared


def _missing(frame: Frame, prepared: TablePreparation) -> list[str]:
    """Return a line for each column in which values are missing."""
    counts = frame.isna().sum()
    taken = {name: f"the median, {known.median:g}, takes their place" for name, known in prepared.numbers.items()}
    return [
        f"column {name!r}: {counts[name]} values are missing; {taken.get(name, 'they count as a value of their own')}"
        for name in (*prepared.numbers, *prepared.texts)
        if counts[name]
    ]

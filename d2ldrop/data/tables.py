"""Tables, read from CSV files, and how their columns become the inputs of a model, in training and in prediction."""

import csv
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from d2ldrop.errors import DataError, DataNotFoundError, WeightsError, need

__all__ = [
    "Column",
    "Frame",
    "NumberColumn",
    "TablePreparation",
    "as_classes",
    "as_numbers",
    "listed",
    "numbers_of",
    "read_table",
]

Frame = Any  # pandas.DataFrame, of texts: what is missing is nan
Column = Any  # pandas.Series


def read_table(path: str | os.PathLike[str], sep: str | None = None) -> Frame:
    """Read a CSV file, in UTF-8, whose first line names the columns; all cells stay texts, and empty ones are nan.

    Parameters
    ----------
    path
        The file.
    sep
        The character between cells; None: the one of comma, semicolon, tab and bar that the first line has.

    Raises
    ------
    DataError
        If it is no such file, if it has no rows, or the same name twice.
    DataNotFoundError
        If there is no such file.
    MissingPackageError
        If pandas is not installed.
    """
    need("pandas", "csv", "A CSV file")
    import pandas as pd

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = next((line for line in file if line.strip()), "")
        reading: dict[str, Any] = {"sep": sep or _separator(first), "dtype": str, "encoding": "utf-8-sig"}
        reading |= {"index_col": False, "skipinitialspace": True}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows that are longer than the first line
            names = pd.read_csv(path, header=None, nrows=1, keep_default_na=False, **reading).iloc[0].str.strip()
            frame = pd.read_csv(path, **reading)
    except FileNotFoundError as error:
        raise DataNotFoundError(f"Expected {path} to be a CSV file. There is no file of that name.") from error
    except (ValueError, csv.Error, pd.errors.ParserWarning) as error:  # errors of pandas and Unicode are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"Expected {path} to be a CSV file in UTF-8. Received: {reason}") from error
    if len(twice := names[names.duplicated() & (names != "")]):
        raise DataError(f"Expected each column of {path} to have a name of its own. Received {twice.iloc[0]!r} twice.")
    if not len(frame):
        raise DataError(f"Expected rows below the names in {path}. Received none.")
    frame.columns = names
    frame = frame.apply(lambda column: column.str.strip())
    return frame.where(frame.notna() & (frame != ""))


def _separator(first: str) -> str:
    """Return what separates the names in the first line of a file."""
    try:
        return csv.Sniffer().sniff(first, delimiters=",;\t|").delimiter
    except csv.Error:  # a single column, say
        return ","


def as_numbers(column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as float64, with nan where it is missing or no number, and the rows with what is no number."""
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    return numbers.to_numpy(np.float64), np.flatnonzero(numbers.isna() & column.notna())


def as_classes(column: Column) -> np.ndarray:
    """Return a column as names of classes; whole numbers lose leading zeros and trailing ones behind the point."""
    numbers, wrong = as_numbers(column)
    if not len(wrong) and np.all(np.isfinite(numbers) & (numbers == np.floor(numbers))):
        return np.array([str(int(number)) for number in numbers], object)
    return np.asarray(column, object)


def numbers_of(frame: Frame, name: str) -> np.ndarray:
    """Return a column as numbers.

    Raises
    ------
    DataError
        If something in it is none.
    """
    numbers, wrong = as_numbers(frame[name])
    if len(wrong):
        text, row = frame[name].iloc[wrong[0]], wrong[0] + 1
        raise DataError(f"Expected numbers in column {name!r}. Received {text!r} in row {row}.")
    return numbers


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: its mean, standard deviation and median, of the rows that are trained on."""

    mean: float
    deviation: float
    median: float = 0.0  # takes the place of what is missing

    @classmethod
    def of(cls, values: np.ndarray, name: str) -> "NumberColumn":
        """Return those of some values, nan where one is missing; a constant has the deviation 1."""
        from sklearn.preprocessing import StandardScaler

        infinite = np.flatnonzero(np.isinf(values) | (np.abs(values) > 1e100))
        if len(infinite):
            raise DataError(f"Expected numbers below 1e100 in column {name!r}. Received: {values[infinite[0]]}")
        median = float(np.nanmedian(values))
        scaler = StandardScaler().fit(np.where(np.isnan(values), median, values)[:, None])
        return cls(float(scaler.mean_[0]), float(scaler.scale_[0]), median)

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Return values minus the mean, over the standard deviation."""
        found: np.ndarray = (np.where(np.isnan(values), self.median, values) - self.mean) / self.deviation
        return found


@dataclass(frozen=True)
class TablePreparation:
    """How rows of a table become a model's inputs, and its outputs what the target's column holds.

    Parameters
    ----------
    target
        The column that is predicted.
    numbers
        The columns of numbers: each is standardised, after the median took the place of what is missing.
    texts
        The other columns, with the values that have an input each, which is 1 where a row has that value; empty cells
        are a value, too, `""`.
    classes
        The names of the classes, in order of the outputs; empty in a regression.
    scale
        In a regression, the mean and the deviation of the target, which is standardised as well.
    """

    target: str
    numbers: dict[str, NumberColumn]
    texts: dict[str, list[str]]
    classes: list[str]
    scale: NumberColumn

    def inputs(self, frame: Frame) -> np.ndarray:
        """Return the inputs for the rows of a table, float32 (N, number of inputs): numbers first, then texts.

        Raises
        ------
        DataError
            If a column is missing, or something in a column of numbers is none.
        """
        if missing := [name for name in (*self.numbers, *self.texts) if name not in frame.columns]:
            raise DataError(f"Expected the columns that the model was trained on. Missing: {listed(missing)}")
        parts = [known.standardised(numbers_of(frame, name))[:, None] for name, known in self.numbers.items()]
        for name, values in self.texts.items():
            cells = frame[name].astype(object).fillna("").to_numpy(object)
            parts.append(cells[:, None] == np.array(values, object))
        with np.errstate(over="ignore"):  # what is too large becomes inf
            X = np.hstack(parts).astype(np.float32)
        if not np.isfinite(X).all():
            k, j = np.argwhere(~np.isfinite(X))[0]
            raise DataError(
                f"Expected finite numbers in column {[*self.numbers][j]!r}. Received another in row {k + 1}"
            )
        return X

    def labels(self, frame: Frame) -> np.ndarray:
        """Return the target of each row as a model is trained on it: classes (N,), or standardised numbers (N, 1)."""
        if not self.classes:
            return self.scale.standardised(numbers_of(frame, self.target))[:, None].astype(np.float32)
        places = {name: k for k, name in enumerate(self.classes)}
        return np.array([places[name] for name in as_classes(frame[self.target])], np.int64)

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return what outputs (N, number of outputs) mean: names of classes, or numbers in the units of the target."""
        if self.classes:
            return np.asarray(np.array(self.classes, object)[outputs.argmax(axis=1)])
        return np.asarray(outputs[:, 0] * self.scale.deviation + self.scale.mean, np.float64)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it, for the metadata of weights."""
        return asdict(self)

    @classmethod
    def from_json(cls, about: Any) -> "TablePreparation":
        """Return what `as_json` returned.

        Raises
        ------
        WeightsError
            If it is something else.
        """
        try:
            prepared = cls(
                about["target"],
                {name: NumberColumn(**values) for name, values in about["numbers"].items()},
                about["texts"],
                about["classes"],
                NumberColumn(**about["scale"]),
            )
            lists, columns = [prepared.classes, *prepared.texts.values()], [prepared.scale, *prepared.numbers.values()]
            texts = [prepared.target, *prepared.texts, *(text for values in lists for text in values)]
            known = [value for column in columns for value in asdict(column).values()]
            right = (
                all(isinstance(values, list) and len({*values}) == len(values) for values in lists)
                and all(isinstance(text, str) for text in texts)
                and all(type(value) in (int, float) and abs(value) < 1e300 for value in known)
                and all(column.deviation > 0 for column in columns)
                and all(prepared.texts.values())
                and bool(columns[1:] or lists[1:])
            )
        except (TypeError, KeyError, AttributeError, OverflowError):
            right = False
        if not right:
            raise WeightsError("Expected weights of a table, with what is known of its columns. Received others.")
        return prepared


def listed(names: Sequence[str]) -> str:
    """Return some names, the first of them if there are many."""
    more = f", and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + more

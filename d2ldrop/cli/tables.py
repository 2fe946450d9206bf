"""Tables on the command line: `train --csv`, and `predict --csv` with what was learnt from one."""

import argparse
import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d2ldrop.cli.arguments import MODELS
from d2ldrop.data import CSVData, TablePreparation, read_table
from d2ldrop.data.tables import Frame, as_classes, numbers_of
from d2ldrop.errors import WeightsError
from d2ldrop.files import replacing
from d2ldrop.training.trainer import Trainer
from d2ldrop.training.weights import load_model
from d2ldrop.uncertainty import MCPrediction, mc_predict, softmax

__all__ = ["SHOWN", "csv_data", "metadata", "predict_rows", "score"]

SHOWN = 10
"""How many predictions are printed."""


def csv_data(args: argparse.Namespace, report: Callable[[str], None]) -> CSVData:
    """Return the table that is to be trained on, and say what it is."""
    data = CSVData(args.csv, args.target, args.task or "auto", args.batch_size, args.sep, args.ignore or ())
    for note in data.notes:
        report(f"data: {note}")
    return data


def score(row: Mapping[str, float], data: Any) -> str:
    """Return the accuracy in a row of the history; in a regression, the root of the mean square error in its units."""
    if "val_acc" in row:
        return f"accuracy {row['val_acc']:.4f}"
    return (
        f"RMSE {data.preparation.scale.deviation * math.sqrt(2 * row['val_loss']):.5g}"  # the loss is (y_hat - y)^2 / 2
    )


def metadata(data: Any) -> dict[str, Any]:
    """Return what the file of the weights is to say of the data, so that other rows can be predicted."""
    return {"table": data.preparation.as_json()} if isinstance(data, CSVData) else {}


def predict_rows(args: argparse.Namespace, num_gpus: int, table: Any) -> None:
    """Predict the rows of a table, and write or print the predictions; if the target is there, say how good they are.

    Raises
    ------
    WeightsError
        If the weights are not those of a table.
    """
    if table is None:
        raise WeightsError(f"Expected {args.weights} to be written by `d2ldrop train --csv`. Received other weights.")
    prepared, frame = TablePreparation.from_json(table), read_table(args.csv, args.sep)
    X = prepared.inputs(frame)
    model = load_model(args.weights, args.backend, kind=MODELS.get(args.model), X=X[:1])
    outputs, columns = _predicted(args, num_gpus, model, prepared, X)
    if outputs.shape[1] != (len(prepared.classes) or 1):
        raise WeightsError(f"Expected an output for each class in {args.weights}. Received: {outputs.shape[1]}")
    guesses = prepared.predictions(outputs)
    print(f"{args.backend} {type(model).__name__} on {args.csv.name}: {_summary(prepared, frame, guesses)}")
    if args.out:
        _write(args.out, guesses, columns)
        print(f"predictions: {args.out}")
        return
    for k, guess in enumerate(guesses[:SHOWN], start=1):
        print(f"row {k}: {guess if prepared.classes else format(guess, '.6g')}")
    if len(guesses) > SHOWN:
        print(f"and {len(guesses) - SHOWN} more, which --out FILE writes")


def _predicted(
    args: argparse.Namespace, num_gpus: int, model: Any, prepared: TablePreparation, X: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the outputs for each row, and what else can be said of it by the name of a column, for all rows."""
    names = [f"probability of {name}" for name in prepared.classes]
    if not args.samples:
        outputs = Trainer(1, num_gpus, progress=False).predict(X, model)
        return outputs, dict(zip(names, softmax(outputs).T, strict=False))
    sampled = mc_predict(model, X, args.samples, args.seed)
    if isinstance(sampled, MCPrediction):
        P, unsure = (
            sampled.probabilities,
            {"entropy": sampled.entropy, "mutual information": sampled.mutual_information},
        )
        return P, dict(zip(names, P.T, strict=False)) | unsure
    return sampled.mean, {"standard deviation": sampled.std[:, 0] * prepared.scale.deviation}


def _summary(prepared: TablePreparation, frame: Frame, guesses: np.ndarray) -> str:
    """Return how many rows there are of what, and how good predictions are for those whose target is known."""
    summary = f"{len(guesses)} rows"
    if prepared.classes:
        summary += f", {', '.join(f'{count} {name}' for name, count in Counter(guesses).most_common(SHOWN))}"
    known = (
        frame[prepared.target].notna().to_numpy() if prepared.target in frame.columns else np.zeros(len(frame), bool)
    )
    if not known.any():
        return summary
    if prepared.classes:
        return f"{summary}; accuracy {np.mean(as_classes(frame[prepared.target][known]) == guesses[known]):.4f}"
    errors = numbers_of(frame, prepared.target)[known] - guesses[known]
    return f"{summary}; RMSE {math.sqrt(np.mean(errors**2)):.5g}"


def _write(path: Path, guesses: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
    """Write a row per prediction, with what else can be said of it."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prediction", *columns])
        writer.writerows(zip(guesses, *(column.tolist() for column in columns.values()), strict=True))

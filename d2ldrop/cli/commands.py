"""The commands: train the chapter's models, use what was trained, compare, measure."""

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from d2ldrop.benchmarks import bench as bench_module
from d2ldrop.calibration import expected_calibration_error
from d2ldrop.cli.arguments import MODELS
from d2ldrop.cli.running import Report, Stopped, signals_raise, signals_wait
from d2ldrop.cli.tables import csv_data, metadata, predict_rows, score
from d2ldrop.data import Digits, FashionMNIST, ImageData
from d2ldrop.errors import DataNotFoundError, UsageError, WeightsError
from d2ldrop.files import replacing
from d2ldrop.hyperparameters import LEARNING_RATES
from d2ldrop.plots.uncertainty import show_uncertain
from d2ldrop.registry import available, get_backend, registered
from d2ldrop.studies import compare as comparison
from d2ldrop.studies.training import BATCH_SIZES, DATA
from d2ldrop.training.checkpoints import Checkpoint
from d2ldrop.training.checks import gpus
from d2ldrop.training.history import HistoryLog, TensorBoardLog, write_history
from d2ldrop.training.progress import EpochLines, in_terminal
from d2ldrop.training.trainer import Trainer
from d2ldrop.training.weights import load_model, read_weights, save_weights
from d2ldrop.uncertainty import MCPrediction, mc_predict

__all__ = [
    "bench",
    "choose_data",
    "compare",
    "info",
    "optimizer",
    "predict",
    "save_figure",
    "save_predictions",
    "save_uncertain",
    "train",
    "write",
]


def train(args: argparse.Namespace) -> None:
    """Train a model, and write what was asked for; whatever ends training, what was trained is written."""
    paths = [path.resolve() for path in (args.save, args.plot, args.history) if path and not path.is_char_device()]
    if len({*paths}) < len(paths):
        raise UsageError("Expected a file each for --save, --plot and --history. Received the same twice.")
    report = Report(args.quiet)
    backend = get_backend(args.backend)
    num_gpus = gpus(backend, args.device)
    name, data = ("csv", csv_data(args, report)) if args.csv else choose_data(args.data, args.batch_size, report)
    model = backend.models["DropoutMLPRegressor" if data.is_regression else MODELS[args.model]](
        num_outputs=data.num_outputs,
        num_hiddens_1=args.hidden_1,
        num_hiddens_2=args.hidden_2,
        dropout_1=args.dropout_1,
        dropout_2=args.dropout_2,
        **optimizer(args),
    )
    bar = in_terminal() and not args.quiet
    callbacks = [
        *([Checkpoint(args.checkpoint)] if args.checkpoint else []),
        *([HistoryLog(args.history)] if args.history else []),
        *([TensorBoardLog(args.tensorboard)] if args.tensorboard else []),
        *([] if bar else [EpochLines(report)]),
    ]
    trainer = Trainer(args.epochs, num_gpus, seed=args.seed, callbacks=callbacks, progress=bar)
    ended: BaseException | None = None
    with signals_raise():
        try:
            trainer.fit(model, data, resume=args.checkpoint if args.resume else None)
        except (KeyboardInterrupt, Exception) as error:
            ended = error
    with signals_wait():
        failures = write(args, model, trainer, name, report) if trainer.history else []
    if isinstance(ended, KeyboardInterrupt):
        number = getattr(ended, "signal", signal.SIGINT)
        failures.append(f"ended by {signal.Signals(number).name} after {len(trainer.history)} of {args.epochs} epochs")
        raise Stopped(number, "; ".join(failures))
    if ended is not None and not failures:
        raise ended
    failures += [str(error) for error in (ended, report.failed) if error]
    if failures:
        raise UsageError("; ".join(failures))


def write(args: argparse.Namespace, model: Any, trainer: Trainer, name: str, report: Report) -> list[str]:
    """Write weights, plot and history, each whether or not the others can be written; return what went wrong."""
    row, kind = trainer.history[-1], "regressor" if model.is_regression else args.model
    report(
        f"{args.backend} {kind}: validation {score(row, trainer.data)}, loss {row['val_loss']:.4f}, "
        f"after {row['epoch']} epochs of {np.median([row['seconds'] for row in trainer.history]):.2f} s"
    )
    outputs: dict[str, tuple[Path | None, Callable[[Path], None]]] = {
        "weights": (args.save, lambda path: save_weights(model, path, data=name, **metadata(trainer.data))),
        "plot": (args.plot, lambda path: model.board.save(path)),
        "history": (args.history, lambda path: write_history(trainer.history, path)),
    }
    failures = []
    for what, (path, save) in outputs.items():
        if path:
            try:
                save(path)
                report(f"{what}: {path}")
            except Exception as error:
                failures.append(f"Could not write the {what} to {path}: {error}")
    return failures


def predict(args: argparse.Namespace) -> None:
    """Load weights into a model of any backend, and measure its accuracy on the validation samples."""
    backend = get_backend(args.backend)
    _, about = read_weights(args.weights)
    if args.csv:
        predict_rows(args, gpus(backend, args.device), about.get("table"))
        return
    name = args.data or about.get("data")
    if name == "csv":
        raise UsageError(f"Expected --csv FILE, a table to predict from, as {args.weights} was trained on one.")
    if not isinstance(name, str) or name not in DATA:
        raise WeightsError(f"Expected {args.weights} to be written by `d2ldrop train --save`. Received other weights.")
    data = DATA[name]()
    X, y = data.split(train=False, channels_last=backend.channels_last)
    model = load_model(args.weights, args.backend, kind=MODELS.get(args.model), X=X[:1])
    trainer = Trainer(1, gpus(backend, args.device), progress=False)
    row = trainer.evaluate(model, data)
    kind = type(model).__name__
    print(f"{args.backend} {kind} on {name}: accuracy {row['val_acc']:.4f}, loss {row['val_loss']:.4f}")
    sampled = mc_predict(model, X, args.samples, args.seed) if args.samples else None
    if isinstance(sampled, MCPrediction):
        P = sampled.probabilities
        print(
            f"mean of {args.samples} masks: accuracy {(P.argmax(axis=1) == y).mean():.4f}, "
            f"entropy {sampled.entropy.mean():.4f}, calibration error {expected_calibration_error(P, y):.4f}"
        )
    if args.plot:
        if isinstance(sampled, MCPrediction):
            save_uncertain(data, X, y, sampled, args.plot)
        else:
            save_predictions(data, X, y, trainer.predict(X[:24], model), args.plot)
        print(f"plot: {args.plot}")


def compare(args: argparse.Namespace) -> None:
    """Train in several backends, with a bar or a line for each training."""
    report, bar = Report(quiet=False), in_terminal()
    _, data = choose_data(args.data, args.batch_size, report)
    hparams = {"dropout_1": args.dropout_1, "dropout_2": args.dropout_2, **optimizer(args)}
    seeds = range(args.seed, args.seed + args.seeds)
    names, models = dict.fromkeys(args.backend or available()), dict.fromkeys(args.model or MODELS)  # each once
    wanted = list(itertools.product(names, models, seeds))
    runs: list[comparison.Run] = []
    for name, model, seed in wanted:
        which = f"{len(runs) + 1}/{len(wanted)} {name} {model}" + (f", seed {seed}" if args.seeds > 1 else "")
        if bar:
            report(which)
        row = comparison.run(name, MODELS[model], data, args.epochs, seed, args.shared_masks, bar, **hparams)
        if not bar:
            report(f"{which}: validation accuracy {row.accuracy:.4f}, {row.seconds:.2f} s per epoch")
        runs.append(row)
    comparison.show(runs)
    if args.plot:
        comparison.draw(runs, args.plot)
        print(f"plot: {args.plot}")


def bench(args: argparse.Namespace) -> None:
    """Measure one backend in this process, several in one process each."""
    names = list(dict.fromkeys(args.backend or available()))
    parts = list(dict.fromkeys(args.part or bench_module.PARTS[:-1]))
    if args.plot and not {"epochs", "layers"} & {*parts}:
        raise UsageError("Expected times of epochs or layers to plot. Received none: add --part epochs or layers.")
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before a framework is imported, or baselines would run on a GPU
    for name in {*names}.difference(available()):
        get_backend(name)  # an error now, and not after the others were measured
    if len(names) == 1:
        if args.device == "gpu":
            gpus(get_backend(names[0]), args.device)  # an error if there is none
        rows = bench_module.measure(names[0], parts, DATA[args.data], args.repeats)
    else:
        rows = bench_module.bench(names, parts, args.data, args.repeats, args.device)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        bench_module.show(rows)
    if args.plot:
        bench_module.draw(rows, args.plot)
        if not args.json:
            print(f"plot: {args.plot}")
    if wrong := bench_module.false_floors(rows):
        raise UsageError(f"Expected no epoch in less time than its floor. Received {'; '.join(wrong)}: measure again.")


def info(args: argparse.Namespace) -> None:
    """Print versions, backends, and where the data are; a framework is imported only to ask for its devices."""
    version = importlib.metadata.version
    print(f"d2ldrop {version('d2ldrop')}, Python {platform.python_version()}, {platform.platform()}")
    for name in registered():
        if name not in available():
            print(f"{name:8} not installed: pip install '.[{name}]' in a checkout")
            continue
        devices = ", devices: " + ", ".join(map(str, get_backend(name).try_all_gpus())) if args.devices else ""
        print(f"{name:8} {comparison.version_of(name)}{devices}", flush=True)
    print(f"data     digits: scikit-learn {version('scikit-learn')}")
    print(f"data     fashion-mnist: {FashionMNIST.locate() or 'not here yet, fetched when it is first used'}")


# Parts of the commands


def optimizer(args: argparse.Namespace) -> dict[str, Any]:
    """Return the hyperparameters of a model that say how it is trained."""
    return {
        "lr": LEARNING_RATES[args.optimizer] if args.lr is None else args.lr,
        "optimizer": args.optimizer,
        "weight_decay": args.weight_decay,
        "momentum": args.momentum,
    }


def choose_data(wanted: str, batch_size: int | None, report: Callable[[str], None]) -> tuple[str, ImageData]:
    """Return the name of a data set and the data, saying in one line which and why."""
    if wanted == "digits":
        report("data: the digits of scikit-learn, as asked for")
        return wanted, Digits(batch_size or BATCH_SIZES["digits"])
    try:
        data = FashionMNIST(batch_size or BATCH_SIZES["fashion-mnist"])
    except DataNotFoundError:
        if wanted != "auto":
            raise
        report("data: the digits of scikit-learn, because Fashion-MNIST is not on this machine and cannot be fetched")
        return "digits", Digits(batch_size or BATCH_SIZES["digits"])
    report(f"data: Fashion-MNIST, from {data.folder}")
    return "fashion-mnist", data


def save_predictions(data: ImageData, X: np.ndarray, y: np.ndarray, logits: np.ndarray, path: Path) -> None:
    """Draw a grid of images, each below its true label and the predicted one; the wrong ones in red."""
    shown, guessed = len(logits), logits.argmax(axis=1)
    names = [f"{data.class_names[t]}\n{data.class_names[g]}" for t, g in zip(y[:shown], guessed, strict=True)]
    axes = data.visualize((X[:shown], y[:shown]), nrows=3, ncols=8, labels=names)
    for axis, right in zip(axes, guessed == y[:shown], strict=True):
        axis.title.set_color("black" if right else "red")
    save_figure(axes[0].figure, "true label above, predicted label below; red: wrong", path)


def save_uncertain(data: ImageData, X: np.ndarray, y: np.ndarray, sampled: MCPrediction, path: Path) -> None:
    """Draw the most uncertain images, each below its true label, the predicted one, and the predictive entropy."""
    axes = show_uncertain(X, y, sampled.probabilities, sampled.entropy, data.class_names, num_rows=3, num_cols=8)
    save_figure(axes[0].figure, "true label, predicted label, predictive entropy; red: wrong", path)


def save_figure(figure: Any, title: str, path: Path) -> None:
    """Write a figure under a title."""
    figure.suptitle(title, fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)

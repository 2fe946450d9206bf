"""The command line: train the chapter's models, use what was trained, and see what is there."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from d2ldrop import bench as benchmark
from d2ldrop.backend import FRAMEWORKS, available, backend
from d2ldrop.callbacks import Callback, CSVLog
from d2ldrop.data import ImageData
from d2ldrop.errors import D2LDropError, DataNotFoundError, UsageError, WeightsError
from d2ldrop.progress import in_terminal
from d2ldrop.trainer import Trainer
from d2ldrop.weights import load_weights, read_weights, save_weights

MODELS = {"scratch": "DropoutMLPScratch", "concise": "DropoutMLP"}
DATA = {"fashion-mnist": "FashionMNIST", "digits": "Digits"}


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """A formatter that tells a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status: 0, or 1 for a failure; wrong use exits with 2."""
    args = parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except BrokenPipeError:  # whoever read our output has had enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - held until the process ends
        return 1
    except (D2LDropError, OSError) as error:
        if args.debug:
            raise
        print(f"d2ldrop {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    main_parser = Parser(prog="d2ldrop", description="The dropout chapter of Dive into Deep Learning")
    main_parser.add_argument("--version", action="version", version=importlib.metadata.version("d2ldrop"))
    commands = main_parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], Any], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, formatter_class=HelpWithDefaults)
        added.set_defaults(run=run)
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    train_parser = command("train", train, "Train one of the chapter's models on images.")
    add = train_parser.add_argument
    add("--backend", choices=FRAMEWORKS, default=available()[0], help="the framework")
    add("--model", choices=MODELS, default="scratch", help="dropout by hand, or the framework's own layers")
    add("--data", choices=["auto", *DATA], default="auto", help="auto: Fashion-MNIST if it can be had, else the digits")
    add("--epochs", type=count, default=10, help="passes over the training samples")
    add("--batch-size", type=count, default=argparse.SUPPRESS, help="samples per step (default: 256, or 16 for digits)")
    add("--lr", type=positive, default=0.1, help="learning rate")
    add("--dropout-1", type=probability, default=0.5, help="probability of dropping, first hidden layer")
    add("--dropout-2", type=probability, default=0.5, help="probability of dropping, second hidden layer")
    add("--hidden-1", type=count, default=256, help="units of the first hidden layer")
    add("--hidden-2", type=count, default=256, help="units of the second hidden layer")
    add("--seed", type=whole, default=0, help="what initial weights, order and dropout masks are drawn from")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: a GPU if the framework sees one")
    add("--plot", type=writable, metavar="FILE", help="draw the curves to a .png, .svg or .pdf")
    add("--history", type=writable, metavar="FILE", help="write a row per epoch to a .csv")
    add("--save", type=writable, metavar="FILE", help="write the weights to a .safetensors")
    add("--quiet", action="store_true", help="print nothing but errors")

    predict_parser = command("predict", predict, "Use saved weights: accuracy, and a picture of predictions.")
    add = predict_parser.add_argument
    add("--weights", required=True, metavar="FILE", help="what `d2ldrop train --save` wrote, in any backend")
    add("--backend", choices=FRAMEWORKS, default=available()[0], help="the framework")
    add("--model", choices=MODELS, help="instead of the model that was trained")
    add("--data", choices=DATA, help="instead of the data it was trained on")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: a GPU if the framework sees one")
    add("--plot", type=writable, metavar="FILE", help="draw images with true and predicted labels")

    compare_parser = command("compare", compare, "Train in several backends, and print a table of how it went.")
    add = compare_parser.add_argument
    add("--backend", choices=FRAMEWORKS, action="append", help="the framework; all that are installed, if not given")
    add("--model", choices=MODELS, action="append", help="the model; both, if not given")
    add("--data", choices=DATA, default="fashion-mnist", help="what to train on")
    add("--epochs", type=count, default=10, help="passes over the training samples")
    add("--seed", type=whole, default=0, help="what initial weights and order are drawn from")
    add("--shared-masks", action="store_true", help="drop the same elements everywhere: scratch models coincide")
    add("--plot", type=writable, metavar="FILE", help="draw the loss of each step, and how the curves differ")

    bench_parser = command("bench", bench, "Measure epochs, layers, memory, against rivals; leave the machine alone.")
    add = bench_parser.add_argument
    add("--backend", choices=FRAMEWORKS, action="append", help="the framework; all that are installed, if not given")
    add("--data", choices=DATA, default="fashion-mnist", help="what to train on")
    add("--part", choices=benchmark.PARTS, action="append", help="what to measure; all but scale, if not given")
    add("--repeats", type=count, default=7, help="how often to time each contestant")
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where all but the copy of memory run")
    add("--scale", action="append_const", dest="part", const="scale", help="the same as --part scale")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--plot", type=writable, metavar="FILE", help="draw the medians as bars")

    command("info", info, "Show versions, devices, backends, and where the data are.")
    return main_parser


# The commands


def train(args: argparse.Namespace) -> int:
    """Train a model, and write what was asked for; an interrupt ends training, not the writing."""
    tell = (lambda *_: None) if args.quiet else print
    d2l: Any = backend(args.backend)
    num_gpus = gpus(d2l, args.device)
    name, data = choose_data(d2l, args.data, vars(args).get("batch_size"), tell)
    model = getattr(d2l, MODELS[args.model])(
        num_outputs=data.num_classes,
        num_hiddens_1=args.hidden_1,
        num_hiddens_2=args.hidden_2,
        dropout_1=args.dropout_1,
        dropout_2=args.dropout_2,
        lr=args.lr,
    )
    bar = in_terminal() and not args.quiet
    callbacks = [*([CSVLog(args.history)] if args.history else []), *([] if bar or args.quiet else [EpochLines()])]
    trainer = Trainer(args.epochs, num_gpus, seed=args.seed, callbacks=callbacks, progress=bar)
    interrupted = False
    try:
        trainer.fit(model, data)
    except KeyboardInterrupt:
        interrupted = True
    if trainer.history:
        row = trainer.history[-1]
        tell(
            f"{args.backend} {args.model}: validation accuracy {row['val_acc']:.4f}, loss {row['val_loss']:.4f}, "
            f"after {row['epoch']} epochs of {np.median([row['seconds'] for row in trainer.history]):.2f} s"
        )
        if args.save:
            save_weights(model, args.save, data=name)
            tell(f"weights: {args.save}")
        if args.plot:
            model.board.save(args.plot)
            tell(f"plot: {args.plot}")
        if args.history:
            tell(f"history: {args.history}")
    if interrupted:
        raise UsageError(f"Interrupted after {len(trainer.history)} of {args.epochs} epochs.")
    return 0


def predict(args: argparse.Namespace) -> None:
    """Load weights into a model of any backend, and see how well it does on the validation samples."""
    d2l: Any = backend(args.backend)
    _, about = read_weights(args.weights)
    name, kind = args.data or about.get("data"), MODELS.get(args.model) or about.get("class")
    if name not in DATA or kind not in MODELS.values():
        raise WeightsError(f"Expected {args.weights} to be written by `d2ldrop train --save`. Received other weights.")
    data = getattr(d2l, DATA[name])()
    model = getattr(d2l, str(kind))(**about["hparams"])
    X, y = data.split(train=False, channels_last=d2l.channels_last)
    load_weights(model, args.weights, np.zeros_like(X[:1], np.float32))
    trainer = Trainer(1, gpus(d2l, args.device), progress=False)
    numbers = trainer.evaluate(model, data)
    print(f"{args.backend} {kind} on {name}: accuracy {numbers['val_acc']:.4f}, loss {numbers['val_loss']:.4f}")
    if args.plot:
        save_predictions(data, X, y, trainer.predict(X[:24]), args.plot)
        print(f"plot: {args.plot}")


def compare(args: argparse.Namespace) -> None:
    """Train in several backends."""
    from d2ldrop import compare as comparison

    kinds = [MODELS[model] for model in args.model or MODELS]
    runs = [
        comparison.run(name, kind, DATA[args.data], args.epochs, args.seed, args.shared_masks)
        for name in args.backend or available()
        for kind in kinds
    ]
    comparison.show(runs)
    if args.plot:
        comparison.draw(runs, args.plot)
        print(f"plot: {args.plot}")


def bench(args: argparse.Namespace) -> None:
    """Measure: one backend in this process, several in one process each."""
    names, parts = args.backend or list(available()), args.part or benchmark.PARTS[:3]
    if args.plot and not {"epochs", "layers"} & {*parts}:
        raise UsageError("Expected times of epochs or layers to plot. Received none: add --part epochs or layers.")
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before a framework is imported, or rivals would run on a GPU
    for name in {*names}.difference(available()):
        backend(name)  # tells what is missing now, and not after the others were measured
    if len(names) == 1:
        if args.device == "gpu":
            gpus(backend(names[0]), args.device)  # tells if there is none
        rows = benchmark.measure(names[0], parts, DATA[args.data], args.repeats)
    else:
        rows = benchmark.bench(names, parts, args.data, args.repeats, args.device)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        benchmark.show(rows)
    if args.plot:
        benchmark.draw(rows, args.plot)
        if not args.json:
            print(f"plot: {args.plot}")


def info(args: argparse.Namespace) -> None:
    """Print what there is on this machine."""
    version = importlib.metadata.version
    print(f"d2ldrop {version('d2ldrop')}, Python {platform.python_version()}, {platform.platform()}")
    for name, package in FRAMEWORKS.items():
        if name not in available():
            print(f"{name:8} not installed: pip install 'd2ldrop[{name}]'")
            continue
        devices = ", ".join(map(str, backend(name).try_all_gpus()))
        print(f"{name:8} {sys.modules[package].__version__}, devices: {devices}")
    from d2ldrop.data import FashionMNIST

    print(f"data     digits: scikit-learn {version('scikit-learn')}")
    print(f"data     fashion-mnist: {FashionMNIST.locate() or 'not here yet, fetched when it is first used'}")


# What the commands are made of


class EpochLines(Callback):
    """Print a line per epoch, where no progress bar can be."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Print the numbers of the last epoch."""
        row = trainer.history[-1]
        numbers = ", ".join(f"{key} {value:.4f}" for key, value in row.items() if key.startswith(("train_", "val_")))
        print(f"epoch {row['epoch']}/{trainer.max_epochs}: {numbers}, {row['seconds']:.2f} s", flush=True)


def choose_data(d2l: Any, wanted: str, batch_size: int | None, tell: Callable[[str], None]) -> tuple[str, ImageData]:
    """Return the name of a data set and the data, saying in one line which and why.

    The chapter's batches of 256 would leave the digits, 1,437 of them, too few steps to learn from.
    """
    if wanted == "digits":
        tell("data: the digits of scikit-learn, as asked for")
        return wanted, d2l.Digits(batch_size or 16)
    try:
        data = d2l.FashionMNIST(batch_size or 256)
    except DataNotFoundError:
        if wanted != "auto":
            raise
        tell("data: the digits of scikit-learn, because Fashion-MNIST is not on this machine and cannot be fetched")
        return "digits", d2l.Digits(batch_size or 16)
    tell(f"data: Fashion-MNIST, from {data.folder}")
    return "fashion-mnist", data


def gpus(d2l: Any, device: str) -> int:
    """Return how many GPUs to train on: 0 or 1."""
    count = d2l.num_gpus()
    if device == "gpu" and not count:
        raise UsageError(f"Expected a GPU that {d2l.name} can use. Received a machine without one: use --device cpu")
    return 0 if device == "cpu" else min(count, 1)


def save_predictions(data: ImageData, X: np.ndarray, y: np.ndarray, logits: np.ndarray, path: Path) -> None:
    """Draw a grid of images, each below its true label and the predicted one; the wrong ones in red."""
    from d2ldrop.files import replacing

    shown, guessed = len(logits), logits.argmax(axis=1)
    names = [f"{data.class_names[t]}\n{data.class_names[g]}" for t, g in zip(y[:shown], guessed, strict=True)]
    axes = data.visualize((X[:shown], y[:shown]), nrows=3, ncols=8, labels=names)
    for axis, right in zip(axes, guessed == y[:shown], strict=True):
        axis.title.set_color("black" if right else "red")
    axes[0].figure.suptitle("true label above, predicted label below; red: wrong", fontsize="small")
    with replacing(path) as temporary:
        axes[0].figure.savefig(temporary, dpi=150)


# Types of arguments


def count(text: str) -> int:
    """Read a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return int(text)


def whole(text: str) -> int:
    """Read an integer that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, received {text!r}")
    return int(text)


def positive(text: str) -> float:
    """Read a positive number."""
    return _number(text, lambda value: 0 < value < float("inf"), "a positive number")


def probability(text: str) -> float:
    """Read a number in [0, 1]."""
    return _number(text, lambda value: 0 <= value <= 1, "a number in [0, 1]")


def writable(text: str) -> Path:
    """Read a path of a file that can be made; better told now than after training."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a file in a folder that can be written to, received {text!r}")
    return path


def _number(text: str, allowed: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"expected {what}, received {text!r}")
    return value

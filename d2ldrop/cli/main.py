"""The command line: its parser, and what a failure looks like."""

import argparse
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from d2ldrop.benchmarks import bench as bench_module
from d2ldrop.cli.arguments import MODELS, count, not_negative, positive, probability, separator, whole, writable
from d2ldrop.cli.commands import bench, compare, info, predict, train
from d2ldrop.cli.exercises import exercise
from d2ldrop.errors import D2LDropError
from d2ldrop.hyperparameters import LEARNING_RATES
from d2ldrop.registry import available, canonical, registered
from d2ldrop.studies.clusters import ENGINES
from d2ldrop.studies.exercises import EXERCISES, QUICK_SEEDS, SEEDS
from d2ldrop.studies.training import DATA
from d2ldrop.training.history import ENDINGS

__all__ = [
    "EXAMPLES",
    "PICTURES",
    "WELCOME",
    "HelpWithDefaults",
    "Parser",
    "add_hyperparameters",
    "add_table",
    "check_together",
    "main",
    "parser",
]


class Parser(argparse.ArgumentParser):
    """A parser whose error message is one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """A formatter that shows a default where there is one, and examples line by line."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status: 0, or 1 for a failure; wrong use exits with 2.

    Without a command, the commands are listed. After a signal the status is 128 and the signal's number: 130 for an
    interrupt, 143 for SIGTERM, 129 for SIGHUP.
    """
    commands = parser()
    args = commands.parse_args(argv)
    check_together(commands, args)
    if args.command is None:
        commands.print_help()
        return 0
    try:
        return int(args.run(args) or 0)
    except KeyboardInterrupt as interrupt:
        print(f"d2ldrop {args.command}: {interrupt or 'interrupted'}", file=sys.stderr)
        return 128 + getattr(interrupt, "signal", signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has closed the pipe
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - held until the process ends
        return 1
    except (D2LDropError, OSError, MemoryError) as error:
        if args.debug:
            raise
        print(f"d2ldrop {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def check_together(commands: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error if an option is missing that another needs."""

    def given(name: str) -> bool:
        return bool(getattr(args, name, None))

    of_tables = dict.fromkeys(("target", "task", "sep", "ignore"), "--csv FILE")
    needs = {
        "train": {"resume": "--checkpoint DIR", **of_tables},
        "predict": {"out": "--csv FILE", "sep": "--csv FILE"},
        "exercise": {"resume": "--out DIR"},
    }
    for name, other in needs.get(args.command, {}).items():
        if given(name) and not given(other.split()[0].removeprefix("--")):
            commands.error(f"--{name} needs {other}")
    if args.command == "train" and args.csv and not args.target:
        commands.error("--csv needs --target COLUMN, the column to predict")
    if args.command == "predict" and args.csv and args.plot:
        commands.error("--plot draws images, and goes with no --csv")
    if args.command == "predict" and args.out and args.out.exists() and args.out.samefile(args.csv):
        commands.error("--out needs another file than --csv")


PICTURES = (".png", ".svg", ".pdf")

EXAMPLES = {
    "train": """\
  d2ldrop train --plot curves.png
  d2ldrop train --backend jax --epochs 3 --dropout-1 0.2 --save weights.safetensors
  d2ldrop train --csv table.csv --target column""",
    "predict": """\
  d2ldrop predict --weights weights.safetensors --plot predictions.png
  d2ldrop predict --weights weights.safetensors --backend numpy --samples 100
  d2ldrop predict --csv new-rows.csv --weights of-a-table.safetensors --out predictions.csv""",
    "compare": """\
  d2ldrop compare --data digits --epochs 3
  d2ldrop compare --backend numpy --backend torch --model scratch --shared-masks --plot curves.png""",
    "exercise": """\
  d2ldrop exercise 1 --quick
  d2ldrop exercise all --out results""",
    "bench": """\
  d2ldrop bench --backend torch
  d2ldrop bench --part layers --plot bars.png""",
    "info": """\
  d2ldrop info
  d2ldrop info --devices""",
}
"""What people would type, for each command."""

WELCOME = """\
examples:
  d2ldrop train                    train the chapter's network, and see how well it does
  d2ldrop train --plot curves.png  the same, and draw its curves
  d2ldrop train --help             all that this command can do"""


def add_hyperparameters(add: Callable[..., Any]) -> None:
    """Add the options that say how the chapter's models are trained."""
    add("--batch-size", type=count, metavar="N", help="samples per step; 256, or 16 for digits, if not given")
    add("--optimizer", choices=LEARNING_RATES, default="sgd", help="the framework's own optimiser of that name")
    add("--lr", type=positive, metavar="RATE", help="learning rate; 0.1, or 0.001 for adam and adamw, if not given")
    add(
        "--weight-decay",
        type=not_negative,
        metavar="RATE",
        default=0.0,
        help="how strongly weights are pulled towards 0; with adamw, apart from the gradient",
    )
    add("--momentum", type=probability, metavar="M", default=0.0, help="how much of the last step sgd repeats")
    chance = "chance with which a unit of the {} hidden layer is dropped"
    add("--dropout-1", type=probability, metavar="P", default=0.5, help=chance.format("first"))
    add("--dropout-2", type=probability, metavar="P", default=0.5, help=chance.format("second"))


def add_table(add: Callable[..., Any]) -> None:
    """Add the option that says how a table is written."""
    add("--sep", type=separator, metavar="CHARACTER", help="what separates cells; found out, if not given")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    names = f"the framework: {', '.join(registered())}; tensorflow and pytorch are understood as well"
    one: dict[str, Any] = {"type": canonical, "choices": registered(), "metavar": "NAME", "help": names}
    several = {**one, "action": "append", "help": f"{names}; may be given several times; all installed, if not given"}
    one["default"] = available()[0]
    main_parser = Parser(
        prog="d2ldrop",
        description="The dropout chapter of Dive into Deep Learning, to run and to compare.",
        epilog=WELCOME,
        formatter_class=HelpWithDefaults,
    )
    main_parser.add_argument("--version", action="version", version=importlib.metadata.version("d2ldrop"))
    commands = main_parser.add_subparsers(dest="command", parser_class=Parser, title="commands", metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], Any], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"examples:\n{EXAMPLES[name]}",
            formatter_class=HelpWithDefaults,
        )
        added.set_defaults(run=run)
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    train_parser = command("train", train, "Train one of the chapter's models on images, or on a table of your own.")
    add = train_parser.add_argument
    add("--backend", **one)
    add("--model", choices=MODELS, default="scratch", help="dropout by hand, or the framework's own layers")
    data = train_parser.add_mutually_exclusive_group().add_argument
    data(
        "--data", choices=["auto", *DATA], default="auto", help="auto: Fashion-MNIST if it can be had, else the digits"
    )
    data("--csv", type=Path, metavar="FILE", help="a table, whose first line names the columns")
    add("--target", metavar="COLUMN", help="the column of the table to predict, from all others")
    add("--task", choices=["auto", "classification", "regression"], help="auto, if not given: what the column holds")
    add_table(add)
    add("--ignore", metavar="COLUMN", action="append", help="a column to leave out; may be given several times")
    add("--epochs", type=count, metavar="N", default=10, help="passes over the training samples")
    add_hyperparameters(add)
    add("--hidden-1", type=count, metavar="N", default=256, help="units of the first hidden layer")
    add("--hidden-2", type=count, metavar="N", default=256, help="units of the second hidden layer")
    add("--seed", type=whole, metavar="N", default=0, help="with the same number, training takes the same course again")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: a GPU if the framework sees one")
    add("--plot", type=writable(*PICTURES), metavar="FILE", help="draw the curves to a .png, .svg or .pdf")
    add("--history", type=writable(*ENDINGS), metavar="FILE", help="write a row per epoch to a .csv, .json or .jsonl")
    add("--tensorboard", type=Path, metavar="DIR", help="write the numbers of each epoch for TensorBoard to a folder")
    add("--save", type=writable(), metavar="FILE", help="write the weights to a .safetensors")
    add("--checkpoint", type=Path, metavar="DIR", help="keep what is needed to go on after each epoch in a folder")
    add("--resume", action="store_true", help="go on from the newest checkpoint in that folder, if there is one")
    add("--quiet", action="store_true", help="print nothing but errors")

    predict_parser = command("predict", predict, "Use saved weights: accuracy, predictions, a picture of them.")
    add = predict_parser.add_argument
    add("--weights", required=True, metavar="FILE", help="what `d2ldrop train --save` wrote, in any backend")
    add("--backend", **one)
    add("--model", choices=MODELS, help="instead of the model that was trained")
    data = predict_parser.add_mutually_exclusive_group().add_argument
    data("--data", choices=DATA, help="instead of the data it was trained on")
    data("--csv", type=Path, metavar="FILE", help="the rows to predict, for weights of a table")
    add_table(add)
    add("--out", type=writable(".csv"), metavar="FILE", help="write the predictions for these rows to a .csv")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: a GPU if the framework sees one")
    add(
        "--samples",
        type=count,
        metavar="N",
        help="predict with dropout on, and average over N masks for each image or row",
    )
    add("--seed", type=whole, metavar="N", default=0, help="with the same number, the masks are the same again")
    add(
        "--plot",
        type=writable(*PICTURES),
        metavar="FILE",
        help="draw images with true and predicted labels; with --samples, those that are most uncertain",
    )

    compare_parser = command("compare", compare, "Train in several backends, and print a table of the results.")
    add = compare_parser.add_argument
    add("--backend", **several)
    add("--model", choices=MODELS, action="append", help="the model; both, if not given")
    add("--data", choices=["auto", *DATA], default="auto", help="auto: Fashion-MNIST if it can be had, else the digits")
    add("--epochs", type=count, metavar="N", default=10, help="passes over the training samples")
    add("--seed", type=whole, metavar="N", default=0, help="with the same number, training takes the same course again")
    add("--seeds", type=count, metavar="N", default=1, help="train each so often: with this seed and those after it")
    add("--shared-masks", action="store_true", help="drop the same elements everywhere: scratch models coincide")
    add("--plot", type=writable(*PICTURES), metavar="FILE", help="draw losses, accuracies, and how the losses differ")
    add_hyperparameters(add)

    text = "Do the chapter's exercises: a table with intervals, a figure, and what follows from the numbers."
    exercise_parser = command("exercise", exercise, text)
    add = exercise_parser.add_argument
    add("number", choices=[*map(str, EXERCISES), "all"], help="which exercise")
    add("--backend", **one)
    add("--data", choices=["auto", *DATA], default="auto", help="auto: Fashion-MNIST if it can be had, else the digits")
    add(
        "--seeds",
        type=count,
        metavar="N",
        help=f"how often each setting is trained; {SEEDS}, or {QUICK_SEEDS} with --quick",
    )
    add("--quick", action="store_true", help="the digits, few epochs and settings: seconds, to see that it works")
    add(
        "--jobs",
        type=count,
        metavar="N",
        help="trainings at the same time, a process each; as many as cores, if not given",
    )
    add("--engine", choices=ENGINES, default="loky", help="loky: this machine; dask or ray: a cluster")
    add("--address", help="of the cluster's scheduler; without one, a cluster is started on this machine")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="write table, numbers, figure and conclusion to a folder; keep runs there",
    )
    add("--resume", action="store_true", help="go on with the runs that are in that folder")

    bench_parser = command("bench", bench, "Measure epochs, layers, memory; run nothing else meanwhile.")
    add = bench_parser.add_argument
    add("--backend", **several)
    add("--data", choices=DATA, default="fashion-mnist", help="what to train on")
    add("--part", choices=bench_module.PARTS, action="append", help="what to measure; all but scale, if not given")
    add("--repeats", type=count, metavar="N", default=7, help="how often to time each contestant")
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where all but the copy of memory run")
    add("--scale", action="append_const", dest="part", const="scale", help="the same as --part scale")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--plot", type=writable(*PICTURES), metavar="FILE", help="draw the medians as bars")

    info_parser = command("info", info, "Show versions, which frameworks are installed, and where the data are.")
    info_parser.add_argument("--devices", action="store_true", help="import each framework, and ask what it can use")
    return main_parser

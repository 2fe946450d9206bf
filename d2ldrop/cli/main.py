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
from d2ldrop.cli.arguments import count, not_negative, positive, probability, whole, writable
from d2ldrop.cli.commands import MODELS, bench, compare, info, predict, train
from d2ldrop.cli.exercises import exercise
from d2ldrop.errors import D2LDropError
from d2ldrop.registry import available, canonical, registered
from d2ldrop.studies.clusters import ENGINES
from d2ldrop.studies.exercises import EXERCISES, QUICK_SEEDS, SEEDS
from d2ldrop.studies.training import DATA
from d2ldrop.training.optimizers import LEARNING_RATES


class Parser(argparse.ArgumentParser):
    """A parser whose error message is one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """A formatter that shows a default where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status: 0, or 1 for a failure; wrong use exits with 2.

    After a signal it is 128 and the signal's number: 130 for an interrupt, 143 for SIGTERM, 129 for SIGHUP.
    """
    commands = parser()
    args = commands.parse_args(argv)
    folder = {"train": "checkpoint", "exercise": "out"}.get(args.command)
    if folder and args.resume and not getattr(args, folder):
        commands.error(f"--resume needs --{folder} DIR")
    if args.command is None:
        commands.print_help()
        return 2
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


PICTURES = (".png", ".svg", ".pdf")


def add_hyperparameters(add: Callable[..., Any]) -> None:
    """Add the options that say how the chapter's models are trained."""
    add("--batch-size", type=count, help="samples per step; 256, or 16 for digits, if not given")
    add("--optimizer", choices=LEARNING_RATES, default="sgd", help="the framework's own optimiser of that name")
    add("--lr", type=positive, help="learning rate; 0.1, or 0.001 for adam and adamw, if not given")
    add("--weight-decay", type=not_negative, default=0.0, help="added to gradients times the weights; adamw: decoupled")
    add("--momentum", type=probability, default=0.0, help="of sgd")
    add("--dropout-1", type=probability, default=0.5, help="probability of dropping, first hidden layer")
    add("--dropout-2", type=probability, default=0.5, help="probability of dropping, second hidden layer")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    one: dict[str, Any] = {"type": canonical, "choices": registered(), "help": "the framework"}
    several = {**one, "action": "append", "help": "the framework; all that are installed, if not given"}
    one["default"] = available()[0]
    main_parser = Parser(prog="d2ldrop", description="The dropout chapter of Dive into Deep Learning")
    main_parser.add_argument("--version", action="version", version=importlib.metadata.version("d2ldrop"))
    commands = main_parser.add_subparsers(dest="command", parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], Any], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, formatter_class=HelpWithDefaults)
        added.set_defaults(run=run)
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    train_parser = command("train", train, "Train one of the chapter's models on images.")
    add = train_parser.add_argument
    add("--backend", **one)
    add("--model", choices=MODELS, default="scratch", help="dropout by hand, or the framework's own layers")
    add("--data", choices=["auto", *DATA], default="auto", help="auto: Fashion-MNIST if it can be had, else the digits")
    add("--epochs", type=count, default=10, help="passes over the training samples")
    add_hyperparameters(add)
    add("--hidden-1", type=count, default=256, help="units of the first hidden layer")
    add("--hidden-2", type=count, default=256, help="units of the second hidden layer")
    add("--seed", type=whole, default=0, help="what initial weights, order and dropout masks are drawn from")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: a GPU if the framework sees one")
    add("--plot", type=writable(*PICTURES), metavar="FILE", help="draw the curves to a .png, .svg or .pdf")
    add("--history", type=writable(".csv", ".json"), metavar="FILE", help="write a row per epoch to a .csv or .json")
    add("--save", type=writable(), metavar="FILE", help="write the weights to a .safetensors")
    add("--checkpoint", type=Path, metavar="DIR", help="keep what is needed to go on after each epoch in a folder")
    add("--resume", action="store_true", help="go on from the newest checkpoint in that folder, if there is one")
    add("--quiet", action="store_true", help="print nothing but errors")

    predict_parser = command("predict", predict, "Use saved weights: accuracy, and a picture of predictions.")
    add = predict_parser.add_argument
    add("--weights", required=True, metavar="FILE", help="what `d2ldrop train --save` wrote, in any backend")
    add("--backend", **one)
    add("--model", choices=MODELS, help="instead of the model that was trained")
    add("--data", choices=DATA, help="instead of the data it was trained on")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: a GPU if the framework sees one")
    add("--samples", type=count, metavar="N", help="predict with dropout on, and average over N masks for each image")
    add("--seed", type=whole, default=0, help="what these masks are drawn from")
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
    add("--data", choices=DATA, default="fashion-mnist", help="what to train on")
    add("--epochs", type=count, default=10, help="passes over the training samples")
    add("--seed", type=whole, default=0, help="what initial weights and order are drawn from")
    add("--shared-masks", action="store_true", help="drop the same elements everywhere: scratch models coincide")
    add(
        "--plot", type=writable(*PICTURES), metavar="FILE", help="draw the loss of each step, and how the curves differ"
    )
    add_hyperparameters(add)

    text = "Do the chapter's exercises: a table with intervals, a figure, and what follows from the numbers."
    exercise_parser = command("exercise", exercise, text)
    add = exercise_parser.add_argument
    add("number", choices=[*map(str, EXERCISES), "all"], help="which exercise")
    add("--backend", **one)
    add("--data", choices=["auto", *DATA], default="auto", help="auto: Fashion-MNIST if it can be had, else the digits")
    add("--seeds", type=count, help=f"how often each setting is trained; {SEEDS}, or {QUICK_SEEDS} with --quick")
    add("--quick", action="store_true", help="the digits, few epochs and settings: seconds, to see that it works")
    add("--jobs", type=count, help="trainings at the same time, a process each; as many as cores, if not given")
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
    add("--repeats", type=count, default=7, help="how often to time each contestant")
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where all but the copy of memory run")
    add("--scale", action="append_const", dest="part", const="scale", help="the same as --part scale")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--plot", type=writable(*PICTURES), metavar="FILE", help="draw the medians as bars")

    command("info", info, "Show versions, devices, backends, and where the data are.")
    return main_parser

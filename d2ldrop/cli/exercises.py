"""The command that does the chapter's exercises."""

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from d2ldrop.benchmarks.bench import cores
from d2ldrop.cli.commands import choose_data
from d2ldrop.cli.running import Report, Stopped, signals_raise
from d2ldrop.registry import get_backend
from d2ldrop.studies import exercises as studies
from d2ldrop.studies.tables import show
from d2ldrop.training.progress import in_terminal

__all__ = ["exercise"]


def exercise(args: argparse.Namespace) -> None:
    """Do one of the chapter's exercises, or all."""
    report = Report(quiet=False)
    get_backend(args.backend)  # an error now, and not in a worker
    wanted = "digits" if args.quick and args.data == "auto" else args.data
    data, _ = choose_data(wanted, None, report)  # what has to be downloaded is, before workers ask for it
    path = args.out / "runs.sqlite" if args.out else None
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    for number in studies.EXERCISES if args.number == "all" else [int(args.number)]:
        with signals_raise(), _progress(number, report) as progress:
            try:
                done = studies.perform(
                    number,
                    backend=args.backend,
                    data=data,
                    seeds=args.seeds or (studies.QUICK_SEEDS if args.quick else studies.SEEDS),
                    quick=args.quick,
                    jobs=args.jobs or cores(),
                    engine=args.engine,
                    address=args.address,
                    path=path,
                    resume=args.resume,
                    report=progress,
                )
            except KeyboardInterrupt as interrupt:
                kept = f"; add --resume to go on with what {path} has" if path else ""
                raise Stopped(getattr(interrupt, "signal", signal.SIGINT), f"interrupted{kept}") from interrupt
        title, about, *sentences = studies.text_of(done)
        report(f"{title}\n{about}")
        show(done.rows)
        report("\n".join(sentences))
        for written in studies.write(done, args.out) if args.out else ():
            report(f"written: {written}")


@contextmanager
def _progress(number: int, report: Report) -> Iterator[Callable[[int, int], Any]]:
    """Yield what shows how many runs have finished: a bar in a terminal, else a line for every tenth of them."""
    if in_terminal():
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(f"exercise {number}: runs"), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("")
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    tenths = set[tuple[int, int]]()

    def line(done: int, total: int) -> None:
        if (tenth := (total, done * 10 // total)) not in tenths:
            tenths.add(tenth)
            report(f"exercise {number}: {done} of {total} runs")

    yield line

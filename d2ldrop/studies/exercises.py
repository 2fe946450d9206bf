"""The chapter's exercises: each is a grid of settings, made with several seeds, a table, a figure and a conclusion."""

import importlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from d2ldrop.errors import ArgumentError, DataError
from d2ldrop.files import as_json, replacing
from d2ldrop.studies import tables
from d2ldrop.studies.compare import version_of
from d2ldrop.studies.engine import Run, execute
from d2ldrop.studies.store import Numbers, Settings
from d2ldrop.studies.tables import Results, Row

__all__ = [
    "EXERCISES",
    "QUICK_SEEDS",
    "SEEDS",
    "Exercise",
    "Report",
    "exercise",
    "figure_of",
    "page_of",
    "perform",
    "read",
    "text_of",
    "write",
]

EXERCISES = (1, 2, 3, 4, 5, 6, 7)
SEEDS, QUICK_SEEDS = 5, 2


class Exercise(Protocol):
    """What a module `exercise_N.py` defines.

    Besides, it may have a function `finals(results)` that returns further settings, once there are results of the grid:
    they are run as well, and are in what the table, the conclusion and the figure are made from.
    """

    TITLE: str
    """What is asked, in one line."""

    def grid(self, quick: bool) -> list[Settings]:
        """Return the settings, `epochs` included; the first is the baseline. `quick` is for seconds, not minutes."""

    def run(self, seed: int, **settings: Any) -> Numbers:
        """Return the numbers of a setting; `backend` and `data` come in addition to what the grid has."""

    def rows(self, results: Results) -> list[Row]:
        """Return the table."""

    def conclude(self, results: Results) -> list[str]:
        """Return sentences that follow from the numbers."""

    def draw(self, results: Results, figure: Any) -> None:
        """Draw on an empty matplotlib figure."""


class Report(NamedTuple):
    """What came out of an exercise."""

    number: int
    title: str
    about: str
    """On what, how often and for how long was trained."""
    results: Results
    rows: list[Row]
    conclusion: list[str]


def exercise(number: int) -> Exercise:
    """Return the module of an exercise.

    Raises
    ------
    ArgumentError
        If there is none of that number.
    """
    if number not in EXERCISES:
        raise ArgumentError(
            f"Expected the number of an exercise, {', '.join(map(str, EXERCISES))}. Received: {number!r}"
        )
    module: Any = importlib.import_module(f"d2ldrop.studies.exercise_{number}")
    found: Exercise = module
    return found


def perform(
    number: int,
    *,
    backend: str,
    data: str,
    seeds: int = SEEDS,
    quick: bool = False,
    jobs: int = 1,
    engine: str = "loky",
    address: str | None = None,
    path: str | os.PathLike[str] | None = None,
    resume: bool = False,
    report: Callable[[int, int], Any] = lambda done, total: None,
) -> Report:
    """Do an exercise.

    Parameters
    ----------
    number
        Which.
    backend, data
        The names of a backend and of a data set in `d2ldrop.studies.training.DATA`.
    seeds
        Each setting is trained with the seeds 0, 1, ..., `seeds` - 1.
    quick
        Few epochs and settings, to see that it works.
    jobs, engine, address, path, resume, report
        As for `d2ldrop.studies.engine.execute`, which also says what may go wrong.
    """
    module = exercise(number)

    def made(grid: list[Settings]) -> list[Numbers]:
        common = {"backend": backend, "data": data}
        runs = [Run(module.run, {**common, **each}, seed) for each in grid for seed in range(seeds)]
        return execute(runs, jobs, engine, address, path, resume, report)

    grid = module.grid(quick)
    results = Results(grid, seeds, made(grid))
    if hasattr(module, "finals"):
        finals = module.finals(results)
        results = Results([*grid, *finals], seeds, [*results.numbers, *made(finals)])
    count, epochs = len(results.grid), sorted({each["epochs"] for each in results.grid})
    about = (
        f"{data}, {backend} {version_of(backend)}; {count} setting{'s' * (count > 1)} x {seeds} seeds = "
        f"{count * seeds} trainings "
        f"of {' to '.join(map(str, dict.fromkeys((epochs[0], epochs[-1]))))} epochs"
    )
    return Report(number, module.TITLE, about, results, module.rows(results), module.conclude(results))


def write(done: Report, folder: Path) -> list[Path]:
    """Write the table, all numbers, the figure, and a page with the conclusion of an exercise; return the paths."""
    stem = folder / f"exercise{done.number}"
    paths = [stem.with_suffix(ending) for ending in (".csv", ".json", ".png", ".md")]
    tables.write_csv(done.rows, paths[0])
    settings = [each for each in done.results.grid for _ in range(done.results.seeds)]
    content = {
        "exercise": done.number,
        "title": done.title,
        "about": done.about,
        "conclusion": done.conclusion,
        "table": [as_json(row._asdict()) for row in done.rows],
        "runs": [
            {"settings": each, "seed": k % done.results.seeds, "numbers": numbers}
            for k, (each, numbers) in enumerate(zip(settings, done.results.numbers, strict=True))
        ],
    }
    with replacing(paths[1]) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with replacing(paths[2]) as temporary:
        figure_of(done).savefig(temporary, dpi=120)
    with replacing(paths[3]) as temporary:
        temporary.write_text("\n".join(page_of(done)) + "\n", encoding="utf-8")
    return paths


def read(path: str | os.PathLike[str]) -> Report:
    """Return an exercise from the file of all numbers, JSON, that `write` wrote; the rest follows from these.

    Raises
    ------
    DataError
        If the file holds something else.
    """
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        module, runs = exercise(kept["exercise"]), kept["runs"]
        seeds = 1 + max(run["seed"] for run in runs)
        results = Results([run["settings"] for run in runs[::seeds]], seeds, [run["numbers"] for run in runs])
        lines, conclusion = module.rows(results), module.conclude(results)
        return Report(kept["exercise"], module.TITLE, kept["about"], results, lines, conclusion)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"Expected the numbers of an exercise, as `d2ldrop exercise N --out DIR` writes them. Received: {path} "
            f"({type(error).__name__}: {error})"
        ) from error


def page_of(done: Report) -> list[str]:
    """Return an exercise as lines of Markdown: the conclusion, the figure and the table."""
    title, about, *conclusion = text_of(done)
    figure = f"![{done.title}](exercise{done.number}.png)"
    return [f"# {title}", "", f"{about}.", "", *conclusion, "", figure, "", *tables.markdown(done.rows)]


def text_of(done: Report) -> Sequence[str]:
    """Return title, what was trained, and conclusion, in lines."""
    return [f"Exercise {done.number}: {done.title}", done.about, *(f"- {sentence}" for sentence in done.conclusion)]


def figure_of(done: Report) -> Any:
    """Return the figure of an exercise; it belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    exercise(done.number).draw(done.results, figure)
    figure.suptitle(f"{done.title}\n{done.about}", fontsize="small")
    return figure

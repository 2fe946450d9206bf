"""Runs that do not depend on each other, in this process, on all its cores, or on a cluster; each is made once.

How to write a study
--------------------
A *run* is a function of a module, settings (plain numbers and texts), and a seed. It returns numbers by name, or short
lists of them for curves, and nothing else: whatever it needs, such as data, it loads itself, once per process. Names
that end in `seconds` are times; all other numbers depend on settings and seed alone.

>>> def scaled(seed: int, factor: float) -> Numbers:
...     return {"value": seed * factor}
>>> execute([Run(scaled, {"factor": 0.5}, seed) for seed in range(3)], jobs=1)
[{'value': 0.0}, {'value': 0.5}, {'value': 1.0}]

An exercise is a module `exercise_N.py` beside this one, see `Exercise` in `exercises.py`; `exercise_1.py` is one to
start from.

What holds
----------
- The same numbers for any `jobs` and from any engine, on the same kind of processor: every run has one thread, whatever
  the machine has, and a process makes one run at a time. With two threads, sums have another order: after
  an epoch of Fashion-MNIST the loss differed in the sixth digit with PyTorch, in the ninth with JAX, and not with
  TensorFlow. What is already loaded is limited as well, except for JAX and TensorFlow: in a process that has computed
  with these on several threads, runs with one job may differ from those of workers.
- A run that finished is kept in an SQLite file, if there is one, by the process that calls `execute`, and is not made
  again. A run is known by its function, settings, seed and code, see `code_of`.
- A worker that is killed costs the runs that were in progress, which are made again (with loky those of the other
  workers, too: it ends them all). A run whose worker dies each time is an error that names it.
- A run that raises is an error that names it, and ends the study; what finished until then is kept.
"""

import hashlib
import inspect
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d2ldrop.errors import ArgumentError, D2LDropError, StudyError, UsageError
from d2ldrop.registry import get_backend
from d2ldrop.studies.clusters import ENGINES
from d2ldrop.studies.compare import version_of
from d2ldrop.studies.store import Numbers, Settings, Store

__all__ = ["DEATHS", "THREADS", "Run", "code_of", "execute", "one_thread"]

DEATHS = 2
"""A run during which workers died this often is made with no other beside it, and after as many more is given up."""

THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",  # BLAS, PyTorch, MXNet
    "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",  # TensorFlow
    "NPROC",  # XLA, which JAX runs on
)  # fmt: skip
"""Where libraries look, when they are loaded, for how many threads they may use."""

_one_at_a_time = threading.Lock()


class Run(NamedTuple):
    """A call of a function, which need not be made by this process."""

    function: Callable[..., Numbers]
    """Called with the settings and `seed` as keywords."""
    settings: Settings
    seed: int

    @property
    def name(self) -> str:
        """The function's name, with its module."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.name}({values}, seed={self.seed})"


def execute(
    runs: Sequence[Run],
    jobs: int,
    engine: str = "loky",
    address: str | None = None,
    path: str | os.PathLike[str] | None = None,
    resume: bool = False,
    report: Callable[[int, int], Any] = lambda done, total: None,
) -> list[Numbers]:
    """Make those runs that were not made before, and return the numbers of all, in their order.

    Parameters
    ----------
    runs
        What to do; the same run twice is made once.
    jobs
        How many runs at the same time, each in a process of its own; 1: in this process, one after the other. On a
        cluster with an address it has as many as the cluster has workers.
    engine
        `"loky"`, processes on this machine; or `"dask"` or `"ray"`, through joblib.
    address
        Of a cluster's scheduler; None: a cluster of `jobs` workers is started on this machine.
    path
        The SQLite file in which finished runs are kept; None: they are not.
    resume
        Whether runs that `path` has may be taken from it. Otherwise it is an error if it has any of these.
    report
        Called with the numbers of finished runs and of all runs, at first and whenever one has finished.

    Raises
    ------
    UsageError
        If `path` has some of the runs already, and `resume` is false; or if an address is given to loky.
    StudyError
        If a run fails, or the worker dies each time that it is made; the message names the run.
    MissingPackageError
        If the engine is not installed; the message names the extra.
    """
    if engine not in ENGINES:
        raise ArgumentError(f"Expected engine to be one of {', '.join(ENGINES)}. Received: {engine!r}")
    for run in runs:
        if "<" in run.name:
            raise ArgumentError(f"Expected a function that a module defines. Received: {run.name}")
    keys = [(run.name, run.settings, run.seed, code_of(run)) for run in runs]
    with Store(path) as store:
        found = [store.find(*key) for key in keys]
        done = len(runs) - found.count(None)
        if done and not resume:
            raise UsageError(
                f"Expected none of these {len(runs)} runs in {path}. Received {done} that finished earlier: "
                "take them from there (--resume), or write to another place."
            )
        report(done, len(runs))
        missing = {k: run for k, run in enumerate(runs) if found[k] is None and run not in runs[:k]}
        if missing:
            with one_thread():
                for k, numbers in _finished(missing, partial(ENGINES[engine], min(jobs, len(missing)), address)):
                    store.add(*keys[k], numbers)
                    found = [numbers if key == keys[k] else old for key, old in zip(keys, found, strict=True)]
                    report(len(runs) - found.count(None), len(runs))
    return [numbers for numbers in found if numbers is not None]


def _finished(
    missing: Mapping[int, Run], workers: Callable[[], AbstractContextManager[None]]
) -> Iterator[tuple[int, Numbers]]:
    """Yield the numbers of each run as it finishes, whatever happens to the workers."""
    from joblib import Parallel, delayed

    left, deaths, failed = dict(missing), Counter[int](), list[StudyError]()
    while left and not failed:
        alone = next((k for k in left if deaths[k] >= DEATHS), None)
        started: set[int] = set()

        def calls(chosen: Iterable[int], started: set[int] = started) -> Iterator[Any]:
            for k in chosen:  # it goes on whenever a worker is free
                if not failed:
                    started.add(k)
                    yield delayed(_call)(k, missing[k], code_of(missing[k]))

        try:
            with workers():  # others, after some have died
                parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
                for k, outcome in parallel(calls([*left] if alone is None else [alone])):
                    started.discard(k)
                    if isinstance(outcome, StudyError):
                        failed.append(outcome)  # no more are begun, but those in progress are made and kept
                    else:
                        del left[k]
                        yield k, outcome
        except D2LDropError:
            raise
        except Exception as error:  # each engine has an error of its own for a worker that died
            deaths.update(started)
            received = f"Received {type(error).__name__}: {error}"
            if not started:
                raise StudyError(f"Expected workers that can be reached. {received}") from error
            if alone is not None and deaths[alone] >= 2 * DEATHS:
                raise StudyError(
                    f"Expected a worker that survives {missing[alone]}, with no other run beside it. {received} "
                    "Has it enough memory?"
                ) from error
    if failed:
        raise failed[0]


def _call(k: int, run: Run, code: str) -> tuple[int, Numbers | StudyError]:
    """Make a run, in a worker; an error is returned, so that those of the worker's death can be told from it."""
    with _one_at_a_time, one_thread():
        if code_of(run) != code:
            return k, StudyError(f"Expected workers with the same d2ldrop, framework and NumPy as here for {run}.")
        try:
            numbers = run.function(**run.settings, seed=run.seed)
        except Exception as error:
            return k, StudyError(f"{run} failed: {type(error).__name__}: {error}")
        return k, {name: np.asarray(value, float).tolist() for name, value in numbers.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the block, and the processes that it starts, compute in one thread each, on the CPU.

    Libraries that are loaded are told so where that is possible; others find it in the environment.
    """
    from threadpoolctl import threadpool_limits

    wanted = {**dict.fromkeys(THREADS, "1"), "CUDA_VISIBLE_DEVICES": ""}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with threadpool_limits(1):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def code_of(run: Run) -> str:
    """Return a number that changes with the code on which a run's numbers depend, and with the framework's version.

    It is made of the module of the run's function, of the modules of `d2ldrop` but the pictures and the command line,
    and of the adapter of the backend that the settings name.
    """
    return _code_of(inspect.getsourcefile(run.function), run.settings.get("backend"))


@lru_cache
def _code_of(source: str | None, backend: str | None) -> str:
    root = Path(__file__).parents[1]
    adapters = [Path(inspect.getfile(type(get_backend(backend)))).parent] if backend else []
    folders = [root, root / "training", root / "data", *adapters]
    shared = [root / "studies" / name for name in ("compare.py", "training.py", "noisy.py")]
    files = [*(path for folder in folders for path in sorted(folder.glob("*.py"))), *shared]
    digest = hashlib.sha256(f"{np.__version__} {version_of(backend) if backend else ''}".encode())
    for path in [*files, *([Path(source)] if source and os.path.isfile(source) else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

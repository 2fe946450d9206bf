"""Where runs are made: processes on this machine, or the workers of a Dask or Ray cluster, all through joblib.

joblib has a backend for each. Two things are added to those of Dask and Ray: the death of a worker is an error, where
joblib would wait forever, and results come as they finish, where joblib's base class for pools has them at the end.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from d2ldrop.errors import UsageError, need

__all__ = ["ENGINES", "dask", "loky", "ray"]


@contextmanager
def loky(jobs: int, address: str | None) -> Iterator[None]:
    """Use processes on this machine; with one job, this process."""
    from joblib import parallel_config

    if address is not None:
        raise UsageError(f"Expected an address with the engine dask or ray. Received: {address!r} with loky")
    with warnings.catch_warnings(), parallel_config("loky", n_jobs=jobs):
        # loky replaces a worker whose memory has grown, and warns, in a thread that must not end by an error
        warnings.filterwarnings("ignore", "A worker stopped while some jobs")
        yield


@contextmanager
def dask(jobs: int, address: str | None) -> Iterator[None]:
    """Use the workers of the Dask cluster at an address, such as `tcp://host:8786`, or new ones on this machine."""
    need("distributed", "dask", "The engine dask")
    import distributed
    from joblib import parallel_config
    from joblib._dask import DaskDistributedBackend

    class Backend(_DeathsAreErrors, DaskDistributedBackend):  # type: ignore[misc] # joblib has no types
        def effective_n_jobs(self, n_jobs: int) -> int:
            workers: int = super().effective_n_jobs(n_jobs)
            return max(2, workers)  # with 1, as when others died, joblib would not ask Dask

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)  # the callback is not called if Dask gives the task up
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return future

    local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.Client(address) if address else distributed.Client(**local) as client,
        parallel_config(Backend(client=client), n_jobs=-1),
    ):
        yield


@contextmanager
def ray(jobs: int, address: str | None) -> Iterator[None]:
    """Use the workers of the Ray cluster at an address, `auto` on one of its nodes, or new ones on this machine.

    Where there is but one, runs are made in this process.
    """
    need("ray", "ray", "The engine ray")
    import ray as cluster
    from joblib import parallel_config
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(_DeathsAreErrors, RayBackend):  # type: ignore[misc]
        supports_return_generator = True

    local = {"num_cpus": jobs, "include_dashboard": False}
    with cluster.init(address, log_to_driver=False) if address else cluster.init("local", log_to_driver=False, **local):
        # A worker per core, also while it works; after its death Ray starts another, which makes the run again.
        backend = Backend(ray_remote_args={"num_cpus": 1, "max_restarts": -1, "max_task_retries": 2})
        with parallel_config(backend, n_jobs=-1 if address else jobs):
            yield


ENGINES: dict[str, Callable[[int, str | None], AbstractContextManager[None]]] = {"loky": loky, "dask": dask, "ray": ray}
"""What runs can be made on: called with the number of jobs and the address, if any."""


class _DeathsAreErrors:
    """The part of a backend of joblib that takes results from workers."""

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the result, or raise the error that came in its place."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)  # type: ignore[misc]

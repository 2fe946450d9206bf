"""Studies on real clusters of two workers on this machine, of which one is killed in the middle."""

import os
from pathlib import Path

import pytest
import study_runs

from d2ldrop import available
from d2ldrop.errors import StudyError
from d2ldrop.studies.engine import Run, execute


@pytest.fixture(params=["dask", "ray"])
def engine(request, monkeypatch):
    """Return the name of an engine whose workers can import what the tests run."""
    pytest.importorskip({"dask": "distributed"}.get(request.param, request.param))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    return request.param


@pytest.mark.filterwarnings("ignore")  # of the clusters, some of which leave a socket open
def test_a_cluster_gives_the_same_numbers_although_a_worker_is_killed(engine, tmp_path):
    names = [name for name in ("numpy", "torch") if name in available()]
    trained = [Run(study_runs.trained, {"backend": name, "epochs": 2}, seed) for name in names for seed in (0, 1)]
    killed = [Run(study_runs.killed_once, {"folder": str(tmp_path), "victim": 2}, seed) for seed in range(4)]
    numbers = execute([*trained[:2], *killed, *trained[2:]], 2, engine, path=tmp_path / "runs.sqlite")
    assert numbers[2:6] == [{"value": 2 * seed} for seed in range(4)]
    assert (tmp_path / "killed").exists()
    assert 4 <= len([*tmp_path.glob("*-*")]) <= 6  # besides the killed one, what its worker had not yet handed over
    assert numbers[:2] + numbers[6:] == execute(trained, jobs=1)


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_no_worker_of_a_cluster_survives_is_named(engine, tmp_path):
    runs = [Run(study_runs.killed_always, {"folder": str(tmp_path), "victim": 1}, seed) for seed in range(3)]
    with pytest.raises(StudyError, match=r"seed=1\), with no other"):
        execute(runs, 2, engine)


def test_a_dask_cluster_with_an_address(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
        runs = [Run(study_runs.trained, {"backend": "numpy", "epochs": 1}, seed) for seed in range(4)]
        assert execute(runs, 1, "dask", cluster.scheduler_address) == execute(runs, 1)

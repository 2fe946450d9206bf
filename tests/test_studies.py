"""Studies: the engine makes each run once, wherever, and tables and sentences say what the numbers say."""

import csv
import importlib.util
import math

import numpy as np
import pytest
import scipy.stats
import study_runs

from d2ldrop import available
from d2ldrop.cli import main as cli
from d2ldrop.errors import ArgumentError, DataError, MissingPackageError, StudyError, UsageError
from d2ldrop.studies import engine, exercise_1, exercise_2, exercise_5, tables
from d2ldrop.studies.engine import Run, execute
from d2ldrop.studies.tables import Results, compared, estimate, paired


def runs_of(function, folder, count=6, **settings):
    return [Run(function, {"folder": str(folder), **settings}, seed) for seed in range(count)]


def calls(folder):
    """Return how often each seed was run."""
    return sorted(int(path.name.partition("-")[0]) for path in folder.iterdir() if "-" in path.name)


# The engine


def test_the_same_numbers_with_one_job_and_two(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    names = [name for name in ("numpy", "torch") if name in available()]
    runs = [Run(study_runs.trained, {"backend": name, "epochs": 1}, seed) for name in names for seed in (0, 1)]
    assert execute(runs, jobs=1) == execute(runs, jobs=2)
    (threads,) = {
        tuple(each.values())
        for each in execute([Run(study_runs.threads, {"backend": names[-1]}, k) for k in (0, 1)], 2)
    }
    assert {*threads} == {1}


def test_results_are_in_the_order_of_the_runs_and_the_same_run_is_made_once(tmp_path):
    runs = [Run(study_runs.counted, {"folder": str(tmp_path)}, seed) for seed in (3, 1, 3, 2)]
    assert [each["value"] for each in execute(runs, jobs=1)] == [6, 2, 6, 4]
    assert calls(tmp_path) == [1, 2, 3]


def test_resume_repeats_nothing(tmp_path):
    path, folder = tmp_path / "runs.sqlite", tmp_path / "calls"
    folder.mkdir()

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(runs_of(study_runs.counted, folder), 1, path=path, report=stop)
    with pytest.raises(UsageError, match=r"none of these 6 runs .* Received 4 that finished"):
        execute(runs_of(study_runs.counted, folder), 1, path=path)
    seen = []
    resumed = execute(
        runs_of(study_runs.counted, folder, 8), 1, path=path, resume=True, report=lambda *done: seen.append(done)
    )
    assert [each["value"] for each in resumed] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert calls(folder) == list(range(8))
    assert seen == [(done, 8) for done in range(4, 9)]
    other = execute(runs_of(study_runs.counted, folder, 1, factor=5), 1, path=path)  # other settings are other runs
    assert (other, calls(folder)) == ([{"value": 0}], [0, *range(8)])


def test_runs_of_other_code_are_made_again(tmp_path, monkeypatch):
    path, run = tmp_path / "runs.sqlite", runs_of(study_runs.counted, tmp_path, 1)
    execute(run, 1, path=path)
    monkeypatch.setattr(engine, "code_of", lambda run: "changed")
    execute(run, 1, path=path)
    assert calls(tmp_path) == [0, 0]
    monkeypatch.undo()
    codes = {
        engine.code_of(Run(function, {"backend": name}, 0))
        for function in (study_runs.counted, exercise_1.run)
        for name in ("numpy", "toy")
    }
    assert len(codes) == 4
    read = set()
    monkeypatch.setattr(engine.Path, "read_bytes", lambda path: read.add(f"{path.parent.name}/{path.name}") or b"")
    engine._code_of.__wrapped__(None, "numpy")
    assert {"studies/compare.py", "studies/training.py", "numpy/lesson.py", "d2ldrop/noise.py"} <= read


def test_numbers_survive_the_file_bit_by_bit(tmp_path):
    runs = [Run(study_runs.trained, {"backend": "numpy", "epochs": 1}, 0)]
    assert (
        execute(runs, 1, path=tmp_path / "r") == execute(runs, 1, path=tmp_path / "r", resume=True) == execute(runs, 1)
    )


def test_a_killed_worker_costs_only_the_runs_in_progress(tmp_path):
    numbers = execute(runs_of(study_runs.killed_once, tmp_path, 12, victim=5), jobs=2)
    assert [each["value"] for each in numbers] == list(range(0, 24, 2))
    assert {*calls(tmp_path)} == {*range(12)}
    assert len(calls(tmp_path)) <= 12 + 4  # of 5 before the kill, those that a worker had begun, or just finished


def test_a_run_that_no_worker_survives_is_named(tmp_path):
    path = tmp_path / "runs.sqlite"
    with pytest.raises(StudyError, match=r"study_runs\.killed_always\(.*seed=1\), with no other"):
        execute(runs_of(study_runs.killed_always, tmp_path, 4, victim=1), jobs=2, path=path)
    assert 0 in calls(tmp_path)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_is_named_and_others_are_kept(jobs, tmp_path):
    path = tmp_path / "runs.sqlite"
    runs = runs_of(study_runs.failing, tmp_path, 6, victim=4)
    with pytest.raises(StudyError, match=r"seed=4\) failed: ZeroDivisionError: nothing to divide by"):
        execute(runs, jobs, path=path)
    before = len(calls(tmp_path))
    execute(runs[:3], jobs, path=path, resume=True)
    assert len(calls(tmp_path)) == before


def test_wrong_arguments_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="'slurm'"):
        execute([], 1, engine="slurm")
    with pytest.raises(ArgumentError, match="lambda"):
        execute([Run(lambda seed: {}, {}, 0)], 1)
    with pytest.raises(UsageError, match="with loky"):
        execute(runs_of(study_runs.counted, tmp_path), 2, address="tcp://here:1")
    (tmp_path / "text").write_text("no database, but long enough to be taken for one" * 10)
    with pytest.raises(DataError, match="text to be an SQLite file"):
        execute(runs_of(study_runs.counted, tmp_path), 1, path=tmp_path / "text")
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    for name in ("dask", "ray"):
        with pytest.raises(MissingPackageError, match=rf"pip install '\.\[{name}\]'"):
            execute(runs_of(study_runs.counted, tmp_path), 2, name)


# Tables and sentences


def test_estimates_are_students():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7))
    found, expected = paired(a, b), scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high])
    assert (found.low > 0 or found.high < 0) == (scipy.stats.ttest_rel(a, b).pvalue < 0.05)
    four = estimate([1, 2, 3, 6])  # by hand: mean 3, variance 14/3, and t(3) = 3.182
    np.testing.assert_allclose(four[:3], [3, math.sqrt(14 / 3 / 4), 4])
    np.testing.assert_allclose(four.high - four.mean, 3.182 * math.sqrt(14 / 12), rtol=1e-3)
    assert estimate([2.0, 2.0])[3:] == (2, 2)
    assert estimate([2.0])[3:] == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("shift", "said"),
    [(1, "With A, accuracy is higher than with B"), (-1, "With A, accuracy is lower than with B"),
     (0, "Between A and B, no difference in accuracy is shown")],
)  # fmt: skip
def test_a_sentence_follows_the_interval(shift, said):
    noise = np.array([0.01, -0.02, 0.015, -0.004])
    sentence = compared("A", "accuracy", shift + noise, "B", np.zeros(4))
    assert sentence.startswith(said)
    assert sentence.endswith(f": {paired(shift + noise, np.zeros(4))}.")
    assert compared("A", "accuracy", [1.0], "B", [0.0]).startswith("Between A and B, no difference")  # a single seed
    assert compared("A", "accuracy", [1, 1], "B", [0, 0]).startswith("Between A and B, no difference")  # no spread


def results_of(module, numbers):
    """Return results in which each number is given by a function of the setting, apart from noise of mean 0."""
    noise = 1e-3 * np.array([3.0, -2.0, -2.0, 1.0])  # other seeds have other signs in each setting
    made = [
        {name: value + np.roll(noise, k)[seed] for name, value in numbers(each).items()}
        for k, each in enumerate(module.grid(quick=True))
        for seed in range(4)
    ]
    return Results(module.grid(quick=True), 4, made)


@pytest.mark.parametrize(("shift", "said"), [(0.1, "is higher than"), (-0.1, "is lower than"), (0, "no difference")])
def test_exercise_1_says_what_the_swap_does(shift, said):
    results = results_of(exercise_1, lambda each: {"val_acc": 0.8 + shift * (each["dropout_1"] > each["dropout_2"])})
    swap, others, _ = exercise_1.conclude(results)
    assert said in swap
    assert f"{int(shift > 0)} are above" in others
    assert f"{int(shift < 0)} below" in others


@pytest.mark.parametrize(("shift", "said"), [(0.1, "is higher than"), (-0.1, "is lower than"), (0, "no difference")])
def test_exercise_2_says_what_dropout_does(shift, said):
    def numbers(each):
        with_dropout = each["dropout_1"] > 0
        falling, rising = np.array([3.0, 2.5, 2.0, 1.0]), np.array([1.0, 2.0, 2.5, 3.0])
        return {
            "gap": shift * with_dropout, "last_val_acc": 0.5, "last_val_loss": 1.0, "best_epoch": 1,
            "val_loss": falling if with_dropout else rising,
        }  # fmt: skip

    gap, accuracy, _, without, with_dropout = exercise_2.conclude(results_of(exercise_2, numbers))
    assert said in gap
    assert "no difference in validation accuracy" in accuracy
    assert "lowest after epoch 1, and has risen since: +2.0000" in without
    assert with_dropout == "With dropout, mean validation loss is lowest after epoch 4, the last."


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_exercise_5_says_what_each_does_and_both(sign):
    def numbers(each):
        dropout, decay = each["dropout_1"] > 0, each["weight_decay"] > 0
        return {"last_val_acc": 0.5 + sign * (0.1 * dropout + 0.2 * decay + 0.3 * dropout * decay), "gap": 0.0}

    results = results_of(exercise_5, numbers)
    expected = {"effect of dropout": 0.25, "effect of weight decay": 0.35, "interaction": 0.3}
    found = {name: values.mean() for name, values in exercise_5.effects(results, "last_val_acc").items()}
    assert found == pytest.approx({name: sign * value for name, value in expected.items()}, abs=0.01)
    words = {
        1: ("raises", "raises", "is higher"),
        -1: ("lowers", "lowers", "is lower"),
        0: ("No effect",) * 2 + ("No interaction",),
    }
    for word, sentence in zip(words[sign], exercise_5.conclude(results)[1:4], strict=True):
        assert word in sentence


def test_tables_have_paired_differences(tmp_path, capsys):
    lines = [
        tables.row("a", "m", [1.0, 2.0]),
        tables.row("b", "m", [2.0, 3.5], [1.0, 2.0]),
        tables.contrast("c", "m", [1.0]),
    ]
    tables.write_csv(lines, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        first, second, third = csv.DictReader(file)
    assert (first["mean"], first["standard_error"], first["n"], first["difference"]) == ("1.5", "0.5", "2", "")
    assert (second["difference"], float(second["low"])) == ("1.25", pytest.approx(1.25 - 12.706 * 0.25, rel=1e-3))
    assert (third["mean"], third["difference"], third["low"], third["n"]) == ("", "1.0", "", "1")
    tables.show(lines)
    assert "+1.2500" in capsys.readouterr().out


# The command


def test_a_study_is_begun_once_and_resumed_when_asked_to(tmp_path, capsys):
    command = ["exercise", "2", "--backend", "numpy", "--quick", "--jobs", "1", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    written = (tmp_path / "exercise2.json").read_text()
    assert cli.main(command) == 1
    assert "take them from there (--resume)" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 0
    assert (tmp_path / "exercise2.json").read_text() == written


def test_resume_needs_a_folder(capsys):
    with pytest.raises(SystemExit):
        cli.main(["exercise", "1", "--resume"])
    assert "--resume needs --out DIR" in capsys.readouterr().err

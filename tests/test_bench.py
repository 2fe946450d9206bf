"""The benchmark: contestants alternate, and it reports what it measured. How long that takes is not tested."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import d2ldrop
from d2ldrop import Digits
from d2ldrop.benchmarks import bench, gpu_check
from d2ldrop.cli import commands
from d2ldrop.cli import main as cli


def test_contestants_alternate_and_the_first_round_does_not_count():
    ran = []
    times = bench.alternate({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, repeats=3)
    assert ran == ["a", "b"] * 4
    assert {who: len(values) for who, values in times.items()} == {"a": 3, "b": 3}


def test_median_spread_and_ratio():
    rows = bench.summary("epoch", {"ours": [3.0, 1.0, 2.0], "plain": [5.0, 4.0, 9.0]}, {"ours": "plain"}, {})
    assert rows == [
        {"what": "epoch", "who": "ours", "value": 2, "fastest": 1, "slowest": 3, "baseline": "plain", "ratio": 2.5},
        {"what": "epoch", "who": "plain", "value": 5, "fastest": 4, "slowest": 9},
    ]
    times = {"ours": [6.0], "products": [8.0], "NumPy's products": [4.0]}
    rows = bench.summary("epoch", times, {}, {"ours": ("products", "NumPy's products", "of a third")})
    assert (rows[0]["floor"], rows[0]["over_floor"]) == ("NumPy's products", 1.5)
    assert "floor" not in rows[1]


def test_a_floor_above_what_it_bounds_is_an_error(monkeypatch, capsys):
    epoch = {"part": "epochs", "what": "epoch", "who": "scratch", "value": 1.0, "fastest": 1.0, "slowest": 1.0}
    about = {"backend": "numpy", "version": "1", "device": "cpu", **bench.machine()}
    row = {**about, **epoch, "floor": "matrix products", "over_floor": 0.5}
    monkeypatch.setattr(bench, "measure", lambda *arguments: [row])
    words = ["bench", "--backend", "numpy", "--data", "digits"]
    assert cli.main(words) == 1
    shown = capsys.readouterr()
    assert "Received numpy: scratch takes 0.50 times as long as matrix products" in shown.err
    assert "0.50 x the matrix products" in shown.out  # what was measured is shown all the same
    row["over_floor"] = 1.0
    assert cli.main(words) == 0
    assert bench.false_floors([{**row, "over_floor": 0.9, "part": "layers"}]) == []


def test_the_machine_is_told(capsys):
    about = bench.machine()
    assert about["processor"]
    assert about["cores"] >= 1
    assert any("threads" in pool for pool in about["pools"])  # NumPy's BLAS at least
    row = {"what": "peak memory", "part": "memory", "who": "import", "value": 1, "fastest": 1, "slowest": 1}
    bench.show([{"backend": "numpy", "version": "1", "device": "cpu", **about, **row}])
    out = " ".join(capsys.readouterr().out.split())
    assert f"{about['cores']} cores of {about['processor']}" in out


def test_every_backend_is_measured_against_its_baselines(d2l, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SHAPES", ((256, 512),))
    rows = bench.measure(d2l.name, ["memory", "epochs", "layers"], Digits, repeats=1)
    assert all(row["backend"] == d2l.name and row["fastest"] <= row["value"] <= row["slowest"] for row in rows)
    epochs = {row["who"]: row for row in rows if row["part"] == "epochs"}
    baselines = bench.baselines_of(d2l.name)
    parts = {"plain_loop": "plain loop", "matrix_products": "matrix products"}
    offered = {who for part, who in parts.items() if hasattr(baselines, part)}
    offered |= {"NumPy's matrix products"} if offered and d2l.name != "numpy" else set()
    assert set(epochs) == {"scratch", "concise", "scratch, dropout 0"} | offered
    assert all(row["value"] > 0 and row.get("over_floor", 1) > 0 for row in epochs.values())
    layers = [row for row in rows if row["part"] == "layers"]
    assert {row["who"] for row in layers} == ({"dropout_layer", "own", "product", "copy"} if baselines else set())
    assert len(layers) == (4 * 2 * len(bench.PROBABILITIES) if baselines else 0)
    assert all(row["ratio"] > 0 and row["over_floor"] > 0 for row in layers if row["who"] == "dropout_layer")
    rows += bench.measure(d2l.name, ["transformer"], Digits, repeats=1)
    steps = [row for row in rows if row["part"] == "transformer"]
    assert [row["who"] for row in steps] == (["Dropout", "own"] if hasattr(baselines, "encoder_steps") else [])
    assert all(row["ratio"] > 0 for row in steps if row["who"] == "Dropout")
    bench.draw(rows, tmp_path / "bars.svg")
    assert (tmp_path / "bars.svg").read_bytes().startswith(b"<?xml")


def test_plain_loops_learn_as_well(d2l):
    """A baseline that does not do the work would make ours look slow, or fast."""
    baselines = bench.baselines_of(d2l.name)
    if not hasattr(baselines, "plain_loop"):
        pytest.skip("a framework without automatic differentiation has no loop to compare with")
    data = Digits(batch_size=16)
    splits = (data.split(train, d2l.channels_last) for train in (True, False))
    epoch = baselines.plain_loop(*splits, 16, 0.1, 0.5)
    assert max(epoch() for _ in range(8)) > 0.8


def test_scale_fits_an_exponent(monkeypatch):
    monkeypatch.setitem(bench.SCALE, "samples", (100, 200, 4000))
    monkeypatch.setattr(bench, "alternate", lambda who, repeats: {size: [1e-6 * float(size) ** 0.5] for size in who})
    monkeypatch.setattr(bench, "_epoch", lambda model, data: None)
    rows = bench.measure("numpy", ["scale"], Digits, repeats=1)
    assert {row["what"] for row in rows} == {"samples", "width", "batch"}
    assert all(row["exponent"] == pytest.approx(0.5) for row in rows)


def test_bench_measures_each_backend_in_its_own_process(monkeypatch, capsys, tmp_path):
    asked = []

    def run(command, **kwargs):
        asked.append(command)
        name = command[command.index("--backend") + 1]
        about = {"backend": name, "version": "1", "device": "cpu", **bench.machine()}
        row = {"part": "memory", "what": "peak memory", "who": "import", "value": 1, "fastest": 1, "slowest": 1}
        return subprocess.CompletedProcess(command, 0, json.dumps([{**about, **row}]))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(commands, "available", lambda: ("numpy", "torch"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    words = "bench --backend numpy --backend torch --part memory --data digits --repeats 3".split()
    assert cli.main([*words, "--json"]) == 0
    assert [row["backend"] for row in json.loads(capsys.readouterr().out)] == ["numpy", "torch"]
    assert asked[0][:4] == [sys.executable, "-m", "d2ldrop", "bench"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # what is measured on the CPU must not find a GPU
    assert cli.main(words) == 0
    assert "peak memory" in capsys.readouterr().out
    assert cli.main([*words, "--plot", str(tmp_path / "p.png")]) == 1  # no times to plot
    assert "Expected times" in capsys.readouterr().err


def test_bench_raises_when_a_process_fails(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, **kwargs: subprocess.CompletedProcess(command, 1, ""))
    with pytest.raises(d2ldrop.UsageError, match="It ended with status 1"):
        bench.bench(["numpy", "torch"], ["memory"], "digits", 1, "cpu")


@pytest.mark.only_torch
@pytest.mark.only_jax
def test_the_gpu_check_runs_without_one(d2l):
    scores = gpu_check.masks(d2l.backend, num_gpus=0)
    assert len(scores) == 9
    for found in scores.values():
        assert max(abs(found[name]) for name in ("kept", "kept by two", "neighbours")) < 5
        assert 0.8 < found["standard deviation of the columns"] < 1.2
    times = gpu_check.layers(d2l.backend, (8, 8), "bfloat16", 0.5)
    assert min(times["forward and backward"].values()) > 0
    assert gpu_check.curves(d2l.backend, num_gpus=0) == {"DropoutMLPScratch": 0, "DropoutMLP": 0}
    biased = np.random.default_rng(0).random((1000, 1000)) < 0.51
    assert gpu_check.score(biased, 0.5) > 15


@pytest.mark.parametrize(("result", "status"), [({"failed": "a traceback"}, 1), ({"loss": 1.0}, 0)])
def test_the_gpu_check_ends_with_1_if_a_check_failed(monkeypatch, tmp_path, result, status):
    monkeypatch.setattr(gpu_check, "check", lambda name, num_gpus: iter([("masks", result)]))
    monkeypatch.setattr("sys.argv", ["gpu_check", str(tmp_path), "--device", "cpu", "--backend", "torch"])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    assert int(ended.value.code) == status
    assert json.loads((tmp_path / "torch.json").read_text()) == {"masks": result}

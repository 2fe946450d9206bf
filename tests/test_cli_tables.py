"""`d2ldrop train --csv` and `d2ldrop predict --csv`, as a person would use them, right and wrong."""

import csv
import re

import numpy as np
import pytest
from helpers import run_cli
from sklearn.datasets import load_diabetes, load_wine

import d2ldrop
from d2ldrop.data import CSVData

pytest.importorskip("pandas", reason="the extra csv is not installed")

QUICK = "--epochs 6 --hidden-1 16 --hidden-2 16 --dropout-1 0.1 --dropout-2 0.1".split()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with wines, as classes, and diabetes, as a regression."""
    folder = tmp_path_factory.mktemp("tables")
    wine = load_wine(as_frame=True)
    frame = wine.frame.assign(target=[f"cultivar {wine.target_names[k]}" for k in wine.target])
    frame.to_csv(folder / "wine.csv", index=False)
    frame.drop(columns="target").head(12).to_csv(folder / "new.csv", index=False)
    load_diabetes(as_frame=True, scaled=False).frame.to_csv(folder / "diabetes.csv", index=False, sep=";")
    (folder / "text.csv").write_text("word,y\none,p\ntwo,q\nthree,p\nfour,q\n")
    return folder


def test_a_table_is_trained_on_and_new_rows_are_predicted(d2l, files, tmp_path, capsys):
    weights, out = tmp_path / "w.safetensors", tmp_path / "out.csv"
    command = ["train", "--backend", d2l.name, "--csv", files / "wine.csv", "--target", "target", *QUICK]
    assert run_cli(*command, "--save", weights) == 0
    shown = capsys.readouterr().out
    assert "data: wine.csv: 143 rows to train on, 35 to validate on; 13 columns of numbers" in shown
    accuracy = float(re.search(r"validation accuracy ([0-9.]+), loss", shown).group(1))
    assert accuracy > 0.85

    predict = ["predict", "--backend", d2l.name, "--weights", weights, "--csv"]
    assert run_cli(*predict, files / "wine.csv", "--out", out) == 0
    shown = capsys.readouterr().out
    assert f"{d2l.name} DropoutMLPScratch on wine.csv: 178 rows, " in shown
    assert f"predictions: {out}" in shown
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(files / "wine.csv", newline="") as file:
        right = [row["target"] == guess["prediction"] for row, guess in zip(csv.DictReader(file), rows, strict=True)]
    assert f"accuracy {np.mean(right):.4f}" in shown
    for row in rows:
        probabilities = {name: float(value) for name, value in row.items() if name != "prediction"}
        assert sum(probabilities.values()) == pytest.approx(1, rel=1e-5)
        assert max(probabilities, key=probabilities.get) == f"probability of {row['prediction']}"

    assert run_cli(*predict, files / "new.csv") == 0  # without the target
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{d2l.name} DropoutMLPScratch on new.csv: 12 rows, ")
    assert "accuracy" not in lines[0]
    assert lines[1] == f"row 1: {rows[0]['prediction']}"
    assert lines[-1] == "and 2 more, which --out FILE writes"


def test_a_regression_is_trained_and_predicted_in_its_units(d2l, files, tmp_path, capsys):
    weights, out = tmp_path / "w.safetensors", tmp_path / "out.csv"
    history = tmp_path / "h.jsonl"
    command = ["train", "--backend", d2l.name, "--csv", files / "diabetes.csv", "--target", "target", *QUICK]
    assert run_cli(*command, "--save", weights, "--history", history, "--plot", tmp_path / "p.svg") == 0
    shown = capsys.readouterr().out
    assert "target 'target': numbers, a regression" in shown
    assert "epoch 6/6: train_loss 0." in shown
    error = float(re.search(rf"{d2l.name} regressor: validation RMSE ([0-9.]+), loss", shown).group(1))
    assert 40 < error < 70  # 77 is the deviation of the target, 55 the error of a linear model
    assert len(history.read_text().splitlines()) == 6
    predict = ["predict", "--backend", d2l.name, "--weights", weights, "--csv", files / "diabetes.csv"]
    assert run_cli(*predict, "--out", out) == 0
    with open(out, newline="") as file:
        guesses = np.array([float(row["prediction"]) for row in csv.DictReader(file)])
    y = load_diabetes().target
    whole = np.sqrt(np.mean((guesses - y) ** 2))
    assert f"442 rows; RMSE {whole:.5g}" in capsys.readouterr().out
    data = CSVData(files / "diabetes.csv", "target")  # the same rows are set aside
    trainer = d2ldrop.Trainer(1, progress=False)
    loss = trainer.evaluate(d2ldrop.load_model(weights, d2l.name), data)["val_loss"]
    assert data.preparation.scale.deviation * np.sqrt(2 * loss) == pytest.approx(error, rel=1e-4)


def test_rows_are_predicted_under_many_masks(files, tmp_path, capsys):
    train = ["train", "--backend", "numpy", *QUICK, "--quiet", "--target", "target"]
    predict = ["predict", "--backend", "numpy", "--samples", "50"]
    expected = {"wine.csv": {"entropy", "mutual information"}, "diabetes.csv": {"standard deviation"}}
    for name, columns in expected.items():
        weights, out = tmp_path / f"{name}.safetensors", tmp_path / name
        assert run_cli(*train, "--csv", files / name, "--save", weights) == 0
        assert run_cli(*predict, "--csv", files / name, "--weights", weights, "--out", out) == 0
        with open(out, newline="") as file:
            rows = list(csv.DictReader(file))
        assert {key for key in rows[0] if not key.startswith("pr")} == columns
        assert all(float(row[key]) >= 0 for row in rows for key in columns)
    shown = capsys.readouterr().out
    assert float(re.search(r"accuracy ([0-9.]+)", shown).group(1)) > 0.85
    assert float(re.search(r"RMSE ([0-9.]+)", shown).group(1)) < 70
    deviations = [float(row["standard deviation"]) for row in rows]
    assert 1 < np.mean(deviations) < 77  # in the units of the target


@pytest.mark.parametrize("name", ["torch", "tf", "jax", "mxnet"])
def test_other_backends_predict_the_same(name, files, tmp_path, capsys):
    if name not in d2ldrop.available():
        pytest.skip("not installed")
    weights = tmp_path / "w.safetensors"
    command = ["train", "--backend", "numpy", "--csv", files / "wine.csv", "--target", "target", *QUICK, "--quiet"]
    assert run_cli(*command, "--save", weights) == 0
    shown = []
    for backend in ("numpy", name):
        assert run_cli("predict", "--backend", backend, "--weights", weights, "--csv", files / "wine.csv") == 0
        shown.append(capsys.readouterr().out.replace(backend, "", 1))
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("train --csv {}/wine.csv", "--csv needs --target COLUMN"),
        ("train --target y", "--target needs --csv FILE"),
        ("train --task regression", "--task needs --csv FILE"),
        ("train --sep ;", "--sep needs --csv FILE"),
        ("train --ignore a", "--ignore needs --csv FILE"),
        ("train --csv {}/wine.csv --data digits --target target", "not allowed with argument"),
        ("train --csv {}/wine.csv --target target --sep ab", "expected one character"),
        ("train --csv {}/wine.csv --target target --task guess", "invalid choice"),
        ("train --history h.txt", "expected a name that ends in .csv, .json, .jsonl, received 'h.txt'"),
        ("predict --weights w --out {}/o.csv", "--out needs --csv FILE"),
        ("predict --weights w --csv {}/wine.csv --plot p.png", "--plot draws images"),
        ("predict --weights w --csv {}/wine.csv --out {}/wine.csv", "--out needs another file"),
        ("predict --weights w --csv {}/wine.csv --out o.txt", "ends in .csv"),
    ],
)
def test_wrong_use_exits_with_2_and_one_line(argv, message, files, capsys):
    assert run_cli(*(word.format(files, files) for word in argv.split())) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--csv {}/no.csv --target y", "There is no file of that name"),
        ("--csv {}/wine.csv --target tarket", "Do you mean 'target'?"),
        ("--csv {}/wine.csv --target target --sep ;", "pass it as sep"),
        ("--csv {}/wine.csv --target target --task regression", "numbers in column 'target'"),
        ("--csv {} --target target", "directory"),
        ("--csv {}/wine.csv --target target --ignore nothing", "a column 'nothing'"),
    ],
)
def test_tables_that_cannot_be_trained_on_exit_with_1_and_one_line(argv, message, files, capsys):
    assert run_cli("train", "--backend", "numpy", *(word.format(files) for word in argv.split())) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert message in shown.err


def test_weights_and_tables_must_belong_together(files, tmp_path, capsys):
    table, digits = tmp_path / "table", tmp_path / "digits"
    train = ["train", "--backend", "numpy", "--epochs", "1", "--hidden-1", "4", "--hidden-2", "4", "--quiet"]
    assert run_cli(*train, "--csv", files / "wine.csv", "--target", "target", "--save", table) == 0
    assert run_cli(*train, "--data", "digits", "--save", digits) == 0
    for argv, message in (
        (("--weights", table), "Expected --csv FILE, a table to predict from"),
        (("--weights", digits, "--csv", files / "wine.csv"), "written by `d2ldrop train --csv`"),
        (("--weights", table, "--csv", files / "text.csv"), "Missing: 'alcohol'"),
    ):
        assert run_cli("predict", "--backend", "numpy", *argv) == 1
        shown = capsys.readouterr().err
        assert message in shown
        assert shown.count("\n") == 1


def test_tensorboard_gets_the_numbers_of_each_epoch(files, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    options = ["--csv", files / "text.csv", "--target", "y", "--epochs", "2", "--tensorboard", tmp_path / "events"]
    assert run_cli("train", "--backend", "numpy", *options, "--quiet") == 0
    assert [path.name.startswith("events.out.tfevents.") for path in (tmp_path / "events").iterdir()] == [True]


def test_without_tensorboard_the_extra_is_named(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("d2ldrop.training.history.need", lambda package, extra, what: missing(package, extra))

    def missing(package, extra):
        raise d2ldrop.MissingPackageError(f"{package}: pip install '.[{extra}]'")

    assert run_cli("train", "--backend", "numpy", "--data", "digits", "--tensorboard", tmp_path / "events") == 1
    assert "pip install '.[tensorboard]'" in capsys.readouterr().err

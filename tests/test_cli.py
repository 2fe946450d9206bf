"""The command line, as a person would use it, right and wrong."""

import contextlib
import csv
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import QUICK, run_cli

import d2ldrop
from d2ldrop import Digits
from d2ldrop.cli import commands
from d2ldrop.cli import main as cli
from d2ldrop.data import fashion_mnist as fashion
from d2ldrop.errors import DataNotFoundError
from d2ldrop.registry import package_of
from d2ldrop.studies import compare as comparison
from d2ldrop.training import progress


@pytest.mark.parametrize("model", ["scratch", "concise"])
def test_train_writes_plot_history_and_weights(d2l, model, tmp_path, capsys):
    files = {option: tmp_path / name for option, name in
             (("--plot", "p.svg"), ("--history", "h.csv"), ("--save", "w.safetensors"))}  # fmt: skip
    options = [word for pair in files.items() for word in pair]
    assert run_cli("train", "--backend", d2l.name, "--model", model, *QUICK, *options) == 0
    shown = capsys.readouterr().out
    assert "data: the digits of scikit-learn, as asked for" in shown
    assert "epoch 5/5: train_loss" in shown
    with open(files["--history"], newline="") as file:
        accuracy = f"{float(list(csv.DictReader(file))[-1]['val_acc']):.4f}"
    assert f"{d2l.name} {model}: validation accuracy {accuracy}" in shown
    assert b"<svg" in files["--plot"].read_bytes()
    plot = tmp_path / "grid.png"
    assert run_cli("predict", "--backend", d2l.name, "--weights", files["--save"], "--plot", plot) == 0
    assert f"on digits: accuracy {accuracy}" in capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return weights that NumPy trained, and the accuracy that `train` printed."""
    path, shown = tmp_path_factory.mktemp("trained") / "w.safetensors", io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert run_cli("train", "--backend", "numpy", *QUICK, "--save", path) == 0
    return path, re.search(r"validation accuracy ([0-9.]+),", shown.getvalue()).group(1)


@pytest.mark.parametrize("model", ["scratch", "concise"])
def test_predict_with_weights_of_another_backend(d2l, model, trained, capsys):
    weights, accuracy = trained
    assert run_cli("predict", "--backend", d2l.name, "--model", model, "--weights", weights) == 0
    assert f"on digits: accuracy {accuracy}" in capsys.readouterr().out


def test_predictions_are_drawn_below_their_labels_and_wrong_ones_are_red(tmp_path, monkeypatch):
    data = Digits()
    X, y = data.split(train=False)
    guessed = np.where(np.arange(24) % 3 == 0, (y[:24] + 1) % 10, y[:24])
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.extend(figure.axes))
    commands.save_predictions(data, X, y, np.eye(10)[guessed], tmp_path / "grid.png")
    assert [axes.get_title() for axes in drawn] == [f"{t}\n{g}" for t, g in zip(y[:24], guessed, strict=True)]
    assert [axes.title.get_color() for axes in drawn] == ["red" if k % 3 == 0 else "black" for k in range(24)]


def compared(tmp_path, monkeypatch, *options):
    """Return the runs of `d2ldrop compare`, by backend and model."""
    runs = []
    monkeypatch.setattr(commands.comparison, "show", runs.extend)
    assert run_cli("compare", "--data", "digits", "--epochs", "1", *options) == 0
    return {(row.backend, row.model): row for row in runs}


def test_compare_shares_masks_on_request(d2l, tmp_path, monkeypatch):
    options = ("--backend", "numpy", "--backend", d2l.name, "--model", "scratch", "--batch-size", "64")
    shared = compared(tmp_path, monkeypatch, *options, "--shared-masks")
    (oracle, own) = (shared[name, "DropoutMLPScratch"].losses for name in ("numpy", d2l.name))
    np.testing.assert_allclose(own, oracle, rtol=1e-3)
    separate = compared(tmp_path, monkeypatch, *options)["numpy", "DropoutMLPScratch"].losses
    assert np.abs(separate / oracle - 1).max() > 0.01


@pytest.mark.parametrize(
    "option",
    [
        "--lr 0.01",
        "--dropout-1 0.1",
        "--dropout-2 0.1",
        "--batch-size 64",
        "--seed 1",
        "--model concise",
        "--optimizer adam",
        "--weight-decay 0.1",
        "--momentum 0.9",
    ],
)
def test_compare_takes_the_options_of_training(option, tmp_path, monkeypatch):
    fixed = ("--backend", "numpy", *([] if "--model" in option else ["--model", "scratch"]))
    (plain,) = compared(tmp_path, monkeypatch, "--backend", "numpy", "--model", "scratch").values()
    (changed,) = compared(tmp_path, monkeypatch, *fixed, *option.split()).values()
    assert len(changed.losses) == (23 if "--batch-size" in option else 90)
    if "--model" in option:  # the same network, from the same weights, with the same masks
        np.testing.assert_array_equal(changed.losses, plain.losses)
        assert changed.model == "DropoutMLP"
    else:
        assert changed.losses[-1] != plain.losses[-1]


@pytest.mark.parametrize(
    "option",
    [
        "--lr 0.01",
        "--dropout-1 0.1",
        "--dropout-2 0.1",
        "--batch-size 32",
        "--seed 1",
        "--optimizer adamw",
        "--weight-decay 0.1",
        "--momentum 0.5",
    ],
)
def test_train_takes_its_options(option, tmp_path):
    losses = []
    for words in ([], option.split()):
        path = tmp_path / "h.csv"
        command = ["train", "--backend", "numpy", *QUICK, "--epochs", "1", *words, "--quiet", "--history", path]
        assert run_cli(*command) == 0
        with open(path, newline="") as file:
            losses.append(next(csv.DictReader(file))["train_loss"])
    assert losses[0] != losses[1]


def test_the_learning_rate_depends_on_the_optimizer_if_none_is_given(tmp_path, capsys):
    def settings(*words):
        return commands.optimizer(cli.parser().parse_args(["train", *words]))

    assert settings() == {"lr": 0.1, "optimizer": "sgd", "weight_decay": 0.0, "momentum": 0.0}
    assert [settings("--optimizer", name)["lr"] for name in ("adam", "adamw")] == [0.001, 0.001]
    assert settings("--optimizer", "adam", "--lr", "0.1")["lr"] == 0.1
    assert run_cli("train", "--backend", "numpy", *QUICK, "--optimizer", "adam", "--momentum", "0.9") == 1
    assert "Expected momentum to be 0 with the optimizer adam. Received: 0.9" in capsys.readouterr().err


def test_compare_prints_a_line_per_run_and_a_table_and_draws_a_plot(tmp_path, capsys):
    command = "compare --backend numpy --data digits --epochs 2 --plot".split()
    assert run_cli(*command, tmp_path / "curves.png") == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"1/2 numpy scratch: validation accuracy (0\.\d{4}), \d+\.\d\d s per epoch\n2/2 numpy concise: ", shown
    )
    assert shown.count("numpy") == 4
    assert "MLPScratch" in shown
    accuracies = [float(number) for number in re.findall(r"0\.\d{4}", shown)]
    assert len(accuracies) == 4
    assert min(accuracies) > 0.8
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_compare_shows_a_bar_per_run_in_a_terminal(monkeypatch, capsys):
    bars = []
    for module in (commands, progress):
        monkeypatch.setattr(module, "in_terminal", lambda: True)
    monkeypatch.setattr(progress.ProgressBar, "on_fit_start", lambda bar, trainer: bars.append(bar))
    for name in ("on_refresh", "on_epoch_end", "on_fit_end"):
        monkeypatch.setattr(progress.ProgressBar, name, lambda bar, trainer: None)
    command = "compare --backend numpy --data digits --epochs 1 --batch-size 200".split()
    assert run_cli(*command) == 0
    assert len(bars) == 2
    assert "1/2 numpy scratch\n2/2 numpy concise\n" in capsys.readouterr().out


def test_compare_trains_with_several_seeds(tmp_path, monkeypatch, capsys):
    command = "compare --data digits --epochs 2 --batch-size 200 --backend numpy --seed 3 --seeds 2 --plot".split()
    runs, figures = [], []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: figures.append(figure))
    draw = commands.comparison.draw
    monkeypatch.setattr(commands.comparison, "draw", lambda rows, path: (runs.extend(rows), draw(rows, path)))
    assert run_cli(*command, tmp_path / "curves.png") == 0
    shown = capsys.readouterr().out
    assert [(row.model, row.seed) for row in runs] == [
        ("DropoutMLPScratch", 3), ("DropoutMLPScratch", 4), ("DropoutMLP", 3), ("DropoutMLP", 4)
    ]  # fmt: skip
    one, other = (row.accuracy for row in runs[:2])
    assert one != other
    assert all(word in shown for word in ("mean", "least", "largest", "4/4 numpy concise, seed 4: "))
    for number in ((one + other) / 2, min(one, other), max(one, other)):
        assert shown.count(f" {number:.4f} ") >= 2
    losses, accuracies, differences, legend = figures[0].axes
    assert [len(axes.collections) for axes in figures[0].axes] == [2, 2, 1, 0]  # bands
    expected = np.mean([row.accuracies for row in runs[:2]], axis=0)
    np.testing.assert_allclose(accuracies.get_lines()[0].get_ydata(), expected)
    np.testing.assert_allclose(losses.get_lines()[0].get_ydata(), np.mean([row.losses for row in runs[:2]], axis=0))
    np.testing.assert_array_equal(differences.get_lines()[0].get_ydata(), comparison.LEAST)  # the same in NumPy
    assert [text.get_text() for text in legend.get_legend().get_texts()] == ["numpy MLPScratch", "numpy MLP"]


def test_a_comparison_of_ten_runs_can_be_read(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: figures.append(figure))
    rng = np.random.default_rng(0)
    names = [(name, model) for name in ("torch", "tf", "jax", "mxnet", "numpy") for model in commands.MODELS.values()]
    runs = [comparison.Run(name, model, 0, 0.9, 1.0, "1", rng.random(1000), rng.random(10)) for name, model in names]
    comparison.draw(runs, tmp_path / "a.png")
    losses, accuracies, differences, legend = figures[0].axes
    looks = {(line.get_color(), line.get_linestyle()) for line in losses.get_lines()}
    assert len(looks) == 10
    assert {len(line.get_xdata()) for line in losses.get_lines()} == {comparison.POINTS}
    assert losses.get_lines()[3].get_ydata().mean() == pytest.approx(runs[3].losses.mean())
    assert [len(axes.get_lines()) for axes in (losses, accuracies, differences)] == [10, 10, 9]
    assert [axes.get_legend() for axes in (losses, accuracies, differences)] == [None] * 3  # nothing is hidden
    assert len(legend.get_legend().get_texts()) == 10
    figures[0].canvas.draw()
    whole = figures[0].bbox
    for axes in figures[0].axes[:3]:
        for text in (axes.title, axes.xaxis.label):
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
            assert whole.y0 <= box.y0 <= box.y1 <= whole.y1


def test_compare_trains_each_model_once(capsys):
    options = "--data digits --epochs 1 --batch-size 512 --backend numpy --model scratch"
    assert run_cli("compare", *options.split(), "--backend", "numpy", "--model", "scratch") == 0
    printed = capsys.readouterr()
    assert "1/1" in printed.out + printed.err


def test_compare_falls_back_to_the_digits(monkeypatch, capsys, tmp_path):
    def fail(*args, **kwargs):
        raise DataNotFoundError("Fashion-MNIST was not found.")

    monkeypatch.setattr(commands, "FashionMNIST", fail)
    assert run_cli(*"compare --backend numpy --model scratch --epochs 1".split()) == 0
    assert "data: the digits of scikit-learn, because Fashion-MNIST is not" in capsys.readouterr().out


def test_train_quiet_prints_nothing(d2l, capsys):
    assert run_cli("train", "--backend", d2l.name, *QUICK, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_train_auto_uses_fashion_mnist_if_found(fashion_mnist, monkeypatch, capsys):
    monkeypatch.setenv("D2LDROP_DATA", str(fashion_mnist))
    assert run_cli("train", "--backend", "numpy", "--epochs", "1", "--hidden-1", "8", "--hidden-2", "8") == 0
    assert f"data: Fashion-MNIST, from {fashion_mnist}" in capsys.readouterr().out


def test_train_auto_falls_back_to_digits(monkeypatch, capsys, tmp_path):
    def nowhere(*_, **__):
        raise DataNotFoundError("no network")

    monkeypatch.setattr(fashion, "fetch", nowhere)
    monkeypatch.setattr(fashion.FashionMNIST, "locate", classmethod(lambda *_: None))
    assert run_cli("train", "--backend", "numpy", "--epochs", "1") == 0
    assert "data: the digits of scikit-learn, because Fashion-MNIST is not" in capsys.readouterr().out
    assert run_cli("train", "--backend", "numpy", "--quiet", "--history", tmp_path / "h.csv") == 0
    with open(tmp_path / "h.csv", newline="") as file:
        assert float(list(csv.DictReader(file))[-1]["val_acc"]) > 0.9
    assert run_cli("train", "--backend", "numpy", "--data", "fashion-mnist") == 1
    assert capsys.readouterr().err == "d2ldrop train: error: no network\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trane"], "trane"),
        (["train", "--backend", "theano"], "theano"),
        (["train", "--dropout-1", "1.2"], r"expected a number in [0, 1], received '1.2'"),
        (["train", "--dropout-2", "nan"], r"expected a number in [0, 1], received 'nan'"),
        (["train", "--lr", "0"], "expected a positive number, received '0'"),
        (["train", "--lr", "fast"], "expected a positive number, received 'fast'"),
        (["train", "--epochs", "0"], "expected a positive integer, received '0'"),
        (["train", "--seed", "-1"], "seed"),
        (["train", "--plot", "/no/such/folder/a.png"], "a folder that can be written to"),
        (["train", "--save", "."], "a folder that can be written to"),
        (["predict"], "--weights"),
    ],
)
def test_usage_errors_exit_with_2_and_one_line(argv, message, capsys):
    assert run_cli(*argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert message in shown.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["predict", "--weights", "nothing.safetensors"], "There is none at nothing.safetensors"),
        (["predict", "--weights", __file__], "to be a safetensors file"),
    ],
)
def test_failures_exit_with_1_and_one_line(argv, message, capsys):
    assert run_cli(*argv) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert message in shown.err
    with pytest.raises(Exception, match=message):
        cli.main([*argv, "--debug"])


def test_names_without_a_known_ending_are_refused_and_nothing_is_touched(tmp_path, capsys):
    (tmp_path / "curves").write_text("mine")
    for option, name in (("--plot", "curves"), ("--plot", "x.bmp"), ("--history", "x.txt")):
        assert run_cli("train", "--backend", "numpy", *QUICK, option, tmp_path / name) == 2
        assert "expected a name that ends in" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    assert run_cli("train", "--backend", "numpy", *QUICK, "--history", "/dev/null", "--quiet") == 0


def test_the_number_of_epochs_and_the_widths_are_those_asked_for(tmp_path):
    options = ["--epochs", "2", "--hidden-1", "5", "--hidden-2", "7", "--history", tmp_path / "h.csv"]
    assert run_cli("train", "--backend", "numpy", *QUICK, *options, "--save", tmp_path / "w") == 0
    assert len((tmp_path / "h.csv").read_text().splitlines()) == 3
    hparams = d2ldrop.read_weights(tmp_path / "w")[1]["hparams"]
    assert (hparams["num_hiddens_1"], hparams["num_hiddens_2"]) == (5, 7)


def test_predict_takes_another_model_or_other_data(trained, fashion_mnist, monkeypatch, capsys):
    path, _ = trained
    assert run_cli("predict", "--backend", "numpy", "--weights", path, "--model", "concise") == 0
    assert "numpy DropoutMLP on digits" in capsys.readouterr().out
    monkeypatch.setenv("D2LDROP_DATA", str(fashion_mnist))
    assert run_cli("predict", "--backend", "numpy", "--weights", path, "--data", "fashion-mnist") == 1
    assert "Expected inputs of 64 numbers each. Received: (1, 28, 28)" in capsys.readouterr().err


def test_names_of_frameworks_and_no_command(d2l, capsys):
    other = {"torch": "pytorch", "tf": "tensorflow"}.get(d2l.name, d2l.name)
    assert run_cli("train", "--backend", other, *QUICK, "--epochs", "1") == 0
    assert f"{d2l.name} scratch: validation accuracy" in capsys.readouterr().out


def test_without_a_command_all_are_listed(capsys):
    assert run_cli() == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ +{name} +[A-Z]", shown, re.MULTILINE) for name in cli.EXAMPLES)
    assert run_cli("--help") == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("example", [line.strip() for text in cli.EXAMPLES.values() for line in text.splitlines()])
def test_the_examples_of_the_help_can_be_typed(example, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    command, name, *words = example.split()
    args = cli.parser().parse_args([name, *words])
    cli.check_together(cli.parser(), args)
    assert (command, args.command) == ("d2ldrop", name)
    assert run_cli(name, "--help") == 0
    assert f"  {example}\n" in capsys.readouterr().out


def test_train_rejects_a_missing_gpu(d2l, capsys):
    if d2l.num_gpus():
        pytest.skip("there is a GPU")
    assert run_cli("train", "--backend", d2l.name, *QUICK, "--device", "gpu") == 1
    assert f"Expected a GPU that {d2l.name} can use" in capsys.readouterr().err


def test_info_lists_backends_and_data(capsys):
    assert run_cli("info", "--devices") == 0
    shown = capsys.readouterr().out
    assert "numpy" in shown
    assert "fashion-mnist" in shown
    assert "devices: cpu" in shown
    versions = dict(re.findall(r"^(\w+) +([\w.+]+), devices", shown, re.MULTILINE))
    assert versions == {name: sys.modules[package_of(name)].__version__ for name in d2ldrop.available()}


def test_info_imports_no_framework():
    code = "import sys; from d2ldrop.cli.main import main; main(['info']); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *lines, loaded = shown.splitlines()
    assert any(line.startswith("numpy ") for line in lines)
    assert "devices" not in shown
    assert not {"torch", "tensorflow", "jax", "mxnet"} & {*loaded.split()}


def test_module_entry_point():
    command = [sys.executable, "-m", "d2ldrop"]
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown.count(".") == 2


@pytest.mark.parametrize("command", ["train", "predict", "compare", "bench"])
def test_help_shows_defaults(command, capsys):
    assert run_cli(command, "--help") == 0
    shown = capsys.readouterr().out
    assert "(default: cpu)" in shown or "(default: fashion-mnist)" in shown or "(default: auto)" in shown
    assert "None" not in shown
    assert "False" not in shown

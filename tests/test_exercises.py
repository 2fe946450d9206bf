"""Exercises 3, 4, 6 and 7: models under other noise, what the runs measure, and what the conclusions say of it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from d2ldrop import Callback, available, mc_predict
from d2ldrop.cli import main as cli
from d2ldrop.errors import ArgumentError, DataError, UsageError
from d2ldrop.studies import exercise_3, exercise_4, exercise_6, exercise_7, exercises
from d2ldrop.studies.noisy import NOISES, noisy_model
from d2ldrop.studies.tables import Results
from d2ldrop.studies.training import fitted, held_out, load

CHEAPEST = ("torch", "mxnet", "tf", "jax")  # of those that find gradients
WITH_GRADIENTS = [name for name in CHEAPEST if name in available()][:1]
SMALL = {"data": "digits", "epochs": 1, "num_hiddens_1": 32, "num_hiddens_2": 16}
NOISE = 1e-3 * np.array([3.0, -2.0, -2.0, 1.0])  # of four seeds; its mean is 0


def results_of(module, numbers, grid=None):
    """Return results in which each number is given by a function of the setting, but for a little noise."""
    grid = module.grid(quick=True) if grid is None else grid
    made = [
        {name: value + np.roll(NOISE, k)[seed] for name, value in numbers(each).items()}
        for k, each in enumerate(grid)
        for seed in range(4)
    ]
    return Results(grid, 4, made)


# The command


@pytest.mark.parametrize(("number", "runs"), [(1, 8), (2, 4), (3, 4), (4, 2), (5, 8), (6, 6), (7, 14)])
def test_an_exercise_writes_table_numbers_figure_and_conclusion(number, runs, tmp_path, capsys):
    backend = "numpy" if number < 6 else next(iter(WITH_GRADIENTS), None)
    if backend is None:
        pytest.skip("no framework here finds gradients")
    command = ["exercise", str(number), "--backend", backend, "--quick", "--jobs", "1", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    page = (tmp_path / f"exercise{number}.md").read_text().splitlines()
    said = [line for line in page if line.startswith("- ")]
    assert {page[0].removeprefix("# "), page[2].removesuffix("."), *said} <= {*shown.splitlines()}
    assert (tmp_path / f"exercise{number}.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads((tmp_path / f"exercise{number}.json").read_text())
    assert kept["conclusion"] == [line.removeprefix("- ") for line in said]
    assert len(kept["runs"]) == runs
    with open(tmp_path / f"exercise{number}.csv", newline="") as file:
        settings = [row["setting"] for row in csv.DictReader(file)]
    assert settings == [row["setting"] for row in kept["table"]]
    assert settings == [line.split(" | ")[0].removeprefix("| ") for line in page[-len(settings) :]]
    again = exercises.read(tmp_path / f"exercise{number}.json")
    assert exercises.page_of(again) == page


@pytest.mark.parametrize("number", exercises.EXERCISES)
def test_the_pages_of_the_documentation_say_what_follows_from_the_stored_numbers(number):
    stored = Path(__file__).parents[1] / "docs" / "exercises" / f"exercise{number}.json"
    assert exercises.page_of(exercises.read(stored)) == stored.with_suffix(".md").read_text().splitlines()


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"exercise": 8, "runs": []}', '{"exercise": 1, "runs": []}'])
def test_a_file_that_holds_no_exercise_is_refused(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"^Expected the numbers of an exercise.*Received: .*other\.json"):
        exercises.read(path)


def test_what_has_its_backward_pass_by_hand_is_refused_before_training(tmp_path, capsys):
    assert cli.main(["exercise", "6", "--backend", "numpy", "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "Received: numpy, whose models have a backward pass by hand. Use another one" in shown.err
    assert "1 of 6 runs" not in shown.out + shown.err
    with pytest.raises(UsageError, match="backward pass by hand"):
        noisy_model("toy", "dropout", 0.5)


# Models under noise


@pytest.mark.skip_numpy
@pytest.mark.skip_toy
def test_with_the_noise_dropout_it_is_the_chapters_model(d2l):
    X, seen, weights = np.random.default_rng(0).random((40, 6), np.float32), [], None
    for kind in (d2l.backend.models["DropoutMLPScratch"], noisy_model(d2l.name, "dropout", 0.5)):
        model = kind(3, 32, 16, 0.5, 0.5, 0.1)
        d2l.backend.build(model, (X,), d2l.cpu())
        weights = weights or d2l.get_weights(model)
        d2l.set_weights(model, weights)
        d2l.seed(0)
        seen.append(d2l.backend.numpy(d2l.backend.sample(model, d2l.backend.array(X))))
    np.testing.assert_array_equal(*seen)
    assert not np.allclose(seen[0], d2l.backend.numpy(d2l.backend.predict(model, d2l.backend.array(X))))


@pytest.mark.skip_numpy
@pytest.mark.skip_toy
def test_noise_is_where_it_says_and_only_in_training(d2l):
    X = np.random.default_rng(0).random((40, 6), np.float32)
    weights = {"lin1.weight": np.full((5, 6), 0.5), "lin1.bias": np.full(5, 0.25),
               "lin2.weight": np.ones((3, 5)), "lin2.bias": np.zeros(3)}  # fmt: skip
    H = X @ weights["lin1.weight"].T + 0.25
    for noise in NOISES:
        model = noisy_model(d2l.name, noise, 0.5)(num_outputs=3, num_hiddens=[5], dropouts=[0.9], lr=0.1)
        d2l.set_weights(model, weights)
        inputs = d2l.backend.array(X)
        np.testing.assert_allclose(d2l.backend.numpy(d2l.backend.predict(model, inputs)), H @ np.ones((5, 3)), 1e-5)
        d2l.seed(0)
        calls = [tuple(map(d2l.backend.numpy, call)) for call in d2l.backend.linear_calls(model, inputs)]
        into_last = calls[-1][0]
        if noise == "DropConnect":  # the first layer is not called, as its weights differ from call to call
            assert len(calls) == 1
            products = (into_last - 0.25) / X.sum(axis=1, keepdims=True)
            assert (np.ptp(products, axis=1) > 0.01).all()
            rank = np.linalg.matrix_rank(into_last - 0.25, tol=1e-3)  # X times one matrix of weights for all samples
            weights_seen, *_ = np.linalg.lstsq(X, into_last - 0.25, rcond=None)
            assert rank <= 5
            np.testing.assert_allclose(weights_seen, np.where(weights_seen > 0.5, 1.0, 0.0), atol=1e-3)
            assert 5 < (weights_seen > 0.5).sum() < 25
            continue
        into_first, out_of_first = calls[0]
        assert np.allclose(into_first, X) == (noise != "input noise")
        assert np.allclose(into_last, np.maximum(out_of_first, 0), atol=1e-5) == (noise == "input noise")
        if noise == "input noise":
            assert abs((into_first - X).std() - 0.5) < 5 * 0.5 / np.sqrt(2 * X.size)


class Start(Callback):
    """Keeps the initial weights."""

    def on_fit_start(self, trainer):
        self.weights = trainer.backend.get_weights(trainer.model)


@pytest.mark.skip_numpy
@pytest.mark.skip_toy
def test_dropped_weights_are_trained(d2l):
    start = Start()
    trainer = fitted(0, backend=d2l.name, model=noisy_model(d2l.name, "DropConnect", 0.5), callbacks=[start], **SMALL)
    for name, value in d2l.get_weights(trainer.model).items():
        assert not np.array_equal(start.weights[name], value)


def test_no_such_noise():
    for name in WITH_GRADIENTS:
        with pytest.raises(ArgumentError, match=r"one of dropout, .*'pink'"):
            noisy_model(name, "pink", 0.5)


def test_held_out_samples_are_training_samples():
    data, held = load("digits"), held_out("digits")
    (X, y), (rest, _), (val, y_val) = data.split(True), held.split(True), held.split(False)
    assert (len(rest), len(val)) == (1437 - 239, 1437 // 6)
    rows = sorted(row.tobytes() for part in (rest, val) for row in part)
    assert rows == sorted(row.tobytes() for row in X)
    assert np.abs(np.bincount(y_val) / len(y_val) - np.bincount(y) / len(y)).max() < 0.01
    assert held is held_out("digits")


# Exercise 3


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.8])
def test_variance_after_the_mask_is_as_predicted(p):
    h = np.maximum(np.random.default_rng(0).normal(0.3, 1.0, 7), 0)
    values, odds = np.stack([h / (1 - p), 0 * h]), np.array([[1 - p], [p]])  # each with all that may become of it
    mean = (odds * values).sum(axis=0).mean()
    variance = (odds * (values - mean) ** 2).sum(axis=0).mean()
    assert exercise_3.predicted(h.var(), h.mean(), p) == pytest.approx(variance)


def test_exercise_3_measures_what_the_theory_predicts():
    numbers = exercise_3.run(0, backend="numpy", dropout_1=0.2, dropout_2=0.5, **{**SMALL, "epochs": 2})
    for layer, p in ((1, 0.2), (2, 0.5)):
        before, after = numbers[f"before_{layer}"], numbers[f"after_{layer}"]
        assert 0 < abs(numbers[f"error_{layer}"]) < 0.1
        assert (after > before / (1 - p)).all()  # as means are not 0
        assert numbers[f"growth_{layer}"] == pytest.approx(before[1] / before[0] - 1)


@pytest.mark.parametrize(
    ("shift", "said"),
    [(0.1, ("too high", "grows")), (-0.1, ("too low", "shrinks")), (0, ("is not shown to differ", "is not shown to"))],
)
def test_exercise_3_says_how_far_it_is_from_the_theory(shift, said):
    names = [f"{name}_{layer}" for name in ("error", "growth") for layer in (1, 2)]
    sentences = exercise_3.conclude(results_of(exercise_3, lambda each: dict.fromkeys(names, shift)))
    assert len(sentences) == 6
    assert all(said[0] in sentence for sentence in sentences[:2])
    assert all(said[1] in sentence for sentence in sentences[2:])
    assert all(f"{shift:+.4f} (95%" in sentence for sentence in sentences)


# Exercise 4


def test_exercise_4_measures_each_way_to_predict():
    settings = {"backend": "numpy", **SMALL, "epochs": 5}
    numbers, trainer = exercise_4.run(0, **settings), fitted(0, **settings)
    assert numbers["mean_acc"] == pytest.approx(trainer.history[-1]["val_acc"])
    assert numbers["mean_log_loss"] == pytest.approx(trainer.history[-1]["val_loss"], rel=1e-5)
    X, y = load("digits").split(train=False)
    assert numbers["masks_10_acc"] == (mc_predict(trainer.model, X, 10, 0).probabilities.argmax(axis=1) == y).mean()
    assert [numbers[f"{way}_passes"] for way in exercise_4.WAYS] == [1, 1, 10, 100]
    assert numbers["masks_100_log_loss"] < numbers["masks_1_log_loss"]  # the logarithm is concave
    assert 0 < numbers["changed"] < 1
    again = exercise_4.run(0, **settings)
    assert {name for name in numbers if numbers[name] != again[name]} <= {
        name for name in numbers if name.endswith("seconds")
    }


@pytest.mark.parametrize(("shift", "said"), [(0.1, "is higher than"), (-0.1, "is lower than"), (0, "no difference")])
def test_exercise_4_says_what_the_masks_do(shift, said):
    def numbers(each):
        ways = {f"{way}_{metric}": 0.5 for way in exercise_4.WAYS for metric in exercise_4.METRICS}
        return {**ways, "masks_1_acc": 0.5 + shift, "masks_100_log_loss": 0.5 + shift, "changed": 0.25}

    results = results_of(exercise_4, numbers)
    for seed, each in enumerate(results.numbers):  # otherwise differences would have no noise
        each["mean_acc"] += NOISE[seed - 1]
        each["mean_log_loss"] += NOISE[seed - 1]
    one, one_loss, average, average_loss, changed, cost = exercise_4.conclude(results)
    assert said in one
    assert said in average_loss
    assert all("no difference" in sentence for sentence in (one_loss, average))
    assert "+0.2500" in changed
    assert "takes 100 forward passes" in cost


# Exercise 6


@pytest.mark.parametrize(("shift", "said"), [(0.1, "is higher than"), (-0.1, "is lower than"), (0, "no difference")])
def test_exercise_6_says_what_dropconnect_does(shift, said):
    def numbers(each):
        return {"last_val_acc": 0.5 + shift * (each["noise"] == "DropConnect"), "gap": 0.1 * (each["strength"] == 0)}

    grid = exercise_6.grid(quick=False)
    shared, *sentences = exercise_6.conclude(results_of(exercise_6, numbers, grid))
    assert "share one mask" in shared
    assert len(sentences) == 2 * 2 * 3
    for against_dropout, against_none, dropout in (sentences[:3], sentences[3:6]):
        assert said in against_dropout
        assert said in against_none
        assert "no difference" in dropout
    assert "no difference" in sentences[6]
    assert all("is lower than with neither" in sentence for sentence in sentences[7:9])
    lines = exercise_6.rows(results_of(exercise_6, numbers, grid))
    assert [line.difference for line in lines if line.setting == "DropConnect, p = 0.5 minus dropout"] == [
        pytest.approx(shift, abs=0.01),
        pytest.approx(0, abs=0.01),
    ]


# Exercise 7


def test_exercise_7_chooses_by_validation_alone():
    best = {("dropout", 0.3): 0.9, ("gaussian dropout", 0.5): 0.8, ("alpha dropout", 0.1): 0.7, ("dropout", 0.0): 0.95}

    def numbers(each):
        return {"val_acc": best.get((each["noise"], each["strength"]), 0.5)}

    results = results_of(exercise_7, numbers, exercise_7.grid(quick=False))
    dropout, other = exercise_7.finals(results)
    assert (dropout["noise"], dropout["strength"], dropout["stage"]) == ("dropout", 0.3, "test")
    assert (other["noise"], other["strength"], other["stage"]) == ("gaussian dropout", 0.5, "test")
    assert len({each["strength"] for each in results.grid if each["noise"] == "dropout"}) == 4  # none, and three


@pytest.mark.parametrize(
    ("shift", "said"), [(0.1, "does better"), (-0.1, "does worse"), (0, "so no noise tried here is shown to do better")]
)
def test_exercise_7_says_what_the_test_says(shift, said):
    grid = exercise_7.grid(quick=True)
    first = results_of(exercise_7, lambda each: {"val_acc": 0.5 + 0.1 * (each["noise"] == "input noise")}, grid)
    finals = exercise_7.finals(first)
    tested = results_of(exercise_7, lambda each: {"test_acc": 0.5 + shift * (each["noise"] == "input noise")}, finals)
    results = Results([*grid, *finals], 4, [*first.numbers, *tested.numbers])
    search, test, accuracies = exercise_7.conclude(results)
    assert "dropout, p = 0.3 (best of 1, 0.5000)" in search
    assert "input noise, sigma = 0.2 (best of 3, 0.6000)" in search
    assert said in test
    assert f"{0.5 + shift:.4f} and 0.5000" in accuracies
    assert [line.metric for line in exercise_7.rows(results)][-2:] == ["test accuracy"] * 2


@pytest.mark.parametrize("backend", WITH_GRADIENTS)
def test_exercise_7_tests_networks_of_other_seeds(backend):
    setting = {"backend": backend, "noise": "gaussian dropout", "strength": 0.3, **SMALL}
    kind = noisy_model(backend, "gaussian dropout", 0.3)
    own = {**SMALL, "backend": backend, "data": held_out("digits"), "model": kind}
    assert exercise_7.run(1, **setting, stage="search") == {"val_acc": fitted(1, **own).history[-1]["val_acc"]}
    expected = fitted(1001, **own).evaluate(data=load("digits"))["val_acc"]
    assert exercise_7.run(1, **setting, stage="test") == {"test_acc": expected}

"""Estimators for scikit-learn: its own checks, and what they do not look at."""

import copy
import pickle

import numpy as np
import pytest
from estimator_report import SMALL, checked
from scipy.sparse import csr_array
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency

from d2ldrop.estimators import DropoutClassifier, DropoutRegressor

KINDS = [DropoutClassifier, DropoutRegressor]


@pytest.fixture(scope="module")
def iris():
    """Return the iris, scaled, with names for labels."""
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), np.array(["setosa", "versicolor", "virginica"])[y]


def made(kind=DropoutClassifier, **options):
    """Return an estimator that is soon trained, with a seed."""
    return kind(**{**SMALL, "random_state": 0, **options})


BACKEND_MATTERS = {"check_estimators_pickle", "check_fit2d_1sample", "check_methods_subset_invariance"}
"""The checks to which more than shared code matters; in JAX, which compiles at each fit, all take over a minute."""


@pytest.mark.only_numpy
@pytest.mark.only_torch
@pytest.mark.only_jax
@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learns_own_checks_pass(d2l, kind):
    """`estimator_report.py` runs all of them in every backend."""
    slow = () if d2l.name == "numpy" else ("check_class_weight_classifiers",)  # 2,000 epochs
    results = checked(kind, d2l.name, only=BACKEND_MATTERS if d2l.name == "jax" else (), leave_out=slow)
    assert len(results) >= (4 if d2l.name == "jax" else 50)
    assert [result for result in results if result.status in ("failed", "passed unexpectedly")] == []


def test_classifiers_have_labels_probabilities_and_copies_in_every_backend(d2l, iris, capfd):
    X, y = iris
    model = made(backend=d2l.name).fit(X, y)
    assert list(model.classes_) == ["setosa", "versicolor", "virginica"]
    assert model.score(X, y) > 0.9
    probabilities = model.predict_proba(X)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(X))
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(copy.deepcopy(model).predict_proba(X), probabilities)
    copied = pickle.loads(pickle.dumps(model))
    for each in (model, copied):
        each.partial_fit(X, y)  # also what optimisers keep is copied, and the generator of the seeds
        assert each.n_iter_ == SMALL["max_iter"] + 1
    np.testing.assert_array_equal(copied.predict_proba(X), model.predict_proba(X))
    assert np.abs(model.predict_proba(X) - probabilities).max() > 1e-4
    assert capfd.readouterr() == ("", "")


def test_regressors_learn_several_targets_in_every_backend(d2l):
    X = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    model = made(DropoutRegressor, backend=d2l.name, max_iter=60).fit(X, np.abs(X[:, :2]))
    assert model.predict(X).shape == (200, 2)
    assert model.score(X, np.abs(X[:, :2])) > 0.7


def test_the_same_random_state_gives_the_same(iris):
    X, y = iris
    first, again, other = (made(random_state=seed).fit(X, y).predict_proba(X) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    generator = np.random.RandomState(3)
    np.testing.assert_array_equal(made(random_state=generator).fit(X, y).predict_proba(X), first)
    assert np.abs(made(random_state=generator).fit(X, y).predict_proba(X) - first).max() > 1e-3  # it went on


def test_a_seed_leaves_numpys_global_generator_as_it_is(iris):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is what this is about
    made(max_iter=1, early_stopping=True).fit(*iris)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_pipelines_searches_and_cross_validation():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600]
    pipeline = make_pipeline(MinMaxScaler(), made(hidden_layer_sizes=(32, 32), max_iter=10))
    search = GridSearchCV(pipeline, {"dropoutclassifier__dropout": [0.0, 0.99]}, cv=2, n_jobs=2).fit(X, y)
    assert search.best_params_ == {"dropoutclassifier__dropout": 0.0}
    assert search.score(X, y) > 0.9
    assert cross_val_score(search.best_estimator_, X, y, cv=3).mean() > 0.75


def test_class_weights_change_how_often_a_rare_class_is_predicted():
    rng = np.random.default_rng(0)
    y = np.repeat(["common", "rare"], [180, 20])
    X = rng.standard_normal((200, 2)) + (y == "rare")[:, np.newaxis]
    plain, balanced, by_hand, reverse = (
        (made(class_weight=weights).fit(X, y).predict(X) == "rare").mean()
        for weights in (None, "balanced", {"common": 200 / 360, "rare": 5}, {"rare": 0.01})
    )
    assert balanced == by_hand > plain + 0.1
    assert reverse == 0


def test_partial_fit_goes_on(iris):
    X, y = iris
    model = made()
    for k in range(8):
        model.partial_fit(X, y, classes=["setosa", "versicolor", "virginica"] if k == 0 else None)
    assert model.n_iter_ == 8
    assert [row["epoch"] for row in model.history_] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert model.loss_curve_[-1] < 0.6 * model.loss_curve_[0]
    forgetful = copy.deepcopy(model)
    forgetful._memory = None
    assert np.abs(forgetful.partial_fit(X, y).predict_proba(X) - model.partial_fit(X, y).predict_proba(X)).max() > 1e-3
    assert made().partial_fit(X[:60], y[:60], ["setosa", "versicolor", "virginica"]).predict_proba(X).shape == (150, 3)


def test_partial_fit_refuses_what_does_not_continue(iris):
    X, y = iris
    with pytest.raises(ValueError, match="Expected classes, all labels"):
        made().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"Expected y to hold labels among .* Received: 'virginica'"):
        made().partial_fit(X, y, classes=["setosa", "versicolor"])
    with pytest.raises(ValueError, match="balanced"):
        made(class_weight="balanced").partial_fit(X, y, classes=np.unique(y))
    model = made().partial_fit(X, y, classes=np.unique(y))
    with pytest.raises(ValueError, match="Expected classes to be those of the first call"):
        model.partial_fit(X, y, classes=["a", "b"])
    model = made(DropoutRegressor).partial_fit(X, X[:, 0])
    with pytest.raises(ValueError, match="as at first"):
        model.partial_fit(X, X[:, :2])


def test_early_stopping_ends_and_sets_aside_part_of_each_class(iris):
    X, y = iris
    model = made(early_stopping=True, n_iter_no_change=3, tol=0.01, max_iter=200, validation_fraction=0.2).fit(X, y)
    assert model.n_iter_ < 200
    assert len(model.loss_curve_) == len(model.history_) == model.n_iter_
    assert {"val_loss", "val_acc"} < {*model.history_[0]}
    assert min(row["val_loss"] for row in model.history_[-3:]) > min(row["val_loss"] for row in model.history_) - 0.01
    assert "val_loss" not in made().fit(X, y).history_[0]


def test_integers_are_numbers_not_pixels(iris):
    X, y = (10 * iris[0]).astype(int), iris[1]
    expected = made().fit(X.astype(np.float64), y).predict_proba(X)
    np.testing.assert_array_equal(made().fit(X, y).predict_proba(X), expected)
    bits = (X > 0).astype(np.uint8)
    expected = made().fit(bits.astype(np.float64), y).predict_proba(bits)
    np.testing.assert_array_equal(made().fit(bits, y).predict_proba(bits), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_learned_from_is_refused(iris, kind):
    X, y = iris[0], iris[0][:, 0] if kind is DropoutRegressor else iris[1]
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        made(kind).fit(csr_array(X), y)
    for large in (1e300, np.inf, np.nan):
        with pytest.raises(ValueError, match="Input X contains"):
            made(kind).fit(np.where(np.eye(150, 4), large, X), y)
    if kind is DropoutRegressor:
        with pytest.raises(ValueError, match="Input y contains infinity or a value too large"):
            made(kind).fit(X, 1e300 * y)
    model = made(kind, max_iter=1).fit(X, y)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        model.predict(csr_array(X))
    with pytest.raises(NotFittedError):
        made(kind).predict(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layer_sizes": (16, 0)}, "Expected hidden_layer_sizes to be a positive integer. Received: 0"),
        ({"dropout": 1.5}, r"Expected dropout to be a number in \[0, 1\]. Received: 1.5"),
        ({"dropout": (0.1, 0.2, 0.3)}, "Expected dropout to be a number, or one for each of 2 layers"),
        ({"learning_rate_init": -1}, "Expected learning_rate_init to be a number of at least 0"),
        ({"max_iter": 0}, "Expected max_iter to be a positive integer"),
        ({"batch_size": "all"}, "Expected batch_size to be a positive integer"),
        ({"device": "tpu"}, 'Expected device to be "auto", "cpu" or "gpu"'),
        ({"backend": "theano"}, "Expected a backend among"),
        ({"early_stopping": True, "n_iter_no_change": 0}, "Expected n_iter_no_change to be a positive integer"),
    ],
)
def test_wrong_hyperparameters_are_refused_by_fit(iris, options, message):
    with pytest.raises((ValueError, ImportError), match=message):
        made(**options).fit(*iris)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_features_are_kept_and_checked(kind):
    pytest.importorskip("pandas")
    check_dataframe_column_names_consistency(kind.__name__, made(kind))


def test_one_hidden_layer_may_be_a_number(iris):
    model = made(hidden_layer_sizes=16, dropout=[0.2], max_iter=40).fit(*iris)
    assert model.score(*iris) > 0.9


def test_targets_are_scaled_as_in_scikit_learn(iris):
    X, y = iris[0][:, :3], 1e4 * (3 + iris[0][:, 3])
    model = TransformedTargetRegressor(made(DropoutRegressor), transformer=StandardScaler()).fit(X, y)
    assert model.score(X, y) > 0.8

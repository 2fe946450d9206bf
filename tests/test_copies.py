"""Copies and pickles of models and trainers, which go to other processes."""

import copy
import multiprocessing
import pickle

import joblib
import numpy as np
import pytest
from helpers import fitted

from d2ldrop import Trainer

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_copies_predict_and_train_like_the_original(d2l, small, kind, way):
    data = d2l.Digits()
    trainer, model = fitted(d2l, small, kind=kind, data=data)
    X = data.split(False, d2l.channels_last).X[:20]
    expected = trainer.predict(X)
    model_copy, trainer_copy = COPIES[way](model), COPIES[way](trainer)
    np.testing.assert_array_equal(trainer.predict(X, model_copy), expected)
    np.testing.assert_array_equal(trainer_copy.predict(X), expected)
    assert trainer_copy.history == trainer.history
    assert trainer_copy.evaluate(data=data) == trainer.evaluate(data=data)
    again, other = (Trainer(1, seed=4, progress=False) for _ in range(2))
    again.fit(model_copy, data)
    np.testing.assert_array_equal(trainer.predict(X), expected)  # the original stays as it is
    other.fit(model, data)
    np.testing.assert_array_equal(again.predict(X), other.predict(X))


def test_copies_have_attributes_that_are_no_hyperparameters(d2l, small):
    if d2l.name == "jax":
        pytest.skip("a module of Flax has fields alone")
    model = d2l.DropoutMLP(**small)
    model.note = "mine"
    model.lr = 0.7
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (copied.note, copied.lr) == ("mine", 0.7)


def test_pickles_hold_no_data(d2l, small):
    trainer, model = fitted(d2l, small)
    for thing in (trainer, model):
        assert len(pickle.dumps(thing)) < 60_000  # the data set alone takes 460,000 bytes


def test_a_model_that_was_never_called_can_be_copied(d2l, small):
    for copied in (way(d2l.DropoutMLP(**small)) for way in COPIES.values()):
        trainer = Trainer(1, seed=0, progress=False)
        trainer.fit(copied, d2l.Digits())
        expected, _ = fitted(d2l, small, kind="DropoutMLP")
        assert trainer.history[0]["val_loss"] == expected.history[0]["val_loss"]


def predictions(trainer, X):
    return trainer.predict(X)


def test_a_trainer_goes_to_another_process(d2l, small, tmp_path):
    data = d2l.Digits()
    trainer, _ = fitted(d2l, small, data=data)
    X = data.split(False, d2l.channels_last).X[:5]
    joblib.dump(trainer, tmp_path / "trainer.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "trainer.joblib").predict(X), trainer.predict(X))
    if d2l.name != "toy":  # which is not registered there
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            np.testing.assert_allclose(pool.apply(predictions, (trainer, X)), trainer.predict(X), rtol=1e-5)

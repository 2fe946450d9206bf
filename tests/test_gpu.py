"""On a GPU all comes out as on the CPU: training with each option, uncertainty, checkpoints, copies, layers."""

import copy
import pickle

import numpy as np
import pytest
from helpers import QUICK, fitted, run_cli
from test_checkpoints import interrupted
from test_optimizers import SETTINGS

import d2ldrop
from d2ldrop import ActivationStats, Callback, Checkpoint, LRSchedule, Trainer
from d2ldrop.estimators import DropoutClassifier

pytestmark = [pytest.mark.gpu, pytest.mark.skip_numpy]
KINDS = ["DropoutMLPScratch", "DropoutMLP"]


@pytest.fixture(autouse=True)
def _exact_products(d2l):
    """Let JAX multiply as exactly as the CPU does; TensorFloat-32, its default on a GPU, keeps 10 bits."""
    if d2l.name == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        yield


def losses(d2l, model, devices, **options):
    trainer = Trainer(3, devices, seed=0, progress=False, **options)
    trainer.fit(model, d2l.Digits(batch_size=100))
    return [[row["train_loss"], row["val_loss"]] for row in trainer.history]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("DropoutMLPScratch", {}),  # with shared masks; PyTorch records no step then
        ("DropoutMLPScratch", {"dropout_1": 0, "dropout_2": 0}),
        ("DropoutMLP", {"dropout_1": 0, "dropout_2": 0}),
    ],
)
def test_optimizers_take_the_same_steps(d2l, small, kind, rates, name):
    received, expected = (
        losses(
            d2l,
            getattr(d2l, kind)(**{**small, **rates, **SETTINGS[name]}),
            devices,
            shared_masks=not rates,
            callbacks=[LRSchedule(lambda epoch: SETTINGS[name]["lr"] / (1 + epoch))],
            gradient_clip_val=1.0,
        )
        for devices in (1, 0)
    )
    np.testing.assert_allclose(received, expected, rtol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_depth_and_class_weights(d2l, kind):
    options = {"num_hiddens": [32, 16, 16], "dropouts": [0, 0, 0], "class_weights": [1.0] * 9 + [3.0], "lr": 0.1}
    received, expected = (losses(d2l, getattr(d2l, kind)(num_outputs=10, **options), devices) for devices in (1, 0))
    np.testing.assert_allclose(received, expected, rtol=5e-3)


def test_regression(d2l):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 5)).astype(np.float32)
    y = (X @ rng.standard_normal((5, 1)) + 2).astype(np.float32)
    results = []
    for devices in (1, 0):
        model = d2l.DropoutMLPRegressor(num_outputs=1, num_hiddens=[16], dropouts=[0], lr=0.01)
        trainer = Trainer(3, devices, seed=0, progress=False)
        trainer.fit(model, d2l.ArrayData(X, y, batch_size=50))
        results.append([[row["train_loss"], row["val_loss"]] for row in trainer.history])
    np.testing.assert_allclose(*results, rtol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_in_training_is_repeatable_and_learns(d2l, small, kind):
    (first, model), (second, again) = (
        fitted(d2l, {**small, "lr": 0.5}, epochs=10, kind=kind, num_gpus=1) for _ in range(2)
    )
    assert first.history[-1]["val_acc"] > 0.7
    assert first.history[-1]["train_loss"] == pytest.approx(second.history[-1]["train_loss"], rel=1e-3)
    for name, value in d2l.get_weights(model).items():
        np.testing.assert_allclose(d2l.get_weights(again)[name], value, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_uncertainty(d2l, small, kind, tmp_path):
    trainer, model = fitted(d2l, {**small, "lr": 0.5}, epochs=3, kind=kind, num_gpus=1)
    X = d2l.Digits().split(False, d2l.channels_last).X[:200]
    assert len(trainer.predict(X)) == 200
    d2ldrop.save_weights(model, tmp_path / "w.safetensors")
    on_cpu = d2ldrop.load_model(tmp_path / "w.safetensors", backend=d2l.name)
    moved = Trainer(1, 1, progress=False).predict(X, on_cpu)
    np.testing.assert_allclose(trainer.predict(X), moved, atol=1e-4)
    first, same = (d2l.mc_predict(model, X, samples=50, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities, same.probabilities)
    expected = d2l.mc_predict(on_cpu, X, samples=50, seed=4)
    assert np.abs(first.probabilities - expected.probabilities).mean() < 0.03
    np.testing.assert_allclose(d2l.predict_proba(model, X), d2l.predict_proba(on_cpu, X), atol=1e-4)


def test_activations(d2l, small):
    rows = []
    for devices in (1, 0):
        stats = ActivationStats(samples=500)
        fitted(d2l, small, kind="DropoutMLPScratch", num_gpus=devices, shared_masks=True, callbacks=[stats])
        rows.append([[row["mean"], row["variance"]] for row in stats.rows if row["when"] == "before"])
    np.testing.assert_allclose(*rows, rtol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_training_goes_on(d2l, small, kind, tmp_path):
    model = getattr(d2l, kind)
    whole = Trainer(4, 1, seed=7, progress=False)
    whole.fit(model(**small), d2l.Digits(batch_size=100))
    interrupted(d2l, model(**small), tmp_path, seed=7, num_gpus=1)
    resumed = Trainer(4, 1, seed=7, progress=False, callbacks=[Checkpoint(tmp_path)])
    resumed.fit(model(**small), d2l.Digits(batch_size=100), resume=tmp_path)
    for key in ("train_loss", "val_loss"):
        received, expected = ([row[key] for row in trainer.history] for trainer in (resumed, whole))
        np.testing.assert_allclose(received, expected, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_copies(d2l, small, kind):
    trainer, model = fitted(d2l, small, kind=kind, num_gpus=1)
    X = d2l.Digits().split(False, d2l.channels_last).X[:20]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_allclose(d2l.predict_proba(twin, X), d2l.predict_proba(model, X), rtol=1e-6)
    twin = copy.deepcopy(trainer)
    np.testing.assert_allclose(twin.predict(X), trainer.predict(X), rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["dropout_layer", "gaussian_dropout_layer", "alpha_dropout_layer", "channel_dropout_layer", "input_noise"]
)
def test_layers_draw_there(d2l, name):
    X = d2l.to(d2l.ones((64, 32, 8)), d2l.gpu())
    first, second = (getattr(d2ldrop, name)(X, 0.3) for _ in range(2))
    assert str(first.device) == str(X.device)
    assert (d2l.numpy(first) != d2l.numpy(second)).any()
    axes = d2ldrop.dropout_layer(X, 0.5, axes=(2,))
    assert (d2l.numpy(axes) == d2l.numpy(axes)[:, :, :1]).all()


def test_an_estimator_trains_there(d2l):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4)).astype(np.float32)
    y = np.where(X[:, 0] > 0, "right", "left")
    model = DropoutClassifier(
        (32,), dropout=0.1, device="gpu", backend=d2l.name, learning_rate_init=0.01, random_state=0
    ).fit(X, y)
    assert model.score(X, y) > 0.9


def test_the_commands(d2l, capsys, tmp_path):
    options = ["--backend", d2l.name, *QUICK, "--device", "gpu", "--checkpoint", tmp_path / "ck"]
    assert run_cli("train", *options, "--save", tmp_path / "w.safetensors") == 0
    assert run_cli("train", *options, "--resume") == 0
    assert run_cli("predict", "--backend", "numpy", "--weights", tmp_path / "w.safetensors") == 0
    assert capsys.readouterr().out


def test_a_callback_that_draws_masks_changes_nothing(d2l, small):
    class Draws(Callback):
        def on_epoch_end(self, trainer):
            d2ldrop.dropout_layer(d2l.to(d2l.ones((7, 7)), d2l.gpu()), 0.5)

    (plain, _), (watched, _) = (fitted(d2l, small, 3, num_gpus=1, callbacks=calls) for calls in ([], [Draws()]))
    received, expected = ([row["train_loss"] for row in trainer.history] for trainer in (watched, plain))
    np.testing.assert_allclose(received, expected, rtol=1e-3)

"""The one Trainer: its metrics, its random streams, its hooks, and what readers override."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import fitted

import d2ldrop
from d2ldrop import Callback, Trainer
from d2ldrop.registry import backend_of


def test_history_has_a_row_per_epoch(d2l, small):
    trainer, _ = fitted(d2l, small, epochs=10)
    assert [row["epoch"] for row in trainer.history] == list(range(1, 11))
    for row in trainer.history:
        assert set(row) == {
            "epoch", "train_loss", "train_acc", "val_loss", "val_acc", "seconds", "samples_per_second",
        }  # fmt: skip
        assert all(isinstance(value, (int, float)) for value in row.values())
    assert trainer.history[-1]["val_acc"] > 0.8
    assert trainer.history[-1]["train_loss"] < trainer.history[0]["train_loss"]
    assert trainer.train_batch_idx == 10 * trainer.num_train_batches == 10 * 23
    assert trainer.epoch == 9


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_seed_makes_training_bit_identical(d2l, small, kind):
    runs = [fitted(d2l, small, epochs=2, kind=kind, seed=seed) for seed in (5, 5, 6)]
    first, again, other = (d2l.get_weights(model) for _, model in runs)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert (first[name] != other[name]).any()
    losses = [[row["train_loss"] for row in trainer.history] for trainer, _ in runs]
    assert losses[0] == losses[1] != losses[2]


def test_the_streams_are_independent(d2l, small):
    """More dropout must change neither the initial weights nor the order of the samples."""
    orders, weights = [], []

    class Look(Callback):
        def on_fit_start(self, trainer):
            weights.append(d2l.get_weights(trainer.model))

    for dropout in (0.1, 0.5):
        trainer, _ = fitted(d2l, {**small, "dropout_1": dropout}, callbacks=[Look()])
        orders.append(trainer._order().permutation(10).tolist())
    assert orders[0] == orders[1]
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


def test_without_a_seed_runs_differ(d2l, small):
    losses = {fitted(d2l, small, seed=None)[0].history[0]["train_loss"] for _ in range(2)}
    assert len(losses) == 2


def test_samples_are_shuffled_not_batches(d2l):
    """Each sample is its own label: which ones meet in a batch must change from epoch to epoch."""
    X = np.arange(64, dtype=np.float32).reshape(64, 1)
    data = d2l.ArrayData(X, np.arange(64), X, np.arange(64), batch_size=8)
    passes = [[frozenset(d2l.numpy(y).tolist()) for _, y in data.train_dataloader()] for _ in range(3)]
    for batches in passes:
        assert sorted(label for batch in batches for label in batch) == list(range(64))
    assert len(set(passes[0]) | set(passes[1]) | set(passes[2])) == 24


def test_gradients_are_clipped_to_a_common_norm(d2l, small):
    """With lr 1 and one step, the change of all weights of all layers together is the clipped gradient."""
    X = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32) * 100
    data = d2l.ArrayData(X, np.arange(8) % 3, X, np.arange(8) % 3, batch_size=8)
    norms = {}
    for clip in (0, 0.25, 1e9):
        model = d2l.DropoutMLP(**{**small, "num_outputs": 3, "dropout_1": 0, "dropout_2": 0, "lr": 1.0})
        trainer = Trainer(1, gradient_clip_val=clip, seed=0, progress=False)
        trainer.prepare_data(data)
        trainer.prepare_model(model)
        before = d2l.get_weights(model)
        trainer.fit(model, data)
        after = d2l.get_weights(model)
        norms[clip] = np.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in before))
    assert norms[0] > 10
    assert norms[0.25] == pytest.approx(0.25, rel=1e-3)
    assert norms[1e9] == pytest.approx(norms[0], rel=1e-5)


def test_fit_uses_a_custom_loader(d2l, small):
    served = []

    class Own(d2l.DataModule):
        def get_dataloader(self, train):
            X, y = d2l.Digits().split(train, d2l.channels_last)
            served.append(train)
            return self.get_tensorloader((d2l.array(X), d2l.array(y)), train, slice(0, 300))

    trainer, _ = fitted(d2l, small, epochs=4, data=Own())
    assert served == [True, False]
    assert trainer.num_train_batches == 5
    assert trainer.history[-1]["train_loss"] < trainer.history[0]["train_loss"]
    assert trainer.train_batch_idx == 20


def test_loaders_yield_arrays_of_the_framework(d2l):
    data = d2l.Digits(batch_size=100)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batches = list(loader)
        assert len(batches) == len(loader)
        X, y = batches[0]
        assert backend_of(X) is d2l.backend
        assert tuple(X.shape) == ((100, 8, 8, 1) if d2l.channels_last else (100, 1, 8, 8))
        assert "float32" in str(X.dtype)
        assert "int" in str(y.dtype)


def test_second_fit_resets_history_and_continues_an_old_model(d2l, small):
    trainer, model = fitted(d2l, small, epochs=2)
    first = trainer.history
    trainer.fit(type(model)(**small), d2l.Digits())
    assert [row["train_loss"] for row in trainer.history] == [row["train_loss"] for row in first]
    trainer.fit(model, d2l.Digits())
    assert trainer.history[0]["train_loss"] < first[1]["train_loss"]
    assert len(model.board.curves["val_acc"][0]) == 2


def test_board_gets_two_training_points_per_epoch(d2l, small):
    trainer, model = fitted(d2l, small, epochs=3)
    assert model.board.curves["train_loss"][0] == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3], abs=0.05)
    assert model.board.curves["val_acc"][0] == [1, 2, 3]
    assert model.board.curves["val_acc"][1] == [row["val_acc"] for row in trainer.history]


def test_an_epoch_of_one_batch(d2l, small):
    data = d2l.Digits(batch_size=2000)
    trainer, model = fitted(d2l, small, epochs=2, data=data)
    assert trainer.num_train_batches == 1
    assert model.board.curves["train_loss"][0] == [1, 2]


def test_board_with_as_many_points_as_batches(d2l, small):
    """One whole batch and a shorter one make two parts, and neither is empty."""
    X, y = d2l.Digits().split(train=True, channels_last=d2l.channels_last)
    data = d2l.ArrayData(X[:80], y[:80], X[80:100], y[80:100], batch_size=64)
    trainer, model = fitted(d2l, small, epochs=2, data=data)
    assert trainer.epoch_log["train_loss"][1] == [64, 16]
    assert model.board.curves["train_loss"][0] == [0.5, 1, 1.5, 2]


def test_fit_scales_pixels(d2l, small):
    X = np.random.default_rng(0).integers(0, 256, (50, 1, 6, 6), dtype=np.uint8)
    y = np.arange(50) % 10
    stored = d2l.ArrayData(X, y, X, y, batch_size=16)
    scaled = d2l.ArrayData((X / 255).astype(np.float32), y, (X / 255).astype(np.float32), y, batch_size=16)
    trainers = [fitted(d2l, small, data=data)[0] for data in (stored, scaled)]
    assert (d2l.numpy(trainers[0]._train_data[0]).dtype == np.uint8) == d2l.backend.stores_bytes
    losses = [trainer.history[0] for trainer in trainers]
    assert losses[0]["train_loss"] == pytest.approx(losses[1]["train_loss"], rel=1e-5)
    assert losses[0]["val_loss"] == pytest.approx(losses[1]["val_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs"),
        ({"max_epochs": 1.5}, "max_epochs"),
        ({"max_epochs": 1, "num_gpus": -1}, "num_gpus"),
        ({"max_epochs": 1, "gradient_clip_val": -1}, "gradient_clip_val"),
        ({"max_epochs": 1, "gradient_clip_val": float("nan")}, "gradient_clip_val"),
        ({"max_epochs": 1, "seed": "7"}, "seed"),
    ],
)
def test_trainer_rejects_invalid_options(options, message):
    with pytest.raises(d2ldrop.D2LDropError, match=f"Expected {message}.* Received: "):
        Trainer(**options)


def test_fit_rejects_non_module(d2l):
    with pytest.raises(ValueError, match="Expected model to be a Module"):
        Trainer(1).fit(object(), d2l.Digits())


def test_fit_warns_without_a_gpu(d2l, small):
    if d2l.num_gpus():
        pytest.skip("there is a GPU")
    with pytest.warns(UserWarning, match="sees no GPU"):
        trainer, _ = fitted(d2l, small, num_gpus=1)
    assert trainer.device == d2l.cpu()


@pytest.mark.gpu
@pytest.mark.skip_numpy
def test_training_on_a_gpu_agrees_with_the_cpu(d2l, small):
    histories = [fitted(d2l, small, num_gpus=n, shared_masks=True)[0].history[-1] for n in (0, 1)]
    assert histories[0]["train_loss"] == pytest.approx(histories[1]["train_loss"], rel=1e-3)


def test_fit_is_silent_without_a_terminal(d2l):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {d2l.__name__} as d2l\n"
        "d2l.Trainer(2, seed=0).fit(d2l.SoftmaxRegression(num_outputs=10, lr=0.5), d2l.Digits())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_fit_shows_a_progress_bar_on_request(d2l, small, capsys):
    fitted(d2l, small, epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "val_acc 0." in shown


@pytest.mark.only_torch
def test_custom_fit_epoch(d2l, small):
    class Own(Trainer):
        def fit_epoch(self):
            self.model.train()
            for batch in self.train_dataloader:
                loss = self.model.training_step(self.prepare_batch(batch))
                self.optim.zero_grad()
                loss.backward()
                self.clip_gradients(1.0, self.model)
                self.optim.step()
                self.train_batch_idx += 1
            self.model.eval()
            for batch in self.val_dataloader:
                self.model.validation_step(self.prepare_batch(batch))
                self.val_batch_idx += 1

    def fit():
        model, trainer = d2l.DropoutMLP(**small), Own(8, seed=0, progress=False)
        trainer.fit(model, d2l.Digits())
        return model, trainer

    model, trainer = fit()
    again, _ = fit()
    for name, value in d2l.get_weights(model).items():
        np.testing.assert_array_equal(value, d2l.get_weights(again)[name])
    assert set(trainer.history[-1]) >= {"train_loss", "train_acc", "val_loss", "val_acc"}
    assert trainer.history[-1]["val_acc"] > 0.75
    assert len(model.board.curves["train_loss"][0]) == 16
    assert trainer.evaluate()["val_acc"] == pytest.approx(trainer.history[-1]["val_acc"], abs=1e-6)


@pytest.mark.parametrize("resident", [True, False], ids=["on the device", "from a loader"])
def test_fit_shuffles_samples_anew_in_each_epoch(d2l, resident):
    """Where nothing is learnt, the loss of a batch depends only on the samples in it."""

    class Data(d2l.Digits):
        if not resident:

            def get_dataloader(self, train):
                return super().get_dataloader(train)

    epochs = []

    class Look(Callback):
        def on_epoch_end(self, trainer):
            epochs.append(trainer.epoch_log["train_loss"][0])

    trainer = Trainer(3, seed=0, callbacks=[Look()], progress=False)
    trainer.fit(d2l.SoftmaxRegression(num_outputs=10, lr=1e-12), Data(batch_size=100))
    assert trainer._resident is resident
    losses = [loss for epoch in epochs for loss in epoch]
    assert len(losses) == len(set(losses)) == 3 * 15
    means = [row["train_loss"] for row in trainer.history]  # each sample is there once
    assert means == pytest.approx([means[0]] * 3, rel=1e-5)


def test_points_of_the_board_weigh_samples(d2l, small):
    """A last batch of one sample must not weigh as much as a whole one."""
    X = np.random.default_rng(0).standard_normal((65, 5)).astype(np.float32) * 100
    data = d2l.ArrayData(X, np.arange(65) % 10, X, np.arange(65) % 10, batch_size=64)
    model = d2l.DropoutMLPScratch(**small)
    model.plot_train_per_epoch = 1
    trainer = Trainer(1, seed=0, progress=False)
    trainer.fit(model, data)
    (first, last), sizes = trainer.epoch_log["train_loss"]
    assert sizes == [64, 1]
    expected = (64 * first + last) / 65
    assert abs(first - last) > 0.1
    assert model.board.curves["train_loss"][1] == [pytest.approx(expected)]
    assert trainer.history[0]["train_loss"] == pytest.approx(expected)


def test_throughput_counts_samples_per_second_of_training(small, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("d2ldrop.training.trainer.time.perf_counter", lambda: next(clock))
    trainer, _ = fitted(d2ldrop.backend("numpy"), small)
    assert trainer.history[0]["seconds"] == 2  # one tick of training, one of validation
    assert trainer.history[0]["samples_per_second"] == 1437


def built_before(d2l, kind, hparams, X, weights=None):
    """Return a model whose parameters were created before training; without weights, always the same ones."""
    model, rng = getattr(d2l, kind)(**hparams), np.random.default_rng(0)
    d2l.backend.build(model, (X[:2],), d2l.cpu())
    fixed = {name: rng.normal(0, 0.1, value.shape).astype(np.float32) for name, value in d2l.get_weights(model).items()}
    d2l.set_weights(model, weights or fixed)
    return model


def losses_of_steps(model, data, seed):
    """Return the losses of the steps of an epoch, where nothing is learnt."""
    trainer = Trainer(1, seed=seed, progress=False)
    trainer.fit(model, data)
    return trainer.epoch_log["train_loss"][0]


@pytest.mark.parametrize("resident", [True, False], ids=["on the device", "from a loader"])
def test_the_seed_decides_on_the_order_of_samples(d2l, resident):
    """The weights are always the same, and there is no dropout."""

    class Data(d2l.Digits):
        if not resident:

            def get_dataloader(self, train):
                return super().get_dataloader(train)

    losses, data = [], Data(batch_size=100)
    for seed in (1, 1, 2):
        X = data.split(True, d2l.channels_last).X
        model = built_before(d2l, "SoftmaxRegression", {"num_outputs": 10, "lr": 1e-12}, X)
        losses.append(losses_of_steps(model, data, seed))
    assert losses[0] == losses[1]
    assert not {*losses[0]} & {*losses[2]}


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_the_seed_decides_on_the_masks(d2l, small, kind):
    """The weights are always the same, and so are all samples."""
    X, y, losses = np.ones((64, 16), np.float32), np.zeros(64, np.int64), []
    for seed in (1, 1, 2):
        model = built_before(d2l, kind, {**small, "lr": 1e-12}, X)
        losses.append(losses_of_steps(model, d2l.ArrayData(X, y, X, y, batch_size=8), seed))
    assert losses[0] == losses[1]
    assert len({*losses[0], *losses[2]}) >= 15  # two masks may by chance give the same sum, in float32


@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_the_seed_decides_on_the_initial_weights(d2l, small, kind):
    drawn = []
    for seed in (1, 1, 2):
        model, trainer = getattr(d2l, kind)(**small), Trainer(1, seed=seed, progress=False)
        trainer.prepare_data(d2l.Digits())
        trainer.prepare_model(model)
        drawn.append({name: value for name, value in d2l.get_weights(model).items() if name.endswith("weight")})
    for first, again, other in zip(*(weights.values() for weights in drawn), strict=True):
        np.testing.assert_array_equal(first, again)
        assert np.mean(first == other) < 0.01


def test_dropout_has_a_stream_of_its_own(d2l, small):
    """How much was drawn for initial weights must not change the masks."""
    weights = {}

    class Look(Callback):
        def on_fit_start(self, trainer):
            weights.update(d2l.get_weights(trainer.model))

    trainer, _ = fitted(d2l, small, callbacks=[Look()])
    again = Trainer(1, seed=0, progress=False)
    X = d2l.Digits().split(True, d2l.channels_last).X
    again.fit(built_before(d2l, "DropoutMLPScratch", small, X, weights), d2l.Digits())
    assert again.history[0]["train_loss"] == trainer.history[0]["train_loss"]


def test_the_seed_of_a_state_decides_on_its_masks(d2l, small):
    X, y = d2l.Digits().split(True, d2l.channels_last)
    model = d2l.DropoutMLPScratch(**{**small, "lr": 1e-12})
    d2l.backend.build(model, (X[:2],), d2l.cpu())
    batch, losses = d2l.backend.place((X[:64], y[:64].astype(d2l.backend.label_dtype)), d2l.cpu()), []
    for seed in (1, 1, 2):
        _, metrics = d2l.backend.train_step(d2l.backend.init_state(model, seed), batch, 0)
        losses.append(float(d2l.numpy(metrics["loss"])))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.only_jax
def test_custom_fit_epoch_in_jax(d2l, small):
    class Own(Trainer):
        def fit_epoch(self):
            for batch in self.train_dataloader:
                batch = self.prepare_batch(batch)
                _, grads = self.model.training_step(self.state.params, batch, self.state)
                self.state = self.state.apply_gradients(grads=grads)
                self.train_batch_idx += 1
            for batch in self.val_dataloader:
                self.model.validation_step(self.state.params, self.prepare_batch(batch), self.state)
                self.val_batch_idx += 1

    model, trainer = d2l.SoftmaxRegression(num_outputs=10, lr=0.5), Own(4, seed=0, progress=False)
    trainer.fit(model, d2l.Digits())
    assert trainer.history[-1]["val_acc"] > 0.8
    assert trainer.evaluate()["val_acc"] == pytest.approx(trainer.history[-1]["val_acc"], abs=1e-6)
    X, y = d2l.Digits().split(False, channels_last=True)
    assert (trainer.predict(X).argmax(axis=1) == y).mean() == pytest.approx(trainer.history[-1]["val_acc"], abs=1e-6)


def test_a_trainer_says_what_it_is_and_how_far_it_came(d2l, small):
    trainer = d2l.Trainer(max_epochs=2, seed=3, progress=False)
    assert repr(trainer) == "<Trainer(max_epochs=2, seed=3, progress=False): 0 epochs trained>"
    trainer.fit(d2l.DropoutMLP(**small), d2l.Digits())
    numbers = ", ".join(f"{key} {trainer.history[-1][key]:.4f}" for key in ("train_loss", "train_acc"))
    assert repr(trainer).startswith(
        f"<Trainer(max_epochs=2, seed=3, progress=False): 2 epochs trained, {numbers}, val_"
    )

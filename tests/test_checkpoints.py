"""Checkpoints: a training that was interrupted, at any moment, goes on as if it had not been."""

import numpy as np
import pytest
from helpers import fitted
from kills import differences

import d2ldrop
from d2ldrop import Callback, Checkpoint, EarlyStopping, Trainer

TIMES = ("seconds", "samples_per_second")


def results(trainer):
    """Return the history without times."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in trainer.history]


class Crash(Callback):
    """Ends training in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_refresh(self, trainer):
        if trainer.epoch == self.epoch and trainer.progressed < self.epoch + 1:
            raise MemoryError


def interrupted(d2l, model, folder, epoch=2, **options):
    trainer = Trainer(4, progress=False, callbacks=[Checkpoint(folder), Crash(epoch)], **options)
    with pytest.raises(MemoryError):
        trainer.fit(model, d2l.Digits(batch_size=100))
    return trainer


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_resumed_training_is_bit_identical(d2l, own, small, kind, optimizer, tmp_path):
    cls = getattr(d2l, kind) if optimizer == "sgd" else own.with_adam(d2l, getattr(d2l, kind))
    whole = Trainer(4, seed=7, progress=False)
    whole.fit(cls(**small), d2l.Digits(batch_size=100))
    interrupted(d2l, cls(**small), tmp_path, seed=7)
    d2l.seed(99)
    resumed = Trainer(4, seed=7, progress=False, callbacks=[Checkpoint(tmp_path)])
    resumed.fit(cls(**small), d2l.Digits(batch_size=100), resume=tmp_path)
    assert results(resumed) == results(whole)
    expected = d2l.get_weights(whole.model)
    for name, value in d2l.get_weights(resumed.model).items():
        np.testing.assert_array_equal(value, expected[name])


def test_resumed_training_without_a_seed_is_bit_identical(d2l, small, tmp_path):
    d2l.seed(5)
    whole = Trainer(4, progress=False)
    whole.fit(d2l.DropoutMLP(**small), d2l.Digits(batch_size=100))
    d2l.seed(5)
    interrupted(d2l, d2l.DropoutMLP(**small), tmp_path)
    d2l.seed(6)
    resumed = Trainer(4, progress=False)
    resumed.fit(d2l.DropoutMLP(**small), d2l.Digits(batch_size=100), resume=tmp_path)
    assert results(resumed) == results(whole)


def test_batches_of_a_loader_and_shared_masks_resume_as_well(d2l, small, tmp_path):
    class Loaded(d2l.Digits):
        def get_dataloader(self, train):
            return super().get_dataloader(train)

    def trainer(*callbacks):
        return Trainer(3, seed=1, shared_masks=True, progress=False, callbacks=callbacks)

    whole, broken, resumed = trainer(), trainer(Checkpoint(tmp_path), Crash(1)), trainer()
    whole.fit(d2l.DropoutMLPScratch(**small), Loaded(batch_size=100))
    with pytest.raises(MemoryError):
        broken.fit(d2l.DropoutMLPScratch(**small), Loaded(batch_size=100))
    resumed.fit(d2l.DropoutMLPScratch(**small), Loaded(batch_size=100), resume=tmp_path)
    assert results(resumed) == results(whole)


@pytest.mark.skip_toy  # it is not registered in another process
def test_a_process_killed_at_random_moments_ends_with_the_same_weights(d2l, tmp_path):
    assert differences(d2l.name, kills=4, folder=tmp_path) == []  # `nox -s kills` takes 100


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty", "header"])
def test_a_damaged_checkpoint_is_named_and_passed_over(small, tmp_path, damage):
    d2l = d2ldrop.backend("numpy")
    whole, _ = fitted(d2l, small, epochs=3, callbacks=[Checkpoint(tmp_path)])
    path = tmp_path / "epoch-00003.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[-100:]
    elif damage == "one bit":
        content[-1000] ^= 1
    elif damage == "header":
        content[: content.find(b"train_loss")] = content[: content.find(b"train_loss")].replace(b"epoch", b"epocH")
    else:
        content.clear()
    path.write_bytes(content)
    resumed = Trainer(3, seed=0, progress=False, callbacks=[Checkpoint(tmp_path)])
    with pytest.warns(UserWarning, match="damaged checkpoint.*epoch-00003"):
        resumed.fit(d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path)
    assert results(resumed) == results(whole)
    for each in tmp_path.glob("epoch-*"):
        each.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(d2ldrop.CheckpointError, match="damaged ones alone"):
        resumed.fit(d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path)


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(d2l, small, tmp_path):
    _, model = fitted(d2l, small, callbacks=[Checkpoint(tmp_path)])
    X, y = d2l.Digits().split(True)

    class Other(d2l.DropoutMLPScratch):
        pass

    attempts = {
        r"num_hiddens_1: 32, and here 33": (d2l.DropoutMLPScratch(**{**small, "num_hiddens_1": 33}), d2l.Digits(), {}),
        r"lr: 0.5, and here 0.1": (d2l.DropoutMLPScratch(**{**small, "lr": 0.1}), d2l.Digits(), {}),
        r"model: 'DropoutMLPScratch', and here 'Other'": (Other(**small), d2l.Digits(), {}),
        r"data: 'Digits', and here 'ArrayData'; validation samples: .* checksum": (
            d2l.DropoutMLPScratch(**small),
            d2l.ArrayData(X, y, X, y),
            {},
        ),
        r"batch_size: 64, and here 32": (d2l.DropoutMLPScratch(**small), d2l.Digits(batch_size=32), {}),
        r"seed: 0, and here 1": (d2l.DropoutMLPScratch(**small), d2l.Digits(), {"seed": 1}),
        r"gradient_clip_val: .*here 1": (d2l.DropoutMLPScratch(**small), d2l.Digits(), {"gradient_clip_val": 1}),
    }
    for difference, (other, data, options) in attempts.items():
        with pytest.raises(d2ldrop.CheckpointError, match=difference):
            Trainer(2, **{"seed": 0, "progress": False, **options}).fit(other, data, resume=tmp_path)
    assert model.backend_name == d2l.name


def test_a_newer_format_is_refused(small, tmp_path, monkeypatch):
    d2l = d2ldrop.backend("numpy")
    with monkeypatch.context() as patch:
        patch.setattr("d2ldrop.training.checkpoints.FORMAT", 2)
        fitted(d2l, small, callbacks=[Checkpoint(tmp_path)])
    with pytest.raises(d2ldrop.CheckpointError, match=r"format 1 or older\. Received 2"):
        Trainer(2, seed=0, progress=False).fit(d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path)


def test_another_backend_is_refused(small, tmp_path):
    fitted(d2ldrop.backend("numpy"), small, callbacks=[Checkpoint(tmp_path)])
    toy = d2ldrop.backend("toy")
    with pytest.raises(d2ldrop.CheckpointError, match="backend: 'numpy', and here 'toy'"):
        Trainer(2, seed=0, progress=False).fit(toy.DropoutMLPScratch(**small), toy.Digits(), resume=tmp_path)


def test_which_checkpoints_are_kept(small, tmp_path):
    d2l = d2ldrop.backend("numpy")
    fitted(d2l, small, epochs=7, callbacks=[Checkpoint(tmp_path / "a", every=2, keep=3)])
    assert [path.stem for path in sorted((tmp_path / "a").glob("*.safetensors"))] == [
        "epoch-00004",
        "epoch-00006",
        "epoch-00007",
    ]
    with pytest.raises(d2ldrop.CheckpointError, match="without checkpoints, as this training begins anew"):
        fitted(d2l, small, callbacks=[Checkpoint(tmp_path / "a")])
    with pytest.raises(d2ldrop.ArgumentError, match="resume to be a folder"):
        Trainer(1, progress=False).fit(
            d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path / "a" / "epoch-00007.safetensors"
        )
    for wrong in ({"every": 0}, {"keep": 0}, {"keep": 1.5}):
        with pytest.raises(d2ldrop.ArgumentError, match="positive integer"):
            Checkpoint(tmp_path, **wrong)
    trainer = Trainer(2, seed=0, progress=False)
    trainer.fit(d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path / "empty")  # begins anew
    assert len(trainer.history) == 2


def test_a_folder_is_used_by_one_training_at_a_time_and_what_else_is_in_it_stays(small, tmp_path):
    d2l = d2ldrop.backend("numpy")
    (tmp_path / ".mine.safetensors").write_text("mine")

    class Second(Callback):
        def on_epoch_end(self, trainer):
            with pytest.raises(d2ldrop.CheckpointError, match="no other training uses"):
                fitted(d2l, small, callbacks=[Checkpoint(tmp_path)])

    fitted(d2l, small, callbacks=[Checkpoint(tmp_path), Second()])
    assert (tmp_path / ".mine.safetensors").read_text() == "mine"


def test_the_state_of_callbacks_is_found_by_their_class(small, tmp_path):
    d2l = d2ldrop.backend("numpy")
    stop = EarlyStopping(restore_best=True, patience=9)
    fitted(d2l, small, callbacks=[stop, Checkpoint(tmp_path)])
    other, log = EarlyStopping(restore_best=True, patience=9), Callback()
    trainer = Trainer(1, seed=0, progress=False, callbacks=[log, other])
    trainer.fit(d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path)
    assert same(other.state(), stop.state())
    with pytest.raises(d2ldrop.CheckpointError, match="Missing: EarlyStopping"):
        Trainer(1, seed=0, progress=False).fit(d2l.DropoutMLPScratch(**small), d2l.Digits(), resume=tmp_path)


def same(arrays, others):
    return arrays.keys() == others.keys() and all(np.array_equal(arrays[name], others[name]) for name in arrays)


class Weights(Callback):
    """Keeps the weights after each epoch."""

    def __init__(self):
        self.kept = []

    def on_epoch_end(self, trainer):
        self.kept.append(trainer.backend.get_weights(trainer.model))


def test_the_best_weights_are_kept_and_given_back(d2l, small, tmp_path):
    seen, stop = Weights(), EarlyStopping("val_loss", patience=2, restore_best=True)
    options = {**small, "lr": 3.0}  # so large that the loss goes up and down
    trainer, model = fitted(d2l, options, 12, callbacks=[seen, stop, Checkpoint(tmp_path, best="val_loss")])
    best = int(np.argmin([row["val_loss"] for row in trainer.history]))
    assert best < len(trainer.history) - 1
    kept = d2ldrop.load_model(tmp_path / "best.safetensors", d2l.name) if d2l.name != "toy" else model
    for name, value in seen.kept[best].items():
        np.testing.assert_array_equal(d2l.get_weights(model)[name], value)
        np.testing.assert_array_equal(d2l.get_weights(kept)[name], value)


def test_early_stopping_resumes_with_what_it_had(d2l, small, tmp_path):
    options = {**small, "lr": 3.0}

    def callbacks(*more):
        return [EarlyStopping("val_loss", patience=2, restore_best=True), Checkpoint(tmp_path), *more]

    whole, expected = fitted(d2l, options, 12, callbacks=callbacks()[:1])
    with pytest.raises(MemoryError):
        fitted(d2l, options, 12, callbacks=callbacks(Crash(len(whole.history) - 1)))
    resumed, model = Trainer(12, seed=0, progress=False, callbacks=callbacks()), d2l.DropoutMLPScratch(**options)
    resumed.fit(model, d2l.Digits(), resume=tmp_path)
    assert results(resumed) == results(whole)
    for name, value in d2l.get_weights(expected).items():
        np.testing.assert_array_equal(d2l.get_weights(model)[name], value)
    resumed.fit(model, d2l.Digits(), resume=tmp_path)  # it had stopped, and so it is done
    assert results(resumed) == results(whole)

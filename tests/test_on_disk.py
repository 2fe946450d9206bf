"""Memory-mapped arrays: data that stay in their file, and are trained on batch by batch."""

import tracemalloc

import numpy as np
import pytest

import d2ldrop
from d2ldrop.data import Digits
from d2ldrop.data.on_disk import OnDisk


@pytest.fixture
def mapped(tmp_path):
    """Return the digits in a file, memory-mapped, and their labels."""

    def make(dtype):
        X, y = Digits().split(train=True)
        X = (X.reshape(len(X), -1) * (255 if dtype == "uint8" else 1)).astype(dtype)
        np.save(tmp_path / "X.npy", X)
        return np.load(tmp_path / "X.npy", mmap_mode="r"), y

    return make


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_training_from_a_file_is_training(d2l, small, mapped, dtype):
    X, y = mapped(dtype)
    losses, weights = [], []
    for samples in (X, np.array(X)):
        data = d2l.ArrayData(samples, y, batch_size=64)
        assert data.on_disk == (samples is X)
        model = d2l.DropoutMLPScratch(**{**small, "dropout_1": 0, "dropout_2": 0})
        trainer = d2l.Trainer(2, seed=0, progress=False)
        trainer.fit(model, data)
        losses.append([row[key] for row in trainer.history for key in ("train_loss", "val_loss", "val_acc")])
        weights.append(d2l.get_weights(model))
        assert trainer.evaluate()["val_loss"] == pytest.approx(losses[-1][-2], rel=1e-5)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    for name, values in weights[0].items():
        np.testing.assert_allclose(values, weights[1][name], atol=1e-5, err_msg=name)
    assert losses[0][-1] > 0.2  # better than chance
    outputs = [trainer.predict(samples[:300]) for samples in (X, np.array(X))]
    np.testing.assert_allclose(*outputs, rtol=1e-5)


def test_a_file_is_not_read_as_a_whole(tmp_path):
    shape = (100_000, 256)
    X = np.memmap(tmp_path / "X", np.uint8, "w+", shape=shape)  # 26 MB
    X[:, 0] = np.arange(len(X)) % 2
    tracemalloc.start()
    try:
        data = d2ldrop.ArrayData(X, np.arange(len(X)) % 2, batch_size=1000)
        made = tracemalloc.get_traced_memory()[1]
        for _ in data.train_dataloader():
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made < X.nbytes / 2  # labels, and orders of the samples
    assert peak < X.nbytes / 2


def test_samples_are_looked_at_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("d2ldrop.data.on_disk.CHUNK", 40)
    X = np.memmap(tmp_path / "X", np.float32, "w+", shape=(100, 5))
    X[77, 2] = np.nan
    for samples in (X, np.array(X)):
        with pytest.raises(d2ldrop.DataError, match="Received: nan in sample 77"):
            d2ldrop.ArrayData(samples, np.zeros(100, int))
    X[77, 2] = 0
    X64 = np.memmap(tmp_path / "X64", np.float64, "w+", shape=(100, 5))
    X64[3, 1] = 1e300
    with pytest.raises(d2ldrop.DataError, match="Received: inf in sample 3"):
        d2ldrop.ArrayData(X64, np.zeros(100, int))


def test_samples_of_a_file_are_chosen_as_those_in_memory(mapped):
    X, y = mapped("uint8")
    on_disk, in_memory = d2ldrop.ArrayData(X, y), d2ldrop.ArrayData(np.array(X), y)
    for train in (True, False):
        lazy, eager = on_disk.split(train), in_memory.split(train)
        assert isinstance(lazy.X, OnDisk)
        assert (lazy.X.shape, lazy.X.dtype, lazy.X.ndim) == (eager.X.shape, eager.X.dtype, eager.X.ndim)
        np.testing.assert_array_equal(lazy.X, eager.X)
        np.testing.assert_array_equal(lazy.X[5:9], eager.X[5:9])
        np.testing.assert_array_equal(lazy.X.take(np.array([7, 3]))[1], eager.X[3])
        np.testing.assert_array_equal(lazy.y, eager.y)


@pytest.mark.parametrize("shape", [(), (20,), (20, 0), (20, 3, 0)])
def test_shapes_that_are_no_samples_are_refused(tmp_path, shape):
    np.save(tmp_path / "X.npy", np.ones(shape, np.float32))
    for X in (np.load(tmp_path / "X.npy", mmap_mode="r" if np.prod(shape) else None), np.ones(shape, np.float32)):
        with pytest.raises(d2ldrop.DataError, match=r"Expected X of shape \(N, \.\.\.\)"):
            d2ldrop.ArrayData(X, np.zeros(20, int))


def test_training_from_a_file_resumes(d2l, small, mapped, tmp_path):
    X, y = mapped("uint8")
    data = d2l.ArrayData(X, y, batch_size=256)

    def weights(epochs, folder, **options):
        model = d2l.DropoutMLPScratch(**small)
        trainer = d2l.Trainer(epochs, seed=1, progress=False, callbacks=[d2ldrop.Checkpoint(tmp_path / folder)])
        trainer.fit(model, data, **options)
        return d2l.get_weights(model)

    whole = weights(2, "whole")
    weights(1, "parts")
    for name, values in weights(2, "parts", resume=tmp_path / "parts").items():
        np.testing.assert_array_equal(values, whole[name])
    data = d2l.ArrayData(X[::-1], y, batch_size=256)
    with pytest.raises(d2ldrop.CheckpointError):
        weights(2, "parts", resume=tmp_path / "parts")


def test_evaluation_without_samples_in_a_file(small, mapped):
    d2l = d2ldrop.backend("numpy")
    X, y = mapped("float32")
    trainer = d2l.Trainer(1, progress=False)
    trainer.fit(d2l.DropoutMLPScratch(**small), d2l.ArrayData(X, y, X[:0], y[:0]))
    assert "val_loss" not in trainer.history[0]
    with pytest.raises(d2ldrop.DataError, match="Received none"):
        trainer.evaluate()


def test_large_data_go_to_the_device_in_batches(d2l, small, mapped, monkeypatch):
    X, y = mapped("uint8")
    data = d2l.ArrayData(np.array(X), y, batch_size=64)
    weights, resident = [], []
    for memory in (2**40, 4 * X.nbytes // 2):
        monkeypatch.setattr("d2ldrop.training.evaluation.memory_size", lambda memory=memory: memory)
        trainer = d2l.Trainer(1, seed=0, progress=False)
        trainer.fit(model := d2l.DropoutMLPScratch(**{**small, "dropout_1": 0, "dropout_2": 0}), data)
        weights.append(d2l.get_weights(model))
        resident.append(trainer._resident)
    assert resident == [True, False]
    for name, values in weights[0].items():
        np.testing.assert_allclose(values, weights[1][name], atol=1e-5, err_msg=name)

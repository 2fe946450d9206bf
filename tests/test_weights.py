"""Weights in files: from any backend, to any other, as long as they fit."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from helpers import IMAGES, built, fitted, images, predicted, put_together, taken_apart
from safetensors.numpy import load_file, save_file

import d2ldrop
from d2ldrop import load_model, load_weights, read_weights, save_weights
from d2ldrop.training.weights import DTYPES

MODELS = ["DropoutMLPScratch", "DropoutMLP"]


@pytest.mark.parametrize("writer", MODELS)
@pytest.mark.parametrize("reader", MODELS)
def test_weights_travel_between_all_backends(d2l, other, small, tmp_path, writer, reader):
    model = built(d2l, small, writer)
    save_weights(model, tmp_path / "w.safetensors")
    expected = d2l.numpy(d2l.backend.predict(model, d2l.array(images(d2l))))
    copy = getattr(other, reader)(**small)
    load_weights(copy, tmp_path / "w.safetensors", images(other))
    received = other.numpy(other.backend.predict(copy, other.array(images(other))))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def test_weights_file_names_layouts_and_metadata(d2l, small, tmp_path):
    save_weights(built(d2l, small), tmp_path / "w.safetensors", data="digits")
    arrays = load_file(tmp_path / "w.safetensors")
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "lin1.weight": ((32, 16), np.float32),
        "lin1.bias": ((32,), np.float32),
        "lin2.weight": ((16, 32), np.float32),
        "lin2.bias": ((16,), np.float32),
        "lin3.weight": ((10, 16), np.float32),
        "lin3.bias": ((10,), np.float32),
    }
    about = read_weights(tmp_path / "w.safetensors")[1]
    assert about == {"class": "DropoutMLPScratch", "hparams": small, "backend": d2l.name, "data": "digits"}


def test_get_weights_returns_copies(d2l, small):
    model = built(d2l, small)
    d2l.get_weights(model)["lin1.weight"][:] = 7
    assert not (d2l.get_weights(model)["lin1.weight"] == 7).any()


def test_load_weights_rejects_other_names_or_shapes(d2l, small, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(built(d2l, small), path)
    wider = d2l.DropoutMLP(**{**small, "num_hiddens_1": 33})
    with pytest.raises(d2ldrop.WeightsError, match=r"lin1.bias: expected \(33,\), received \(32,\)"):
        load_weights(wider, path, images(d2l))
    arrays = load_file(path)
    del arrays["lin2.bias"]
    save_file({**arrays, "extra": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"extra: expected None, received \(3,\); lin2.bias: .*received None"):
        load_weights(built(d2l, small), path, images(d2l))


def test_read_weights_rejects_other_files(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(d2ldrop.WeightsError, match="to be a safetensors file"):
        read_weights(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="There is none at"):
        read_weights(tmp_path / "nothing")


def test_failed_save_keeps_the_old_file(d2l, small, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(built(d2l, small), path)
    before = path.read_bytes()

    def full(arrays, file, metadata):
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(built(d2l, small), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


# Models from files


@pytest.mark.parametrize("kind", [None, *MODELS])
def test_load_model_predicts_and_trains_on(d2l, saved, small, kind):
    path, expected = saved
    model = load_model(path, d2l.name, kind=kind, X=IMAGES)
    assert type(model) is d2l.backend.models[kind or "DropoutMLPScratch"]
    assert model.hparams == small
    inputs = d2l.array(images(d2l))
    np.testing.assert_array_equal(d2l.numpy(model(inputs)), d2l.numpy(model(inputs)))  # without dropout
    np.testing.assert_allclose(predicted(d2l, model), expected, rtol=1e-5, atol=1e-6)
    before = d2l.get_weights(model)
    trainer = d2ldrop.Trainer(1, seed=0, progress=False)
    trainer.fit(model, d2l.ArrayData(np.tile(IMAGES, (20, 1, 1, 1)), np.arange(100) % 10, batch_size=20))
    assert trainer.history[0]["train_loss"] > 0
    assert all((before[name] != value).any() for name, value in d2l.get_weights(model).items())


def test_load_model_chooses_backend_and_class_of_the_file(d2l, tmp_path):
    model = d2l.SoftmaxRegression(num_outputs=3, lr=0.1)
    d2l.backend.build(model, (images(d2l),), d2l.cpu())
    save_weights(model, tmp_path / "w")
    copy = load_model(tmp_path / "w")
    assert type(copy) is d2l.SoftmaxRegression
    np.testing.assert_array_equal(predicted(d2l, copy), predicted(d2l, model))


def test_load_model_rejects_what_it_cannot_make(d2l, saved, small, tmp_path):
    path, _ = saved
    with pytest.raises(d2ldrop.WeightsError, match=r"Expected inputs of 16 numbers each. Received: \(1, 28, 28\)"):
        load_model(path, d2l.name, X=np.zeros((1, 1, 28, 28)))
    with pytest.raises(d2ldrop.WeightsError, match="'Net'"):
        load_model(path, d2l.name, kind="Net")
    with pytest.raises(d2ldrop.BackendError, match="'nothing'"):
        load_model(path, "nothing")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "no", d2l.name)

    class Mine(d2l.DropoutMLP):
        pass

    save_weights(built(WithModels(d2l, Mine=Mine), small, "Mine"), tmp_path / "mine")
    with pytest.raises(d2ldrop.WeightsError, match=r"a class among DropoutMLPScratch, .*Received: 'Mine'"):
        load_model(tmp_path / "mine")


class WithModels:
    """An adapter with other models."""

    def __init__(self, d2l, **models):
        self.d2l = d2l
        vars(self).update(models)

    def __getattr__(self, name):
        return getattr(self.d2l, name)


def test_importing_the_library_imports_no_reader_of_weights():
    code = "import sys, d2ldrop; d2ldrop.load_model, d2ldrop.read_weights; assert 'safetensors' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Models without parameters


def test_set_weights_of_a_model_that_was_never_called(d2l, saved, small):
    path, expected = saved
    model = d2l.DropoutMLP(**small)
    d2l.set_weights(model, read_weights(path)[0])
    np.testing.assert_allclose(predicted(d2l, model), expected, rtol=1e-5, atol=1e-6)
    model = d2l.DropoutMLPScratch(**small)
    assert load_weights(model, path)["data"] == "digits"
    np.testing.assert_allclose(predicted(d2l, model), expected, rtol=1e-5, atol=1e-6)


def test_models_without_parameters_are_refused_with_what_to_do(d2l, small, tmp_path):
    model = d2l.DropoutMLP(**small)
    message = "Received: DropoutMLP, which was never called. Fit it, or call it"
    for attempt in (
        lambda: save_weights(model, tmp_path / "w"),
        lambda: d2l.get_weights(model),
        lambda: d2l.set_weights(model, {"conv.weight": np.zeros((8, 1, 3, 3)), "lin1.weight": np.zeros((10, 8))}),
        lambda: d2l.set_weights(model, {}),
    ):
        with pytest.raises(d2ldrop.UsageError, match=message):
            attempt()
    assert not [*tmp_path.iterdir()]
    assert d2l.backend.build(model, (images(d2l),), d2l.cpu())  # nothing was created


def test_load_weights_leaves_a_model_that_has_parameters_where_it_is(d2l, saved, small, monkeypatch):
    model = built(d2l, small)
    monkeypatch.setattr(d2l.backend, "build", None, raising=False)
    load_weights(model, saved[0], images(d2l))
    monkeypatch.undo()
    np.testing.assert_allclose(predicted(d2l, model), saved[1], rtol=1e-5, atol=1e-6)


# What is saved


def test_numbers_of_numpy_among_the_hyperparameters(d2l, tmp_path):
    hparams = {
        "num_outputs": np.int64(10),
        "num_hiddens_1": np.uint8(8),
        "num_hiddens_2": np.array(4)[()],
        "dropout_1": np.float32(0.5),
        "dropout_2": np.float64(0.25),
        "lr": np.float16(0.5),
    }
    if d2l.name == "tf":  # Keras itself takes no other integers than Python's
        hparams |= {name: int(hparams[name]) for name in ("num_outputs", "num_hiddens_1", "num_hiddens_2")}
    model = built(d2l, hparams)
    flag, rates = np.bool_(True), np.array([0.5, 1])
    save_weights(
        model, tmp_path / "w", flag=flag, rates=rates, zero=np.array(7), pair=(np.int8(1), 2), wide=np.longdouble(2)
    )
    about = read_weights(tmp_path / "w")[1]
    assert about == {
        "class": "DropoutMLPScratch",
        "hparams": {
            "num_outputs": 10, "num_hiddens_1": 8, "num_hiddens_2": 4, "dropout_1": 0.5, "dropout_2": 0.25, "lr": 0.5
        },
        "backend": d2l.name,
        "flag": True,
        "rates": [0.5, 1],
        "zero": 7,
        "pair": [1, 2],
        "wide": 2,
    }  # fmt: skip
    assert {type(value) for value in about["hparams"].values()} == {int, float}
    np.testing.assert_array_equal(predicted(d2l, load_model(tmp_path / "w")), predicted(d2l, model))


def test_what_json_cannot_hold_is_described(d2l, small, tmp_path):
    class Broken:
        def __repr__(self):
            raise ValueError

    endless, deep = [], []
    endless.append(endless)
    for _ in range(100_000):
        deep = [deep]
    values = {
        "function": max, "module": np, "type": int, "set": {1}, "bytes": b"x", "complex": 1j, "broken": Broken(),
        "endless": endless, "deep": deep, "keys": {(1, 2): 3}, "long": [0] * 400_000, "array": np.zeros(300_000),
        "nan": math.nan, "layer": built(d2l, small),
    }  # fmt: skip
    save_weights(built(d2l, small), tmp_path / "w", **values)
    about = read_weights(tmp_path / "w")[1]
    assert about["hparams"] == small
    assert about["function"] == "<built-in function max>"
    assert math.isnan(about.pop("nan"))
    assert all(isinstance(about[name], str) and len(about[name]) < 300 for name in values if name != "nan")
    while deep:  # by hand: to free it all at once takes as many calls
        deep = deep.pop()


@pytest.mark.skip_numpy
@pytest.mark.skip_toy
def test_buffers_of_batch_norm_come_back(d2l, own, small, tmp_path):
    Normalised = own.with_batch_norm(d2l)
    _, model = fitted(WithModels(d2l, Normalised=Normalised), {"lr": 0.1}, kind="Normalised")
    path = tmp_path / "w.safetensors"
    save_weights(model, path)
    expected = d2l.get_weights(model)
    assert {name: value.shape for name, value in read_weights(path)[0].items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert len(expected) > 7
    d2l.set_weights(model, {name: value * 0 for name, value in expected.items()})
    assert not any(value.any() for value in d2l.get_weights(model).values())
    inputs = d2l.Digits().split(train=False, channels_last=d2l.channels_last)[0][:5]
    copies = [model, Normalised(lr=0.1), Normalised(lr=0.1)]
    for copy, given_inputs in zip(copies, (None, inputs, None), strict=True):
        load_weights(copy, path, given_inputs)
        for name, value in d2l.get_weights(copy).items():
            np.testing.assert_array_equal(value, expected[name])
            assert value.dtype == expected[name].dtype


# Kinds of numbers


def with_dtype(path, dtype, bias):
    """Store the first bias of a file in another type, of which the writer sees only the bytes."""
    arrays, about = read_weights(path)
    stored = (bias.view(np.uint32) >> 16 if dtype == "BF16" else bias).astype(DTYPES[dtype])
    as_integers = stored.view(f"u{stored.itemsize}")
    save_file({**arrays, "lin1.bias": as_integers}, path, {"d2ldrop": json.dumps(about)})
    header, values = taken_apart(path)
    header["lin1.bias"]["dtype"] = dtype
    put_together(path, json.dumps(header), values)


@pytest.mark.parametrize("dtype", ["I8", "I64", "U8", "BOOL", "C64"])
def test_weights_that_are_no_floating_point_numbers_are_refused(d2l, saved, small, dtype):
    path, _ = saved
    with_dtype(path, dtype, np.ones(32, np.float32))
    name = np.dtype(DTYPES[dtype]).name
    for attempt in (
        lambda: load_model(path, d2l.name),
        lambda: load_weights(built(d2l, small), path, images(d2l)),
        lambda: d2l.set_weights(built(d2l, small), read_weights(path)[0]),
    ):
        with pytest.raises(d2ldrop.WeightsError, match=f"lin1.bias: expected float, received {name}"):
            attempt()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_other_floating_point_numbers_are_converted(d2l, saved, small, dtype):
    path, _ = saved
    bias = np.linspace(-2, 2, 32, dtype=np.float32)
    with_dtype(path, dtype, bias)
    model = load_model(path, d2l.name)
    received = d2l.get_weights(model)["lin1.bias"]
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, bias, rtol={"F16": 2**-11, "BF16": 2**-7, "F64": 0}[dtype])


def test_set_weights_takes_arrays_of_any_layout(d2l, small):
    model = built(d2l, small)
    expected = {name: np.round(value, 2) for name, value in d2l.get_weights(model).items()}
    odd = {name: np.asfortranarray(value.astype(">f8"))[::-1][::-1] for name, value in expected.items()}
    odd["lin3.bias"] = np.repeat(odd["lin3.bias"][::-1], 2)[::-2]
    for value in odd.values():
        value.flags.writeable = False
    d2l.set_weights(model, odd)
    for name, value in d2l.get_weights(model).items():
        np.testing.assert_array_equal(value, expected[name])


def test_numbers_too_large_for_the_model_are_refused_and_nan_is_kept(d2l, small):
    model = built(d2l, small)
    weights = d2l.get_weights(model)
    weights["lin2.bias"][:3] = np.nan, np.inf, -np.inf
    d2l.set_weights(model, weights)
    np.testing.assert_array_equal(d2l.get_weights(model)["lin2.bias"], weights["lin2.bias"])
    with pytest.raises(d2ldrop.WeightsError, match=r"lin1\.bias: expected float32, received larger numbers"):
        d2l.set_weights(model, {**weights, "lin1.bias": np.full(32, 1e300)})


def test_errors_name_a_few_of_many_arrays(d2l, small):
    many = {f"a{k}": np.zeros(3) for k in range(1000)}
    with pytest.raises(d2ldrop.WeightsError, match=r"a0: expected None.*; and 996 more") as caught:
        d2l.set_weights(built(d2l, small), many)
    assert len(str(caught.value)) < 1000


def test_a_model_that_keeps_no_hyperparameters_is_saved(tmp_path):
    by_hand = d2ldrop.backend("numpy")

    class Plain(by_hand.Classifier):
        def __init__(self):
            self.lr, self.net = 0.1, by_hand.Sequential(by_hand.Flatten(), by_hand.Linear(10))

    kept = d2ldrop.Checkpoint(tmp_path / "ck")
    model, trainer = Plain(), d2ldrop.Trainer(1, seed=0, progress=False, callbacks=[kept])
    trainer.fit(model, by_hand.Digits())
    save_weights(model, tmp_path / "w")
    assert read_weights(tmp_path / "w")[1]["hparams"] == {}
    assert len([*(tmp_path / "ck").glob("epoch-*")]) == 1

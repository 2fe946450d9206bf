"""Weights in files: from any backend, to any other, as long as they fit."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import d2ldrop
from d2ldrop.training.weights import read_weights

MODELS = ["DropoutMLPScratch", "DropoutMLP"]
X = np.random.default_rng(0).random((5, 1, 4, 4), np.float32)


def images(d2l):
    return X.reshape(5, 4, 4, 1) if d2l.channels_last else X


def built(d2l, small, kind="DropoutMLPScratch"):
    model = getattr(d2l, kind)(**small)
    d2l.backend.build(model, (d2l.array(images(d2l)),), d2l.cpu())
    return model


@pytest.mark.parametrize("writer", MODELS)
@pytest.mark.parametrize("reader", MODELS)
def test_weights_travel_between_all_backends(d2l, other, small, tmp_path, writer, reader):
    model = built(d2l, small, writer)
    d2ldrop.save_weights(model, tmp_path / "w.safetensors")
    expected = d2l.numpy(d2l.backend.predict(model, d2l.array(images(d2l))))
    copy = getattr(other, reader)(**small)
    d2ldrop.load_weights(copy, tmp_path / "w.safetensors", images(other))
    received = other.numpy(other.backend.predict(copy, other.array(images(other))))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def test_weights_file_names_layouts_and_metadata(d2l, small, tmp_path):
    d2ldrop.save_weights(built(d2l, small), tmp_path / "w.safetensors", data="digits")
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
    d2ldrop.save_weights(built(d2l, small), path)
    wider = d2l.DropoutMLP(**{**small, "num_hiddens_1": 33})
    with pytest.raises(d2ldrop.WeightsError, match=r"lin1.bias: expected \(33,\), received \(32,\)"):
        d2ldrop.load_weights(wider, path, images(d2l))
    arrays = load_file(path)
    del arrays["lin2.bias"]
    save_file({**arrays, "extra": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"extra: expected None, received \(3,\); lin2.bias: .*received None"):
        d2ldrop.load_weights(built(d2l, small), path, images(d2l))


def test_read_weights_rejects_other_files(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(d2ldrop.WeightsError, match="to be a safetensors file"):
        read_weights(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="There is none at"):
        read_weights(tmp_path / "nothing")


def test_failed_save_keeps_the_old_file(d2l, small, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    d2ldrop.save_weights(built(d2l, small), path)
    before = path.read_bytes()

    def full(arrays, file, metadata):
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        d2ldrop.save_weights(built(d2l, small), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]

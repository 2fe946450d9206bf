"""Data sets: what they hold, how they are found, and what they say of files and arrays that are wrong."""

import gzip
import hashlib

import numpy as np
import pytest

import d2ldrop
from d2ldrop.data.idx import read_idx


def idx_file(path, array):
    """Write bytes as the data set's publishers do."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def tiny(tmp_path):
    """Return a folder with a small data set in Fashion-MNIST's form."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 10)):
        idx_file(tmp_path / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        idx_file(tmp_path / f"{part}-labels-idx1-ubyte.gz", rng.integers(0, 10, count, dtype=np.uint8))
    return tmp_path


def test_fashion_mnist_files(d2l, fashion_mnist):
    data = d2l.FashionMNIST(batch_size=256, root=fashion_mnist)
    assert (len(data.train_dataloader()), len(data.val_dataloader())) == (235, 40)
    X, y = next(iter(data.val_dataloader()))
    assert tuple(X.shape) == ((256, 28, 28, 1) if d2l.channels_last else (256, 1, 28, 28))
    assert "float32" in str(X.dtype)
    pixels = d2l.numpy(X)
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert pixels.mean() == pytest.approx(0.287, abs=0.02)
    assert data.text_labels(y)[:4] == ["ankle boot", "pullover", "trouser", "trouser"]
    for train, count in ((True, 6000), (False, 1000)):
        stored = data.split(train)
        assert stored.X.dtype == np.uint8
        assert np.bincount(stored.y).tolist() == [count] * 10


def test_fashion_mnist_hashes(fashion_mnist):
    for name, sha256 in d2ldrop.FashionMNIST.SHA256.items():
        assert hashlib.sha256((fashion_mnist / name).read_bytes()).hexdigest() == sha256


def test_fashion_mnist_resizes_images(d2l, tiny):
    data = d2l.FashionMNIST(batch_size=4, resize=(14, 20), root=tiny)
    X, _ = next(iter(data.train_dataloader()))
    assert tuple(X.shape) == ((4, 14, 20, 1) if d2l.channels_last else (4, 1, 14, 20))
    before = d2l.FashionMNIST(root=tiny).split(train=True).X
    assert data.split(train=True).X.mean() == pytest.approx(before.mean(), rel=0.02)
    with pytest.raises(ValueError, match=r"Expected resize to be a positive integer\. Received: 0"):
        d2l.FashionMNIST(resize=(0, 5), root=tiny)


def test_locate_searches_folders_in_order(tiny, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("D2LDROP_DATA", str(tiny))
    assert d2ldrop.FashionMNIST.locate() == tiny
    assert d2ldrop.FashionMNIST.locate(other) == tiny
    for file in tiny.glob("*.gz"):
        (other / file.name).write_bytes(file.read_bytes())
    assert d2ldrop.FashionMNIST.locate(other) == other
    monkeypatch.delenv("D2LDROP_DATA")
    assert d2ldrop.FashionMNIST.locate() is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip at all", "to be a gzip file"),
        (gzip.compress(bytes(2000), mtime=0)[:-9], "to be a gzip file"),
        (gzip.compress(b"", mtime=0), "begins with nothing"),
        (gzip.compress(bytes((0, 0, 13, 3)) + bytes(20), mtime=0), "begins with 00 00 0d 03"),
        (gzip.compress(bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2)) + bytes(7), mtime=0), "hold 8 elements"),
    ],
)
def test_read_idx_rejects_damaged_files(tiny, content, message):
    path = tiny / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(d2ldrop.DataError, match=message) as raised:
        d2ldrop.FashionMNIST(root=tiny)
    assert str(path) in str(raised.value)


def test_fashion_mnist_validates_on_the_test_files(d2l, tiny):
    data = d2l.FashionMNIST(root=tiny)
    for train, part in ((True, "train"), (False, "t10k")):
        X, y = data.split(train)
        np.testing.assert_array_equal(X[:, 0], read_idx(tiny / f"{part}-images-idx3-ubyte.gz", ndim=3))
        np.testing.assert_array_equal(y, read_idx(tiny / f"{part}-labels-idx1-ubyte.gz", ndim=1))


def test_fashion_mnist_rejects_images_without_labels(tiny):
    idx_file(tiny / "train-labels-idx1-ubyte.gz", np.zeros(19, np.uint8))
    with pytest.raises(ValueError, match=r"Expected as many samples as labels, at least 1\. Received: 20, 19"):
        d2ldrop.FashionMNIST(root=tiny)


def test_read_idx_reads_what_was_written(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx_file(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz", ndim=3), array)


def test_digits_split_is_fixed(d2l):
    first, second = d2l.Digits(), d2l.Digits()
    for train, count in ((True, 1437), (False, 360)):
        X, y = first.split(train, d2l.channels_last)
        assert X.shape == ((count, 8, 8, 1) if d2l.channels_last else (count, 1, 8, 8))
        assert (X.min(), X.max(), X.dtype) == (0, 1, np.float32)
        np.testing.assert_array_equal(y, second.split(train).y)
        assert np.bincount(y).min() > 0.07 * count


def test_array_data_takes_arrays_of_the_framework(d2l):
    X, y = d2l.array(np.arange(30, dtype=np.float32).reshape(10, 3)), d2l.array(np.arange(10, dtype=np.int32))
    data = d2l.ArrayData(X, y, batch_size=3, class_names=list("abcdefghij"))
    assert data.split(train=True).X.shape == (8, 3)
    assert data.split(train=False).y.tolist() == [8, 9]
    assert data.text_labels(y) == list("abcdefghij")
    assert [len(labels) for _, labels in data.train_dataloader()] == [3, 3, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 2)), np.zeros(2, int)), "as many samples as labels"),
        ((np.zeros((0, 2)), np.zeros(0, int)), "at least 1"),
        ((np.zeros((1, 2)), np.zeros(1, int)), "at least 2 samples"),
        ((np.zeros(3), np.zeros(3, int)), "X of shape"),
        ((np.zeros((3, 2)), np.zeros((3, 2), int)), "y of shape"),
        ((np.zeros((3, 2)), np.full(3, 0.5)), "whole numbers from 0 to 65535"),
        ((np.zeros((3, 2)), np.array([0, -1, 1])), "whole numbers from 0 to 65535"),
        ((np.zeros((3, 2)), np.array([0, 2**16, 1])), "whole numbers from 0 to 65535"),
        ((np.zeros((3, 2)), np.array([0, np.nan, 1])), "whole numbers from 0 to 65535"),
        ((np.full((3, 2), [[0, 1], [0, np.nan], [0, 0]]), np.zeros(3, int)), "Received: nan in sample 1"),
        ((np.full((3, 2), [[0, 1], [0, 1], [0, 1e300]]), np.zeros(3, int)), "Received: inf in sample 2"),
        ((np.full((3, 2), 256), np.zeros(3, int)), "pixels, 0 to 255. Received: 256 to 256"),
        ((np.eye(3, dtype=int), np.zeros(3, int)), "Received 0 and 1"),
        ((np.array([["a"], ["b"]]), np.zeros(2, int)), "X to hold numbers"),
        ((np.zeros((3, 2)), np.zeros(3, int), np.zeros((3, 2))), "X_val and y_val"),
        ((np.zeros((3, 2)), np.zeros(3, int), np.zeros((3, 5)), np.zeros(3, int)), r"X_val of samples \(2,\)"),
        ((np.zeros((3, 2)), np.zeros(3, int), None, None, 0), "batch_size"),
        ((np.zeros((3, 2)), np.array([0, 1, 2]), None, None, 4, ["a"]), "3 class names"),
    ],
)
def test_array_data_rejects_wrong_arrays(arguments, message):
    with pytest.raises(d2ldrop.D2LDropError, match=message):
        d2ldrop.ArrayData(*arguments)


def test_get_tensorloader_selects_samples(d2l):
    tensors = (d2l.array(np.arange(10.0, dtype=np.float32)[:, None]), d2l.array(np.arange(10)))
    data = d2l.DataModule()
    data.batch_size = 2
    loader = data.get_tensorloader(tensors, train=False, indices=slice(4, 9))
    assert [d2l.numpy(y).tolist() for _, y in loader] == [[4, 5], [6, 7], [8]]
    assert len(loader) == 3


def test_visualize(d2l, tiny):
    data = d2l.FashionMNIST(batch_size=4, root=tiny)
    X, y = batch = next(iter(data.val_dataloader()))
    axes = data.visualize(batch, nrows=1, ncols=3)
    assert [axis.get_title() for axis in axes] == data.text_labels(y)[:3]
    np.testing.assert_allclose(axes[1].images[0].get_array(), d2l.numpy(X)[1].reshape(28, 28))
    assert data.visualize(batch, 1, 1, labels=["mine"])[0].get_title() == "mine"
    assert len(data.visualize(batch, 2, 4)) == 8


def test_fashion_mnist_class_names_are_in_the_order_of_the_labels(d2l):
    names = [*"t-shirt trouser pullover dress coat sandal shirt sneaker bag".split(), "ankle boot"]
    assert d2l.get_fashion_mnist_labels(range(10)) == names
    assert list(d2ldrop.FashionMNIST.CLASSES) == names


def test_no_sample_is_both_for_training_and_for_validation(d2l):
    digits = d2l.Digits()
    train, val = ({image.tobytes() for image in digits.split(part).X} for part in (True, False))
    assert not train & val
    data = d2l.ArrayData(np.arange(20.0).reshape(10, 2), np.arange(10) % 2)
    train, val = (data.split(part).X[:, 0].tolist() for part in (True, False))
    assert sorted(train + val) == list(range(0, 20, 2))
    assert len(val) == 2

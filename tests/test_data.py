"""Data sets: what they hold, how they are found, and what they say of files and arrays that are wrong."""

import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import idx_file

import d2ldrop
from d2ldrop.data import ImageData, local, read_idx


def write_data_set(folder, seed):
    """Write a small data set in Fashion-MNIST's form."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 10)):
        idx_file(folder / f"{part}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        idx_file(folder / f"{part}-labels-idx1-ubyte.gz", rng.integers(0, 10, count, dtype=np.uint8))


def publish(folder, monkeypatch):
    """Let the files of a folder be those of Fashion-MNIST."""

    def published(content):
        return local.Published(len(content), hashlib.sha256(content).hexdigest())

    files = {path.name: path.read_bytes() for path in folder.glob("*.gz")}
    unpacked = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    for kind, contents in (("FILES", files), ("UNPACKED", unpacked)):
        known = {name: published(content) for name, content in contents.items()}
        monkeypatch.setattr(d2ldrop.FashionMNIST, kind, known)


def unpack(folder):
    """Replace the gzipped files of a folder by their content."""
    for path in folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a folder for a user whose machine has no data set, and no network."""
    monkeypatch.delenv("D2LDROP_DATA", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(d2ldrop.FashionMNIST, "MIRRORS", ())
    return tmp_path


@pytest.fixture
def tiny(machine, monkeypatch):
    """Return a folder with a small data set that is taken for Fashion-MNIST."""
    write_data_set(machine / "tiny", seed=0)
    publish(machine / "tiny", monkeypatch)
    return machine / "tiny"


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


def test_fashion_mnist_sizes_and_hashes(fashion_mnist):
    for part, path in local.find(d2ldrop.FashionMNIST.UNPACKED, fashion_mnist).items():
        content = path.read_bytes()
        if path.suffix == ".gz":
            assert d2ldrop.FashionMNIST.FILES[path.name] == (len(content), hashlib.sha256(content).hexdigest())
            content = gzip.decompress(content)
        assert d2ldrop.FashionMNIST.UNPACKED[part] == (len(content), hashlib.sha256(content).hexdigest())


def test_fashion_mnist_resizes_images(d2l, tiny):
    data = d2l.FashionMNIST(batch_size=4, resize=(14, 20), root=tiny)
    X, _ = next(iter(data.train_dataloader()))
    assert tuple(X.shape) == ((4, 14, 20, 1) if d2l.channels_last else (4, 1, 14, 20))
    before = d2l.FashionMNIST(root=tiny).split(train=True).X
    assert data.split(train=True).X.mean() == pytest.approx(before.mean(), rel=0.02)
    with pytest.raises(ValueError, match=r"Expected resize to be a positive integer\. Received: 0"):
        d2l.FashionMNIST(resize=(0, 5), root=tiny)


def test_locate_searches_folders_in_order(tiny, machine, monkeypatch):
    cache, keras = machine / "cache" / "d2ldrop", machine / "home" / ".keras" / "datasets" / "fashion-mnist"
    monkeypatch.setenv("D2LDROP_DATA", str(tiny))
    for folder in (tiny, cache, keras):
        if folder != tiny:
            shutil.copytree(tiny, folder)
    for folder in (tiny, cache, keras):
        assert d2ldrop.FashionMNIST.locate() == folder
        assert d2ldrop.FashionMNIST().folder == folder
        next(folder.glob("train*")).unlink()
    assert d2ldrop.FashionMNIST.locate() is None


def test_locate_honours_keras_home(tiny, machine, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(machine / "keras"))
    shutil.copytree(tiny, machine / "keras" / "datasets" / "fashion-mnist")
    assert d2ldrop.FashionMNIST.locate() == machine / "keras" / "datasets" / "fashion-mnist"


@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("unpacked", [False, True], ids=["gzipped", "unpacked"])
@pytest.mark.parametrize("named", ["root", "environment"])
def test_fashion_mnist_is_found_in_each_layout(d2l, tiny, machine, monkeypatch, layout, unpacked, named):
    expected = d2l.FashionMNIST(root=tiny).split(train=False)
    shutil.copytree(tiny, machine / "data" / layout)
    if unpacked:
        unpack(machine / "data" / layout)
    if named == "environment":
        monkeypatch.setenv("D2LDROP_DATA", str(machine / "data"))
    data = d2l.FashionMNIST(root=machine / "data" if named == "root" else None)
    assert data.folder == machine / "data" / layout
    for got, wanted in zip(data.split(train=False), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_mixed_folder_is_complete(tiny):
    path = tiny / "t10k-labels-idx1-ubyte.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert len(d2ldrop.FashionMNIST(root=tiny).split(train=False).y) == 10


def test_no_other_folder_is_taken_for_root(tiny, machine, monkeypatch):
    monkeypatch.setenv("D2LDROP_DATA", str(tiny))
    shutil.copytree(tiny, machine / "cache" / "d2ldrop")
    (machine / "half").mkdir()
    for path in tiny.glob("train*"):
        shutil.copy(path, machine / "half")
    for root, lacking in (("typo", "no such folder"), ("half", "lacks t10k-images-idx3-ubyte.gz, t10k-labels")):
        assert d2ldrop.FashionMNIST.locate(machine / root) is None
        with pytest.raises(d2ldrop.DataNotFoundError) as raised:
            d2ldrop.FashionMNIST(root=machine / root)
        assert f"{machine / root}: {lacking}" in str(raised.value)
        assert f"{machine / root / 'FashionMNIST' / 'raw'}: no such folder" in str(raised.value)
        assert str(tiny) not in str(raised.value)
    assert not (machine / "typo").exists()


def test_the_message_lists_each_folder_and_what_it_lacks(machine, monkeypatch):
    (machine / "named").mkdir()
    monkeypatch.setenv("D2LDROP_DATA", str(machine / "named"))
    with pytest.raises(d2ldrop.DataNotFoundError) as raised:
        d2ldrop.FashionMNIST()
    message = str(raised.value)
    assert message.count("no such folder") == 4
    assert f"{machine / 'named'}: lacks train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k" in message
    for folder in (machine / "cache" / "d2ldrop", machine / "home" / ".keras" / "datasets" / "fashion-mnist"):
        assert f"{folder}: no such folder" in message


@pytest.mark.parametrize("root", [__file__, Path(__file__) / "below", "null\0byte", "x" * 300])
def test_fashion_mnist_rejects_a_root_that_cannot_be_a_folder(machine, root):
    with pytest.raises(d2ldrop.DataNotFoundError, match="Could not write to"):
        d2ldrop.FashionMNIST(root=root)


def test_fashion_mnist_rejects_a_root_that_is_no_path(machine):
    with pytest.raises(d2ldrop.ArgumentTypeError, match=r"Expected root to be a path\. Received: 5"):
        d2ldrop.FashionMNIST(root=5)


def test_fashion_mnist_rejects_a_folder_in_place_of_a_file(tiny):
    (tiny / "t10k-labels-idx1-ubyte.gz").unlink()
    (tiny / "t10k-labels-idx1-ubyte.gz").mkdir()
    with pytest.raises(d2ldrop.DataError, match="to be the published file"):
        d2ldrop.FashionMNIST(root=tiny)


@pytest.mark.parametrize("unpacked", [False, True], ids=["gzipped", "unpacked"])
@pytest.mark.parametrize("named", ["root", "environment", "cache", "keras"])
def test_another_data_set_is_not_taken_for_fashion_mnist(tiny, machine, monkeypatch, named, unpacked):
    """MNIST, say, has the same form and the same file names."""
    folder = {"cache": machine / "cache" / "d2ldrop", "keras": machine / "home" / ".keras/datasets/fashion-mnist"}.get(
        named, machine / "mnist"
    )
    write_data_set(folder, seed=1)
    if unpacked:
        unpack(folder)
    if named == "environment":
        monkeypatch.setenv("D2LDROP_DATA", str(folder))
    with pytest.raises(d2ldrop.DataError, match=r"Expected .* SHA-256 .*Received: .*ImageData\(") as raised:
        d2ldrop.FashionMNIST(root=folder if named == "root" else None)
    assert str(folder) in str(raised.value)
    paths = local.find(d2ldrop.FashionMNIST.UNPACKED, folder)
    X, y = (read_idx(paths[f"train-{kind}-ubyte"], ndim) for kind, ndim in (("images-idx3", 3), ("labels-idx1", 1)))
    assert ImageData(X, y).split(train=True).X.shape == (16, 1, 28, 28)  # as the message says


def test_files_are_hashed_once_and_again_when_they_change(tiny, machine, monkeypatch):
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(local.hashlib, "file_digest", lambda file, name: hashed.append(file.name) or digest(file, name))
    for _ in range(2):
        d2ldrop.FashionMNIST(root=tiny)
        assert len(hashed) == 4
    checked = json.loads((machine / "cache" / "d2ldrop" / "checked.json").read_text())
    path = tiny / "t10k-labels-idx1-ubyte.gz"
    stat = path.stat()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert checked[str(path.resolve())] == [stat.st_size, stat.st_mtime_ns, sha256]

    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(d2ldrop.DataError, match="SHA-256"):
        d2ldrop.FashionMNIST(root=tiny)
    assert len(hashed) == 5


@pytest.mark.parametrize("marker", [b"", b"[]", b"{", b"\xff", b"[" * 10**5, b'{"a": 1}', None])
def test_a_damaged_list_of_checked_files_is_no_obstacle(tiny, machine, marker):
    cache = machine / "cache" / "d2ldrop"
    cache.mkdir(parents=True)
    if marker is None:
        (cache / "checked.json").mkdir()
    else:
        (cache / "checked.json").write_bytes(marker)
    for _ in range(2):
        assert d2ldrop.FashionMNIST(root=tiny).folder == tiny


def test_a_cache_folder_that_cannot_be_made_is_no_obstacle(tiny, machine):
    (machine / "cache").write_text("a file")
    assert d2ldrop.FashionMNIST(root=tiny).folder == tiny


def test_fashion_mnist_validates_on_the_test_files(d2l, tiny):
    data = d2l.FashionMNIST(root=tiny)
    for train, part in ((True, "train"), (False, "t10k")):
        X, y = data.split(train)
        np.testing.assert_array_equal(X[:, 0], read_idx(tiny / f"{part}-images-idx3-ubyte.gz", ndim=3))
        np.testing.assert_array_equal(y, read_idx(tiny / f"{part}-labels-idx1-ubyte.gz", ndim=1))


def test_fashion_mnist_rejects_images_without_labels(tiny, monkeypatch):
    idx_file(tiny / "train-labels-idx1-ubyte.gz", np.zeros(19, np.uint8))
    publish(tiny, monkeypatch)
    with pytest.raises(ValueError, match=r"Expected as many samples as labels, at least 1\. Received: 20, 19"):
        d2ldrop.FashionMNIST(root=tiny)


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
        ((np.zeros((3, 2)), np.zeros((3, 2, 2), int)), "y of shape"),
        ((np.zeros((3, 2)), np.array([0, -1, 1])), "whole numbers from 0 to 65535"),
        ((np.zeros((3, 2)), np.array([0, 2**16, 1])), "whole numbers from 0 to 65535"),
        ((np.zeros((3, 2)), np.array([0, np.nan, 1])), "y to hold numbers that are finite"),
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
    assert data.visualize(batch, 1, 2, labels=[["mine", "yours"]])[1].get_title() == "yours"  # the book's form
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


def test_data_say_what_they_hold(d2l):
    digits = "1437 samples to train on, 360 to validate on, each (8, 8) float32; 10 classes; batch_size=32"
    assert repr(d2l.Digits(batch_size=32)) == f"<Digits: {digits}>"
    X, y = np.zeros((10, 3), np.uint8), np.linspace(0, 1, 20).reshape(10, 2)
    kind = "8 samples to train on, 2 to validate on, each (3,) uint8; 2 targets; batch_size=64"
    assert repr(d2l.ArrayData(X, y)) == f"<ArrayData: {kind}>"

    class Own(d2l.DataModule):
        def __init__(self, size, scale=1.0):
            self.save_hyperparameters()

    assert repr(Own(3)) == "<Own(size=3)>"


def test_data_that_are_not_there_yet_say_how_they_were_made(d2l):
    class Lazy(d2l.ArrayData):
        def __init__(self, size):
            self.save_hyperparameters()

    assert repr(Lazy(4)) == "<Lazy(size=4)>"

"""Loaders of batches as data, of the model's framework and of others."""

import math
from collections.abc import Iterator

import numpy as np
import pytest

import d2ldrop
from d2ldrop import ArgumentError, Callback, DataError, Trainer
from d2ldrop.data import batches_in
from d2ldrop.data.loaders import LoaderData

NUMPY = d2ldrop.backend("numpy")
BATCHES = 5


@pytest.fixture(scope="module")
def arrays():
    """Return digits as rows, float32, and their labels."""
    X, y = d2ldrop.Digits().split(True)
    return X.reshape(len(X), -1)[:190], y[:190]


class Batches:
    """A loader of arrays of the host; it counts how often it is gone through."""

    def __init__(self, *arrays, batch_size=40):
        self.arrays, self.batch_size, self.passes = arrays, batch_size, 0

    def __len__(self):
        return math.ceil(len(self.arrays[0]) / self.batch_size)

    def __iter__(self):
        self.passes += 1
        for start in range(0, len(self.arrays[0]), self.batch_size):
            yield tuple(array[start : start + self.batch_size] for array in self.arrays)


class Stream(Batches):
    """The same without a length."""

    __len__ = None


def torch_loader(*arrays, streamed=False):
    """Return a `DataLoader`, which does not know its length if the data set is streamed."""
    data = pytest.importorskip("torch.utils.data")
    tensors = data.TensorDataset(*(pytest.importorskip("torch").tensor(array) for array in arrays))
    if not streamed:
        return data.DataLoader(tensors, batch_size=40)

    class Streamed(data.IterableDataset):
        def __iter__(self):
            return iter(tensors)

    return data.DataLoader(Streamed(), batch_size=40)


def tf_loader(*arrays, streamed=False):
    """Return a batched `tf.data.Dataset`, of unknown cardinality if it is streamed."""
    tf = pytest.importorskip("tensorflow")
    samples = tf.data.Dataset.from_tensor_slices(arrays)
    return (samples.filter(lambda *_: True) if streamed else samples).batch(40)


def gluon_loader(*arrays):
    """Return a `DataLoader` of gluon."""
    pytest.importorskip("mxnet")
    from mxnet import gluon

    return gluon.data.DataLoader(gluon.data.ArrayDataset(*arrays), batch_size=40)


LOADERS = {
    "host": Batches,
    "host stream": Stream,
    "torch": torch_loader,
    "torch stream": lambda *arrays: torch_loader(*arrays, streamed=True),
    "tf": tf_loader,
    "tf stream": lambda *arrays: tf_loader(*arrays, streamed=True),
    "gluon": gluon_loader,
}
SAME = {"torch": ("torch", "torch stream"), "tf": ("tf", "tf stream"), "mxnet": ("gluon",)}


def train(d2l, data, epochs=3, **options):
    model = d2l.DropoutMLPScratch(num_outputs=10, num_hiddens_1=16, num_hiddens_2=8, dropout_1=0, dropout_2=0, lr=0.5)
    trainer = Trainer(epochs, **{"seed": 0, "progress": False, **options})
    trainer.fit(model, data)
    return trainer


def check(d2l, make, arrays):
    """Train on a loader, and compare with the same batches from the host."""
    expected = train(d2l, (Batches(*arrays), Batches(*arrays)))
    trainer = train(d2l, (make(*arrays), make(*arrays)))
    for row, same in zip(trainer.history, expected.history, strict=True):
        assert {key: row[key] for key in ("train_loss", "val_acc")} == pytest.approx(
            {key: same[key] for key in ("train_loss", "val_acc")}, rel=1e-5
        )
    sizes = [min(40, len(arrays[0]) - k) for k in range(0, len(arrays[0]), 40)]
    assert trainer.num_train_batches == len(sizes)
    assert trainer.epoch_log["train_loss"][1] == sizes
    assert trainer.train_batch_idx == 3 * len(sizes)
    assert trainer.data.batch_size == 40


def test_a_loader_of_the_models_framework(d2l, arrays):
    for name in SAME.get(d2l.name, ("host stream",)):
        check(d2l, LOADERS[name], [array[:80] for array in arrays])  # of one size, as each size is compiled


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_of_another_framework(name, arrays):
    check(NUMPY, LOADERS[name], arrays)


def test_what_is_learnt_from_a_loader(arrays):
    trainer = train(NUMPY, (Batches(*arrays), Batches(*arrays)), epochs=30)
    assert trainer.history[-1]["val_acc"] > 0.7
    assert (trainer.predict(arrays[0]).argmax(axis=1) == arrays[1]).mean() == pytest.approx(
        trainer.history[-1]["val_acc"]
    )
    again = train(NUMPY, (Batches(*arrays), Batches(*arrays)), epochs=30)
    for key, value in NUMPY.get_weights(trainer.model).items():
        np.testing.assert_array_equal(NUMPY.get_weights(again.model)[key], value)


@pytest.mark.parametrize("labels", ["uint8", "int32", "int64", "float64"])
@pytest.mark.parametrize("inputs", ["uint8", "int64", "float16", "float32", "float64"])
def test_types_of_numbers_are_those_that_models_take(d2l, inputs, labels):
    """Floats become float32. Integers in inputs stay: they may be pixels, or words of a text."""
    loader = Batches(np.ones((50, 3), inputs), np.ones(50, labels))
    for X, y in LoaderData(loader, backend_name=d2l.name).train_dataloader():
        assert X.dtype == (inputs if "int" in inputs else "float32")
        assert y.dtype == (d2l.backend.label_dtype if "int" in labels else "float32")


def test_pixels_are_scaled_as_those_of_arrays(arrays):
    X, y = (arrays[0] * 255).astype(np.uint8), arrays[1]
    losses = [
        train(NUMPY, Batches(given, y), epochs=1).history[0]["train_loss"]
        for given in (X, (X / 255).astype(np.float32))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_loader_without_a_length_is_counted_in_the_first_epoch(arrays):
    seen, stream = [], Stream(*arrays)

    class Look(Callback):
        def on_refresh(self, trainer):
            seen.append(trainer.progressed)

    trainer = train(NUMPY, stream, epochs=2, callbacks=[Look()])
    assert stream.passes == 3  # no pass to count; one batch was looked at first
    assert seen[0] == seen[1] == 1
    assert seen[-1] == 2
    assert 1 < seen[2] < 2  # half of the second epoch
    assert trainer.model.board.curves["train_loss"][0] == [1, pytest.approx(1.6), 2]


def test_without_a_validation_loader_nothing_is_validated(arrays):
    trainer = train(NUMPY, Batches(*arrays), epochs=2)
    assert {key for key in trainer.history[0] if key.startswith("val_")} == set()
    with pytest.raises(DataError, match=r"Expected samples to validate on.*evaluate\(data=\)"):
        trainer.evaluate()
    assert trainer.evaluate(data=Batches(*arrays)) == pytest.approx(
        trainer.evaluate(data=(Batches(*arrays), Batches(*arrays)))
    )
    assert set(Trainer(1, progress=False).evaluate(trainer.model, Batches(*arrays))) == {"val_loss", "val_acc"}


def test_targets_of_a_regression_come_from_a_loader():
    X = np.random.default_rng(0).standard_normal((80, 3))
    model = NUMPY.DropoutMLPRegressor(num_outputs=1, num_hiddens=[8], dropouts=[0.0], lr=0.1)
    trainer = Trainer(10, seed=0, progress=False)
    trainer.fit(model, Batches(X, X.sum(axis=1)))
    assert trainer.history[-1]["train_loss"] < 0.3 * trainer.history[0]["train_loss"]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (Batches(np.zeros((9, 3), np.float32)), r"each a tuple \(X, y\)\. Received: 1 of them"),
        (Batches(np.full((9, 3), np.nan), np.zeros(9, int)), "inputs that are finite"),
        (Batches(np.zeros((9, 3)), np.full(9, 10)), r"labels up to 10: .*num_outputs=11"),
        (Batches(np.zeros((9, 3)), np.zeros(9)), "Expected classes for the classifier"),
        (Batches(np.zeros((0, 3)), np.zeros(0, int)), "at least one batch"),
        (Batches(np.zeros((90, 3)), np.zeros(50, int)), r"as many labels as samples.*\(40, 3\), \(10,\)"),
    ],
)
def test_batches_that_cannot_be_trained_on_are_refused(loader, message):
    with pytest.raises(DataError, match=message):
        train(NUMPY, (loader, loader))


def test_single_samples_are_refused(arrays):
    class Samples:
        def __iter__(self):
            return iter(zip(*arrays, strict=True))

    with pytest.raises(DataError, match=r"Received single ones: batch them, as by dataset\.batch\(32\)"):
        train(NUMPY, Samples())


def test_what_can_be_gone_through_once_is_refused(arrays):
    for once in (iter(Batches(*arrays)), (batch for batch in Batches(*arrays)), (Batches(*arrays), iter([]))):
        with pytest.raises(ArgumentError, match="Expected data that can be gone through again"):
            train(NUMPY, once)
    assert isinstance(iter([]), Iterator)


@pytest.mark.only_tf
def test_a_data_set_without_end_is_refused(d2l, arrays):
    for endless in (tf_loader(*arrays).repeat(), (tf_loader(*arrays), tf_loader(*arrays).repeat())):
        with pytest.raises(DataError, match=r"without end: leave repeat\(\) out, or add take\(n\)"):
            train(d2l, endless)
    assert batches_in(tf_loader(*arrays)) == BATCHES
    assert batches_in(tf_loader(*arrays, streamed=True)) == math.inf


@pytest.mark.only_torch
def test_the_order_of_a_shuffling_loader_follows_the_seed(d2l, arrays):
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(*map(torch.tensor, arrays)), batch_size=40, shuffle=True)
    losses = [train(d2l, loader, epochs=2, seed=seed).epoch_log["train_loss"][0] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_a_readers_data_module_may_return_a_loader_without_length(arrays):
    class Own(NUMPY.DataModule):
        batch_size = 40

        def get_dataloader(self, train):
            return Stream(*map(NUMPY.array, arrays))

    assert train(NUMPY, Own(), epochs=2).num_train_batches == BATCHES

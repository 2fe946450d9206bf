"""What is random, what decides on it, and what must not: seeds, callbacks, threads, forked processes, compilers."""

import multiprocessing
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import d2ldrop
from d2ldrop.randomness import HostGenerator, integer, of_epoch, streams
from d2ldrop.training.callbacks import Callback
from d2ldrop.training.trainer import Trainer

KINDS = ["DropoutMLPScratch", "DropoutMLP"]


def seed_framework(d2l, seed):
    """Seed the framework's own global generator, by its own function where it has one."""
    if d2l.name in ("torch", "tf", "mxnet"):
        framework = import_module({"torch": "torch", "tf": "tensorflow", "mxnet": "mxnet"}[d2l.name])
        {
            "torch": lambda: framework.manual_seed(seed),
            "tf": lambda: framework.keras.utils.set_random_seed(seed),
            "mxnet": lambda: framework.random.seed(seed),
        }[d2l.name]()
    else:
        d2l.seed(seed)


def fitted(d2l, hparams, *, kind="DropoutMLP", data=None, plots=2, epochs=2, **options):
    """Return all that two epochs gave: weights, losses of each step, history without times."""
    model, losses = getattr(d2l, kind)(**hparams), []
    model.plot_train_per_epoch = plots

    class Losses(Callback):
        def on_epoch_end(self, trainer):
            losses.append(list(trainer.epoch_log["train_loss"][0]))

    options["callbacks"] = [Losses(), *options.get("callbacks", ())]
    trainer = Trainer(epochs, progress=False, **options)
    trainer.fit(model, d2l.Digits() if data is None else data)
    history = [{k: v for k, v in row.items() if not k.startswith(("sec", "samples"))} for row in trainer.history]
    return d2l.get_weights(model), losses, history


def assert_same(one, other):
    assert one[1:] == other[1:]
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, other[0][name])


def from_a_loader(d2l):
    """Return digits whose batches come from a loader."""

    class Data(d2l.Digits):
        def get_dataloader(self, train):
            return super().get_dataloader(train)

    return Data(batch_size=256)


# The framework's own generator


@pytest.mark.parametrize("kind", KINDS)
def test_the_frameworks_seed_repeats_a_training_without_a_seed(d2l, small, kind):
    runs = []
    for seed in (3, 3, 4):
        seed_framework(d2l, seed)
        runs.append([fitted(d2l, small, kind=kind, seed=None) for _ in range(2)])
    for first, again in zip(*runs[:2], strict=True):
        assert_same(first, again)
    drawn = [runs[0][0], runs[0][1], runs[2][0]]  # the second training draws on, and another seed gives another one
    assert len({tuple(losses[0]) for _, losses, _ in drawn}) == 3


def test_the_frameworks_seed_repeats_a_training_from_a_loader(d2l, small):
    runs = []
    for _ in range(2):
        seed_framework(d2l, 3)
        runs.append(fitted(d2l, small, data=from_a_loader(d2l)))
    assert_same(*runs)


SCRIPT = """
import sys; sys.path.insert(0, {tests!r}); import toy_backend
import d2ldrop, test_randomness; d2l = d2ldrop.backend({name!r})
small = dict(num_outputs=10, num_hiddens_1=8, num_hiddens_2=8, dropout_1=0.25, dropout_2=0.5, lr=0.5)
print(repr(test_randomness.fitted(d2l, small)[1:]))
test_randomness.seed_framework(d2l, 5)
print(repr(test_randomness.fitted(d2l, small)[1:]))
"""


@pytest.mark.skip_toy
def test_processes_agree_where_the_framework_was_seeded_and_differ_where_not(d2l):
    code = SCRIPT.format(tests=str(Path(__file__).parent), name=d2l.name)
    command = [sys.executable, "-W", "ignore", "-c", code]
    one, other = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    (first, seeded), (other_first, other_seeded) = one.splitlines(), other.splitlines()
    assert seeded == other_seeded
    assert len({first, other_first, seeded}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_with_a_seed_leaves_the_frameworks_generator_unseeded(d2l, small, kind):
    """Otherwise all that is drawn after it would be the same in each process."""
    later = []
    for seed in (1, 2):
        seed_framework(d2l, seed)
        fitted(d2l, small, kind=kind, epochs=1, seed=0)
        later.append((d2l.backend.entropy(), d2l.numpy(d2l.rand(4)).tolist()))
    assert later[0][0] != later[1][0]
    assert later[0][1] != later[1][1]


def test_evaluation_and_prediction_draw_nothing(d2l, small):
    model, trainer, data = d2l.DropoutMLP(**small), Trainer(1, seed=0, progress=False), from_a_loader(d2l)
    trainer.fit(model, data)
    drawn = []
    for evaluates in (False, True):
        seed_framework(d2l, 3)
        if evaluates:
            trainer.evaluate()
            trainer.predict(d2l.Digits().split(False, d2l.channels_last).X[:5])
            list(data.val_dataloader())
        drawn.append((d2l.backend.entropy(), d2l.numpy(d2l.dropout_layer(d2l.ones((64,)), 0.5)).tolist()))
    assert drawn[0] == drawn[1]


# The function edition


def labels_of(d2l, loader):
    return [d2l.numpy(y).tolist() for _, y in loader]


def test_a_loader_follows_the_frameworks_seed(d2l):
    passes = []
    for seed in (3, 3, 4):
        loader = d2l.Digits(batch_size=500).train_dataloader()
        seed_framework(d2l, seed)
        passes.append([labels_of(d2l, loader) for _ in range(2)])
    assert passes[0] == passes[1] != passes[2]
    assert passes[0][0] != passes[0][1]


def test_the_function_edition_follows_the_frameworks_seed(d2l, own):
    """With dropout by hand, and by a layer of the framework."""
    for make in (own.scratch_net, own.concise_net):
        rows = []
        for seed in (3, 3, 4):
            seed_framework(d2l, seed)
            made = make(d2l, 0.5)
            _, loss = own.concise_net(d2l, 0.5).losses
            loader = d2l.Digits(batch_size=300).train_dataloader()
            rows.append([d2l.train_epoch_ch3(made.net, loader, loss, made.updater) for _ in range(2)])
        assert rows[0] == rows[1] != rows[2]


def test_load_data_fashion_mnist_takes_a_seed(d2l, fashion_mnist):
    first, again, other = (d2l.load_data_fashion_mnist(20_000, seed=seed)[0] for seed in (1, 1, 2))
    passes = [labels_of(d2l, first) for _ in range(2)]
    assert passes[0] != passes[1]
    assert [labels_of(d2l, again) for _ in range(2)] == passes
    assert labels_of(d2l, other) != passes[0]
    for wrong in (-1, "7"):
        with pytest.raises(d2ldrop.D2LDropError, match=r"Expected seed to be .* Received: "):
            d2l.load_data_fashion_mnist(256, seed=wrong)


# What must not matter


class Meddler(Callback):
    """Draws, seeds, looks at data and evaluates, wherever a callback can."""

    def __init__(self, d2l):
        self.d2l = d2l

    def meddle(self, trainer):
        d2l = self.d2l
        d2l.dropout_layer(d2l.ones((3, 5)), 0.5)
        if d2l.name != "mxnet" or not trainer.midway:
            d2l.rand(7)
            seed_framework(d2l, 1)
        list(trainer.train_dataloader)
        trainer.evaluate()

    def on_fit_start(self, trainer):
        trainer.midway = False
        self.meddle(trainer)

    def on_epoch_start(self, trainer):
        self.meddle(trainer)

    def on_epoch_end(self, trainer):
        self.meddle(trainer)

    def on_refresh(self, trainer):
        trainer.midway = True  # there, MXNet's own generator, which cannot be read, is not put back
        self.meddle(trainer)
        trainer.midway = False


@pytest.mark.parametrize(
    ("kind", "resident", "shared_masks"),
    [
        pytest.param("DropoutMLP", True, False, id="concise"),
        pytest.param("DropoutMLPScratch", False, False, id="scratch, from a loader"),
        pytest.param("DropoutMLPScratch", True, True, id="scratch, shared masks"),
    ],
)
def test_callbacks_and_the_board_do_not_change_a_training(d2l, small, kind, resident, shared_masks):
    data = d2l.Digits(batch_size=256) if resident else from_a_loader(d2l)
    options = {"kind": kind, "data": data, "seed": 0, "shared_masks": shared_masks}
    plain = fitted(d2l, small, **options)
    seed_framework(d2l, 9)
    assert_same(plain, fitted(d2l, small, callbacks=[Meddler(d2l)], **options))
    refreshed = fitted(d2l, small, plots=5, **options)
    for name, value in plain[0].items():
        np.testing.assert_array_equal(value, refreshed[0][name])


def test_each_epoch_has_masks_of_its_own(d2l, small):
    """With one batch, always the same, and weights that stay, only the masks make a difference."""
    for kind in KINDS:
        X, y = np.ones((64, 16), np.float32), np.arange(64) % 10
        data = d2l.ArrayData(X, y, X, y, batch_size=64)
        losses = fitted(d2l, {**small, "lr": 1e-12}, kind=kind, data=data, epochs=4, seed=0)[1]
        assert len({loss for epoch in losses for loss in epoch}) == 4


def test_an_epoch_needs_none_before_it():
    stream = streams(3).order
    assert of_epoch(stream, 0) is stream
    seeds = [integer(of_epoch(stream, epoch)) for epoch in range(100)]
    assert len(set(seeds)) == 100
    assert integer(of_epoch(streams(3).order, 50)) == seeds[50] != integer(of_epoch(streams(3).dropout, 50))


@pytest.mark.skip_torch
@pytest.mark.skip_mxnet
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_in_threads_that_train_at_once(d2l, small, kind):
    """PyTorch's and MXNet's generators belong to the process."""
    alone, results = fitted(d2l, small, kind=kind, seed=0), {}
    together = threading.Barrier(3)

    class Wait(Callback):
        def on_epoch_start(self, trainer):
            together.wait(60)

    def run(i):
        results[i] = fitted(d2l, small, kind=kind, seed=0, callbacks=[Wait()])

    threads = [threading.Thread(target=run, args=[i]) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        assert_same(alone, results[i])


# Forked processes


def _draw(generator, queue):
    queue.put(generator.rng.integers(2**63))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:os.fork:RuntimeWarning")
@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.only_numpy
@pytest.mark.only_jax
@pytest.mark.only_mxnet
def test_forked_processes_draw_what_no_other_does(d2l, isolated):
    """The children draw from the generators that belong to the adapters; a framework itself may not bear a fork."""
    where = {"numpy": ("arrays", "generator"), "jax": ("keys", "generator"), "mxnet": ("arrays", "host_generator")}
    module, name = where[d2l.name]
    generator = getattr(import_module(f"d2ldrop.{d2l.name}.{module}"), name)
    assert isinstance(generator, HostGenerator)
    d2l.seed(0)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def draw_in_children():
        children = [context.Process(target=_draw, args=(generator, queue)) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        return [queue.get() for _ in children] + [generator.rng.integers(2**63)]

    if isolated:
        with generator.isolated():
            drawn = draw_in_children()
    else:
        drawn = draw_in_children()
    assert len(set(drawn)) == 5


# Compilers


@pytest.mark.only_tf
def test_a_numpy_array_in_a_compiled_function_of_tensorflow(d2l):
    import tensorflow as tf

    X = np.ones(64, np.float32)
    for dropout_layer in (d2l.dropout_layer, d2ldrop.dropout_layer):
        compiled = tf.function(lambda layer=dropout_layer: layer(X, 0.5), autograph=False)
        assert len({tuple(compiled().numpy()) for _ in range(4)}) == 4
    assert isinstance(d2ldrop.dropout_layer(X, 0.5), np.ndarray)


@pytest.mark.only_jax
def test_a_numpy_array_in_a_compiled_function_of_jax(d2l):
    import jax

    X = np.ones(64, np.float32)
    for layer, error, message in (
        (d2ldrop.dropout_layer, d2ldrop.UsageError, "Expected a key for dropout_layer"),
        (d2l.dropout_layer, d2ldrop.ArgumentTypeError, "Expected X to be an array of jax"),
    ):
        with pytest.raises(error, match=message):
            jax.jit(lambda layer=layer: layer(X, 0.5))()
    assert isinstance(d2ldrop.dropout_layer(X, 0.5), np.ndarray)

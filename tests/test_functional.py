"""The function edition: nets are the framework's own, or plain functions; dropout is on while they train."""

import importlib
import time

import numpy as np
import pytest

import d2ldrop

NETS = ["concise_net", "scratch_net"]


def iterators(d2l, batch_size=64):
    data = d2l.Digits(batch_size)
    return data.train_dataloader(), data.val_dataloader()


@pytest.mark.parametrize("make", NETS)
def test_dropout_is_on_in_training_and_off_in_evaluation(d2l, own, make):
    parts, (train_iter, test_iter) = getattr(own, make)(d2l, 0.5), iterators(d2l)
    zeros = []

    def note(outputs):
        zeros.append(float((np.asarray(outputs) == 0).mean()))

    loss = own.spied(d2l, own.concise_net(d2l, 0).losses[0], note)
    d2l.train_epoch_ch3(parts.net, train_iter, loss, parts.updater)
    own.finish()
    assert len(zeros) == 23
    assert min(zeros) > 0.4
    assert max(zeros) < 0.6
    zeros.clear()
    d2l.evaluate_loss(parts.net, test_iter, loss)
    own.finish()
    assert zeros == [0] * 6


@pytest.mark.parametrize("make", NETS)
def test_losses_averaged_and_per_sample_are_one(d2l, own, make):
    """They report the same mean loss, also over a last batch that is shorter, and train the same."""
    results = []
    for which in (0, 1):
        d2l.seed(0)
        parts, data = getattr(own, make)(d2l, 0.0), d2l.Digits(batch_size=100)
        loss = own.concise_net(d2l, 0).losses[which]
        ordered = list(data.val_dataloader())
        before = d2l.evaluate_loss(parts.net, ordered, loss)
        train_loss, train_acc = d2l.train_epoch_ch3(parts.net, ordered, loss, parts.updater)
        results.append((train_loss, train_acc, d2l.evaluate_loss(parts.net, ordered, loss) - before))
    if make == "scratch_net":  # its weights are the same each time
        assert results[0] == pytest.approx(results[1], rel=1e-5)
    for train_loss, train_acc, gain in results:
        assert 0.5 < train_loss < 3
        assert 0 <= train_acc <= 1
        assert gain < 0


@pytest.mark.parametrize("make", NETS)
def test_train_and_predict(d2l, own, make):
    parts, (train_iter, test_iter) = getattr(own, make)(d2l, 0.2), iterators(d2l)
    history = d2l.train_ch3(parts.net, train_iter, test_iter, own.concise_net(d2l, 0).losses[0], 5, parts.updater)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert set(history[0]) == {"epoch", "train_loss", "train_acc", "test_acc"}
    assert history[-1]["test_acc"] > 0.8
    assert history[-1]["test_acc"] == pytest.approx(d2l.evaluate_accuracy(parts.net, test_iter))
    axes = d2l.predict_ch3(parts.net, test_iter, n=4)
    assert len(axes) == 4
    assert "\n" in axes[0].get_title()
    assert axes[0].images[0].get_array().shape == (8, 8)


def test_accuracy_counts_correct_predictions(d2l):
    Y_hat = d2l.array(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], np.float32))
    y = d2l.array(np.array([1, 1, 1], np.int32))
    assert d2l.accuracy(Y_hat, y) == 2.0
    assert d2l.accuracy(d2l.array(np.array([1, 0, 1], np.int32)), y) == 2.0


@pytest.mark.only_numpy
@pytest.mark.only_jax
def test_train_epoch_ch3_rejects_nets_without_gradients(d2l, own):
    train_iter, _ = iterators(d2l)
    loss = own.concise_net(d2l, 0).losses[0]
    with pytest.raises(d2ldrop.UsageError, match=r"Expected a net.* Received.*function"):
        d2l.train_epoch_ch3(lambda X: X, train_iter, loss, lambda batch_size: None)


@pytest.mark.only_numpy
def test_cross_entropy_loss_gradient(d2l):
    rng = np.random.default_rng(0)
    Z, y, step = rng.normal(size=(4, 3)), np.array([0, 2, 1, 1]), 1e-6
    for averaged in (False, True):
        loss, measured = d2l.CrossEntropyLoss(averaged), np.zeros_like(Z)
        for index in np.ndindex(*Z.shape):
            shift = np.zeros_like(Z)
            shift[index] = step
            measured[index] = (np.sum(loss(Z + shift, y)) - np.sum(loss(Z - shift, y))) / (2 * step)
        assert np.shape(loss(Z, y)) == (() if averaged else (4,))
        np.testing.assert_allclose(loss.backward(), measured, atol=1e-8)


@pytest.mark.only_jax
def test_net_keeps_the_optimiser_state(d2l):
    optax = importlib.import_module("optax")
    net, momentum = d2l.Net(lambda params, X, key: X * params["w"], {"w": d2l.zeros(())}), optax.sgd(1.0, momentum=0.5)
    for expected in (-1, -2.5, -4.25):
        net.update(momentum, {"w": d2l.ones(())})
        assert float(net.params["w"]) == expected
    net.update(optax.sgd(1.0), {"w": d2l.ones(())})  # another one has a new state
    assert float(net.params["w"]) == -5.25


@pytest.mark.only_jax
def test_masks_are_new_at_each_step_of_a_compiled_net(d2l):
    jax, zeros = importlib.import_module("jax"), []

    @jax.jit
    def function(params, X, key=None):
        return params * (X if key is None else d2l.dropout_layer(X, 0.5, key=key))

    net, X = d2l.Net(function, d2l.ones(())), d2l.ones((100, 10))
    for _ in range(3):
        _, y_hat = d2l.learn(net, X, d2l.zeros((100,)), lambda y_hat, y: y_hat.mean(), lambda batch_size, grads: None)
        zeros.append(d2l.numpy(y_hat) == 0)
    assert all(0.4 < mask.mean() < 0.6 for mask in zeros)
    assert not (zeros[0] == zeros[1]).all()
    assert not (zeros[1] == zeros[2]).all()
    assert (net(X) == X).all()


def test_load_data_fashion_mnist(d2l, fashion_mnist, monkeypatch):
    monkeypatch.setenv("D2LDROP_DATA", str(fashion_mnist))
    train_iter, test_iter = d2l.load_data_fashion_mnist(256)
    assert (len(train_iter), len(test_iter)) == (235, 40)
    first, second = (d2l.numpy(next(iter(train_iter))[1]).tolist() for _ in range(2))
    assert first != second
    assert d2l.get_fashion_mnist_labels(next(iter(test_iter))[1])[0] == "ankle boot"


def test_timer(d2l):
    timer = d2l.Timer()
    time.sleep(0.01)
    assert timer.stop() >= 0.01
    timer.start()
    timer.stop()
    assert timer.sum() == pytest.approx(timer.cumsum()[-1])
    assert timer.avg() == pytest.approx(timer.sum() / 2)


def test_accumulator_and_animator(d2l):
    metric = d2l.Accumulator(2)
    metric.add(1, d2l.ones((1,))[0])
    metric.add(2.5, 1)
    assert (metric[0], metric[1]) == (3.5, 2)
    metric.reset()
    assert metric[0] == 0
    animator = d2l.Animator(legend=["a", "b"], nrows=2, ncols=2)
    animator.add(1, (2, None))
    animator.add(2, (3, 4))
    animator.add(3, 5)
    assert animator.board.curves == {"a": ([1, 2, 3], [2, 3, 5]), "b": ([2], [4])}


def test_evaluation_weighs_samples_not_batches(d2l, own):
    scores, labels = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]], np.zeros(4, d2l.backend.label_dtype)
    batches = [(d2l.array(scores[part]), d2l.array(labels[part])) for part in (slice(0, 3), slice(3, 4))]
    assert d2l.evaluate_accuracy(lambda X: X, batches) == 0.75
    losses = [
        d2l.evaluate_loss(lambda X: X, part, own.concise_net(d2l, 0).losses[0]) for part in ([b] for b in batches)
    ]
    loss = d2l.evaluate_loss(lambda X: X, batches, own.concise_net(d2l, 0).losses[0])
    assert loss == pytest.approx((3 * losses[0] + losses[1]) / 4)
    assert losses[0] != pytest.approx(losses[1])


@pytest.mark.parametrize("make", NETS)
def test_training_weighs_samples_not_batches(d2l, own, make):
    """A last batch of one sample must not weigh as much as a whole one; with lr 0, the net stays as it is."""
    loss, (X, y) = own.concise_net(d2l, 0).losses[0], next(iter(d2l.Digits(batch_size=61).val_dataloader()))
    parts = getattr(own, make)(d2l, 0.0, lr=0.0)

    def epoch(*batches):
        return d2l.train_epoch_ch3(parts.net, batches, loss, parts.updater)

    whole, ends = (X[:60], y[:60]), [(X[60:], 0 * y[60:] + label) for label in range(10)]
    end = max(ends, key=lambda end: epoch(end)[1])  # its label is the predicted one
    (first, first_acc), (last, last_acc) = epoch(whole), epoch(end)
    mean, mean_acc = epoch(whole, end)
    assert abs(first - last) > 1e-3  # far more than rounding
    assert last_acc == 1 > first_acc
    assert mean == pytest.approx((60 * first + last) / 61, rel=1e-5)
    assert mean_acc == pytest.approx((60 * first_acc + last_acc) / 61, rel=1e-5)


def test_predictions_have_the_true_label_above_the_predicted_one(d2l):
    images = d2l.array(np.zeros((2, 1, 2, 2), np.float32))
    guesses = d2l.array(np.eye(10, dtype=np.float32)[[3, 9]])
    axes = d2l.predict_ch3(lambda X: guesses, [(images, d2l.array(np.array([0, 9], np.int32)))], n=2)
    assert [axis.get_title() for axis in axes] == ["t-shirt\ndress", "ankle boot\nankle boot"]

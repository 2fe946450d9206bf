"""An optimiser's memory as plain arrays: read, set in another one, and training goes on as it would have."""

import importlib

import numpy as np
import pytest

BATCH, STEPS = 100, 14


def tf_optimizers():
    keras = importlib.import_module("keras")
    return {
        "adam": lambda: keras.optimizers.Adam(0.01),
        "momentum and a schedule": lambda: keras.optimizers.SGD(
            keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5), momentum=0.9
        ),
        "nadam": lambda: keras.optimizers.Nadam(0.01),
    }


def mxnet_optimizers():
    from d2ldrop.mxnet.arrays import mx

    return {
        "adam": lambda: mx.optimizer.Adam(learning_rate=0.01),
        "momentum and a schedule": lambda: mx.optimizer.SGD(
            momentum=0.9, lr_scheduler=mx.lr_scheduler.FactorScheduler(step=5, factor=0.5, base_lr=0.1)
        ),
        "nadam": lambda: mx.optimizer.Nadam(learning_rate=0.01),  # which has a product of numbers, too
    }


def made(d2l, kind, optimizer):
    """Return a model without dropout, with an optimiser of a kind."""

    class Model(getattr(d2l, kind)):
        def configure_optimizers(self):
            if d2l.name == "mxnet":
                from d2ldrop.mxnet.arrays import mx

                return mx.gluon.Trainer(self.parameters(), mxnet_optimizers()[optimizer]())
            return tf_optimizers()[optimizer]()

    return Model(num_outputs=10, num_hiddens_1=16, num_hiddens_2=8, dropout_1=0, dropout_2=0, lr=0.1)


@pytest.fixture
def samples(d2l):
    X, y = d2l.Digits().split(True, d2l.channels_last)
    return d2l.backend.place([X.astype(np.float32) / 255, y.astype(d2l.backend.label_dtype)], d2l.cpu())


def trained(d2l, state, samples, steps):
    """Take some steps of an epoch, and return the new state."""
    order = np.concatenate([np.arange(BATCH) + BATCH * step for step in steps])
    return d2l.backend.train_epoch(state, samples, order, BATCH, 0)[0]


@pytest.mark.only_tf
@pytest.mark.only_mxnet
@pytest.mark.parametrize("optimizer", ["adam", "momentum and a schedule", "nadam"])
@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_training_goes_on_from_copied_weights_and_optimizer_state(d2l, samples, kind, optimizer):
    backend = d2l.backend
    model = made(d2l, kind, optimizer)
    backend.build(model, (samples[0][:2],), d2l.cpu())
    state = trained(d2l, backend.init_state(model, 0), samples, range(STEPS // 2))
    weights, arrays = d2l.get_weights(model), backend.optimizer_state(state)
    assert all(isinstance(value, np.ndarray) for value in arrays.values())

    others = [made(d2l, kind, optimizer) for _ in range(4)]  # names that count on from model to model must not matter
    for other in others:
        backend.build(other, (samples[0][:2],), d2l.cpu())
        d2l.set_weights(other, weights)
    fresh, without = backend.init_state(others[-1], 1), backend.init_state(others[0], 1)
    before = {name: value.shape for name, value in backend.optimizer_state(fresh).items()}
    assert before == {name: value.shape for name, value in arrays.items()}
    backend.set_optimizer_state(fresh, arrays)
    for name, value in backend.optimizer_state(fresh).items():
        np.testing.assert_array_equal(value, arrays[name], err_msg=name)

    for each in (state, fresh, without):
        trained(d2l, each, samples, range(STEPS // 2, STEPS))
    expected, forgotten = d2l.get_weights(model), d2l.get_weights(others[0])
    for name, value in d2l.get_weights(others[-1]).items():
        assert value.tobytes() == expected[name].tobytes()
    assert any((value != expected[name]).any() for name, value in forgotten.items())


@pytest.mark.only_tf
@pytest.mark.only_mxnet
def test_an_optimizer_state_is_a_copy(d2l, samples):
    model = made(d2l, "DropoutMLPScratch", "adam")
    d2l.backend.build(model, (samples[0][:2],), d2l.cpu())
    state = trained(d2l, d2l.backend.init_state(model, 0), samples, range(2))
    arrays = d2l.backend.optimizer_state(state)
    before = {name: value.copy() for name, value in arrays.items()}
    trained(d2l, state, samples, range(2))
    for name, value in before.items():
        np.testing.assert_array_equal(value, arrays[name])
    assert any((value != arrays[name]).any() for name, value in d2l.backend.optimizer_state(state).items())


@pytest.mark.only_tf
@pytest.mark.only_mxnet
def test_the_state_of_an_optimizer_by_hand_is_in_its_attributes(d2l, samples):
    class Model(d2l.SoftmaxRegression):
        def configure_optimizers(self):
            optim = d2l.SGD(self.parameters(), self.lr) if d2l.name == "mxnet" else d2l.SGD(self.lr)
            optim.memory = {"velocity": [d2l.ones((2, 3))], "steps": 7, "name": "by hand", "nesterov": True}
            return optim

    model = Model(num_outputs=10, lr=0.1)
    d2l.backend.build(model, (samples[0][:2],), d2l.cpu())
    state = d2l.backend.init_state(model, 0)
    saved = d2l.backend.optimizer_state(state)
    assert saved.keys() == {"lr", "memory.velocity.0", "memory.steps"}
    changed = {name: value + 1 for name, value in saved.items()}
    state = d2l.backend.set_optimizer_state(state, changed)
    assert state.optim.memory["steps"] == 8
    for name, value in d2l.backend.optimizer_state(state).items():
        np.testing.assert_array_equal(value, changed[name])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_goes_on_from_the_state_of_each_optimizer_of_ours(d2l, optimizer):
    backend = d2l.backend
    settings = {"optimizer": optimizer, "weight_decay": 0.01, "momentum": 0.9 if optimizer == "sgd" else 0.0}
    X, y = d2l.Digits().split(True, d2l.channels_last)
    data = backend.place([X.astype(np.float32) / 255, y.astype(backend.label_dtype)], d2l.cpu())

    def started():
        model = d2l.SoftmaxRegression(num_outputs=10, lr=0.01, **settings)
        backend.build(model, (data[0][:2],), d2l.cpu())
        return model, backend.init_state(model, 0)

    (model, state), (other, fresh) = started(), started()
    state = trained(d2l, backend.set_lr(state, 0.02), data, range(3))
    d2l.set_weights(other, d2l.get_weights(model))
    fresh = backend.set_optimizer_state(fresh, backend.optimizer_state(state))
    without = d2l.get_weights(other)
    for each in (state, fresh):
        trained(d2l, each, data, range(3, 6))
    expected = d2l.get_weights(model)
    for name, value in d2l.get_weights(other).items():
        assert value.tobytes() == expected[name].tobytes()
        assert (value != without[name]).any()

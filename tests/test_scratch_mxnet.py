"""Models in MXNet whose parameters are plain arrays with gradients: trained, clipped, kept, saved and resumed."""

import copy
import subprocess
import sys

import numpy as np
import pytest

import d2ldrop

pytestmark = [pytest.mark.only_mxnet, pytest.mark.usefixtures("d2l")]
d2l = pytest.importorskip("d2ldrop.mxnet", exc_type=ImportError)
mx = pytest.importorskip("d2ldrop.mxnet.arrays", exc_type=ImportError).mx
nn, autograd = mx.gluon.nn, mx.autograd


class Scratch(d2l.Classifier):
    """Softmax regression on the digits; `options` are the optimiser's settings."""

    def __init__(self, lr=0.1, **options):
        super().__init__()
        self.save_hyperparameters()
        self.W, self.b = d2l.randn(64, 10) * 0.1, d2l.zeros(10)
        for param in self.get_scratch_params():
            param.attach_grad()

    def forward(self, X):
        return d2l.matmul(X.reshape(-1, 64), self.W) + self.b


class Listed(Scratch):
    """The same with its parameters in a list, of which Gluon knows nothing."""

    def __init__(self, lr=0.1):
        super().__init__(lr)
        self.layers = [self.W, ({"b": self.b},)]
        del self.W, self.b

    def collect_params(self):
        return [self.layers[0], self.layers[1][0]["b"]]

    def forward(self, X):
        return d2l.matmul(X.reshape(-1, 64), self.layers[0]) + self.layers[1][0]["b"]


class Mixed(Scratch):
    """A layer of Gluon, and a scale that is an array; another array is no parameter."""

    def __init__(self, lr=0.1):
        super().__init__(lr)
        self.net, self.mean = nn.Dense(10), d2l.ones(10)
        self.net.initialize()

    def forward(self, X):
        return self.net(X) * d2l.exp(self.b) - self.mean + 0 * self.W.sum()


def fitted(model, epochs=1, **settings):
    trainer = d2l.Trainer(epochs, seed=0, progress=False, **settings)
    trainer.fit(model, d2l.Digits(batch_size=64))
    return trainer


@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"optimizer": "adam"}, {"optimizer": "adamw"}], ids=str
)
def test_arrays_take_the_steps_that_a_layer_takes(options):
    layer, arrays = d2l.SoftmaxRegression(num_outputs=10, lr=0.01, **options), Scratch(lr=0.01, **options)
    d2l.backend.build(layer, (np.zeros((1, 64), np.float32),), d2l.cpu())
    arrays.W[:], arrays.b[:] = layer.net[0].weight.data().T, layer.net[0].bias.data()
    start = arrays.W.copy()
    fitted(arrays), fitted(layer)
    assert np.abs(arrays.W - start).max() > 1e-3
    np.testing.assert_allclose(arrays.W.asnumpy(), layer.net[0].weight.data().asnumpy().T, atol=1e-4)


@pytest.mark.parametrize(("kind", "names"), [(Listed, ["layers.0", "layers.1.0.b"]), (Scratch, ["W", "b"])])
def test_arrays_are_trained_saved_and_copied(kind, names, tmp_path):
    model = kind()
    start = d2l.get_weights(model)
    assert [*start] == names
    trainer = fitted(model, epochs=3)
    assert trainer.history[-1]["val_acc"] > 0.6
    weights = d2l.get_weights(model)
    assert all(np.abs(weights[name] - start[name]).max() > 0 for name in names)
    d2ldrop.save_weights(model, tmp_path / "w.safetensors")
    other = kind()
    d2ldrop.load_weights(other, tmp_path / "w.safetensors")
    X = d2l.rand(5, 64)
    for same in (other, copy.deepcopy(model)):
        assert (same(X) == model(X)).all()
        assert [array.grad is None for array in same.parameters()] == [False, False]


def test_parameters_that_only_collect_params_knows_are_kept():
    W = d2l.zeros((64, 10))
    W.attach_grad()

    class Outside(d2l.Classifier):
        lr = 1e38

        def collect_params(self):
            return [W]

        def forward(self, X):
            return d2l.matmul(X.reshape(-1, 64), W)

    with pytest.raises(d2ldrop.errors.DivergedError):
        fitted(Outside())
    assert (W == 0).all()
    assert [*d2l.get_weights(Outside())] == ["params.0"]


def test_after_divergence_arrays_are_what_they_were():
    model = Scratch(lr=1e38)
    start = model.W.copy()
    with pytest.raises(d2ldrop.errors.DivergedError):
        fitted(model)
    np.testing.assert_array_equal(model.W.asnumpy(), start.asnumpy())


def test_layers_and_arrays_are_trained_together():
    model = Mixed()
    trainer = fitted(model, epochs=2)
    assert trainer.history[-1]["val_acc"] > 0.6
    assert {*d2l.get_weights(model)} == {"lin1.weight", "lin1.bias", "W", "b"}
    assert np.abs(model.b).max() > 0
    assert (model.mean == 1).all()
    assert len(d2l.SGD(model.parameters(), lr=0.1).params) == 4


@pytest.mark.parametrize("kind", [Scratch, Mixed, Listed])
def test_gradients_of_arrays_are_clipped(kind):
    model = kind(lr=1.0)
    model.apply_init((d2l.zeros((1, 64)),))
    start = d2l.get_weights(model)
    steps = len(d2l.Digits(batch_size=64).train_dataloader())
    fitted(model, gradient_clip_val=1e-3)
    moved = sum(float(((value - start[name]) ** 2).sum()) for name, value in d2l.get_weights(model).items()) ** 0.5
    assert 0 < moved < 1.01e-3 * steps


class Heavy(d2l.HyperParameters):
    """An optimiser by hand with velocities."""

    def __init__(self, params, lr):
        self.save_hyperparameters()
        self.velocities = [d2l.zeros_like(param) for param in params]

    def step(self, _):
        for param, velocity in zip(self.params, self.velocities, strict=True):
            velocity[:] = 0.9 * velocity + param.grad
            param -= self.lr * velocity


def by_hand(model):
    return Heavy(model.parameters(), model.lr)


def plain(model):
    return d2l.SGD(model.parameters(), model.lr)


def scheduled(model):
    schedule = mx.lr_scheduler.FactorScheduler(step=10, factor=0.5, base_lr=0.1)
    return mx.gluon.Trainer(model.collect_params(), "sgd", {"lr_scheduler": schedule, "momentum": 0.9})


class Concise(d2l.Classifier):
    lr = 0.1

    def __init__(self):
        super().__init__()
        self.net = nn.Dense(10)
        self.net.initialize()


CASES = [(Scratch, plain), (Scratch, by_hand), (Listed, by_hand), (Scratch, None), (Mixed, None), (Concise, scheduled)]


@pytest.mark.parametrize(("kind", "optimizer"), CASES, ids=lambda case: getattr(case, "__name__", "default"))
def test_a_resumed_training_ends_with_the_same_weights(kind, optimizer, tmp_path):
    def training(epochs, **resume):
        mx.random.seed(1)
        model = kind()
        if optimizer is not None:
            model.configure_optimizers = lambda: optimizer(model)
        elif kind is Scratch:
            model.momentum = 0.9
        trainer = d2l.Trainer(epochs, seed=0, progress=False, callbacks=[d2ldrop.Checkpoint(tmp_path / str(resume))])
        trainer.fit(model, d2l.Digits(batch_size=128), **resume)
        return trainer

    whole = training(3)
    (tmp_path / "{}").rename(tmp_path / "whole")
    training(1)
    resumed = training(3, resume=tmp_path / "{}")
    assert len(resumed.history) == 3
    for name, value in d2l.get_weights(whole.model).items():
        assert (d2l.get_weights(resumed.model)[name] == value).all(), name
    if optimizer is scheduled:
        assert whole.optim.learning_rate == resumed.optim.learning_rate == pytest.approx(0.1 * 0.5**3)


def test_arrays_without_gradients_are_refused():
    model = Scratch()
    model.W, model.b = model.W.copy(), model.b.copy()
    with pytest.raises(d2ldrop.errors.UsageError, match=r"attach_grad\(\)"):
        fitted(model)


def test_arguments_are_no_parameters():
    class Scaled(Scratch):
        def __init__(self, scale, lr=0.1):
            super().__init__(lr)
            self.save_hyperparameters()

        def forward(self, X):
            return super().forward(X) * self.scale

    model = Scaled(scale=d2l.ones(10))
    assert [array.shape for array in model.get_scratch_params()] == [(64, 10), (10,)]
    fitted(model)
    assert (model.scale == 1).all()


def test_arrays_move_to_a_device():
    class Nested(d2l.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.net, self.constant = Scratch(), nn.Sequential(), d2l.ones(2)
            self.net.add(Scratch())
            self.again = self.inner.W
            self.inner.parents = [self]

    model, device = Nested(), mx.cpu(1)
    values = [array.asnumpy() for array in model.get_scratch_params()]
    assert len(values) == 5
    model.set_scratch_params_device(device)
    assert model.again is model.inner.W
    for array, value in zip(model.get_scratch_params(), values, strict=True):
        assert array.ctx == device
        assert (array.asnumpy() == value).all()
    with autograd.record():
        loss = model.inner(d2l.ones((1, 64)).as_in_ctx(device)).sum()
    loss.backward()
    assert (model.inner.b.grad == 1).all()
    assert model.inner.b.grad.ctx == device
    assert model.constant.grad is None
    model.tied = (d2l.ones(2),)
    with pytest.raises(d2ldrop.errors.UsageError, match="tuple"):
        model.set_scratch_params_device(device)


def test_parameters_in_a_list_are_built_and_saved():
    """Gluon itself saves only parameters that are attributes."""

    class Parts(d2l.Classifier):
        lr = 0.1

        def __init__(self):
            super().__init__()
            self.parts = [self.params.get(f"W{k}", shape=(64, 10)) for k in range(2)]

        def forward(self, X):
            return sum(d2l.matmul(X.reshape(-1, 64), part.data()) for part in self.parts)

    model = Parts()
    fitted(model)
    assert [*d2l.get_weights(model)] == ["W0", "W1"]
    assert (copy.deepcopy(model)(d2l.ones((1, 64))) == model(d2l.ones((1, 64)))).all()


def test_shapes_are_numbers_or_a_tuple():
    for draw in (d2l.rand, d2l.randn):
        assert draw(2, 5).shape == draw((2, 5)).shape == (2, 5)
        assert draw().shape == ()
        assert draw((2, 5), dtype="float64").dtype == np.float64
    assert d2l.swapaxes(d2l.zeros((2, 5)), 0, 1).shape == (5, 2)


IMPORTS = """
try:
    import mxnet
except AttributeError:  # numpy.bool
    pass
from d2ldrop import compat
compat.install()
import inspect, mxnet, numpy
from d2l import mxnet as d2l
assert inspect.getsource(mxnet)
assert not hasattr(numpy, "bool")
assert d2l.ones(2).sum() == 2
"""


def test_after_install_mxnet_can_be_imported_first():
    """Also where it was tried before, in vain."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_arrays_whose_names_would_be_the_same_are_all_kept():
    class Alike(Scratch):
        def __init__(self, lr=0.1):
            super().__init__(lr)
            self.layers = {0: self.W, "0": self.b}
            del self.W, self.b

        def forward(self, X):
            return d2l.matmul(X.reshape(-1, 64), self.layers[0]) + self.layers["0"]

    assert {name: w.shape for name, w in d2l.get_weights(Alike()).items()} == {"layers.0": (64, 10), "layers.0_": (10,)}

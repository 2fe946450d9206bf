"""Models in PyTorch whose parameters are plain tensors: trained, kept, moved, saved and put back like any other."""

import copy
import pickle

import numpy as np
import pytest

import d2ldrop
from d2ldrop import Trainer

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = pytest.mark.only_torch
w, b = np.array([2, -3.4], np.float32), 4.2


class Scale(nn.Module):
    """A layer, which is no `Module` of ours, with a plain tensor."""

    def __init__(self):
        super().__init__()
        self.factor = torch.ones(1, requires_grad=True)

    def forward(self, X):
        return X * self.factor


def nested(d2l):
    """Return a model with plain tensors in a list, under two names, and in a layer inside."""

    class Nested(d2l.Module):
        def __init__(self, lr=0.05):
            super().__init__()
            self.save_hyperparameters()
            self.w = torch.zeros((2, 1), requires_grad=True)
            self.params = [self.w, torch.zeros(1, requires_grad=True)]
            self.scale = Scale()
            self.fixed = torch.ones(1)

        def forward(self, X):
            return self.scale(X @ self.params[0] + self.params[1]) * self.fixed

        def loss(self, y_hat, y):
            return ((y_hat - y) ** 2 / 2).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr)

    return Nested()


def fitted(d2l, model, epochs=2, **options):
    d2l.seed(0)
    data = d2l.SyntheticRegressionData(w, b, num_train=64, num_val=32, batch_size=16)
    trainer = Trainer(epochs, **{"seed": 0, "progress": False, **options})
    trainer.fit(model, data, resume=None)
    return trainer


def same(d2l, one, other):
    first, second = d2l.get_weights(one), d2l.get_weights(other)
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def test_they_are_found_once_each_by_the_name_of_their_place(d2l):
    model = nested(d2l)
    assert {*d2l.get_weights(model)} == {"w", "params.1", "scale.factor"}
    assert len(list(model.parameters())) == 3
    before = d2l.get_weights(model)
    fitted(d2l, model)
    assert all((value != before[name]).all() for name, value in d2l.get_weights(model).items())
    assert model.params[0] is model.w
    assert type(model.w) is torch.Tensor


def test_the_gradients_are_clipped_together(d2l):
    model = nested(d2l)
    before = d2l.get_weights(model)
    data = d2l.SyntheticRegressionData(w, b, num_train=16, num_val=16, batch_size=16)
    Trainer(1, gradient_clip_val=0.01, seed=0, progress=False).fit(model, data)
    after = d2l.get_weights(model)
    norm = sum(((after[name] - before[name]) ** 2).sum() for name in before) ** 0.5
    assert norm == pytest.approx(0.05 * 0.01, rel=1e-3)


def test_they_move_and_change_type_as_the_same_objects(d2l):
    model = nested(d2l)
    tensors = [model.w, model.params[1], model.scale.factor]
    model(torch.ones((1, 2))).sum().backward()
    model.double()
    assert [tensor.dtype for tensor in tensors] == [torch.float64] * 3
    assert model.params[0] is model.w is tensors[0]
    model(torch.ones((1, 2), dtype=torch.float64)).sum().backward()
    assert model.w.grad.dtype == torch.float64
    assert (model.w.grad == 1).all()


def test_they_are_saved_and_loaded(d2l, tmp_path):
    model, other = nested(d2l), nested(d2l)
    fitted(d2l, model)
    d2ldrop.save_weights(model, tmp_path / "w.safetensors")
    d2ldrop.load_weights(other, tmp_path / "w.safetensors")
    assert same(d2l, model, other)
    with pytest.raises(d2ldrop.WeightsError, match="scale"):
        d2l.set_weights(other, {name: value for name, value in d2l.get_weights(model).items() if "scale" not in name})


def test_they_are_copied_and_pickled(d2l):
    model = d2l.LinearRegressionScratch(2, lr=0.05)
    fitted(d2l, model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same(d2l, model, other)
        assert other.w is not model.w
        fitted(d2l, other)
        assert not same(d2l, model, other)


def test_they_are_put_back_after_divergence(d2l):
    model = nested(d2l)
    model.lr = 100.0
    before = d2l.get_weights(model)
    with pytest.raises(d2ldrop.DivergedError):
        fitted(d2l, model, epochs=50)
    assert all(np.isfinite(value).all() for value in d2l.get_weights(model).values())
    assert d2l.get_weights(model).keys() == before.keys()


def test_a_training_of_them_is_resumed(d2l, tmp_path):
    data = d2l.SyntheticRegressionData(w, b, num_train=64, num_val=32, batch_size=16)
    whole, half = nested(d2l), nested(d2l)
    Trainer(4, seed=0, progress=False).fit(whole, data)
    Trainer(2, seed=0, progress=False, callbacks=[d2ldrop.Checkpoint(tmp_path)]).fit(half, data)
    again = nested(d2l)
    Trainer(4, seed=0, progress=False, callbacks=[d2ldrop.Checkpoint(tmp_path)]).fit(again, data, resume=tmp_path)
    assert same(d2l, whole, again)
    assert not same(d2l, whole, half)


def test_parameters_may_be_a_list(d2l):
    class Softmax(d2l.Classifier):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.W = torch.zeros((64, 10), requires_grad=True)
            self.b = torch.zeros(10, requires_grad=True)

        def parameters(self):
            return [self.W, self.b]

        def forward(self, X):
            return X.flatten(1) @ self.W + self.b

    model, trainer = Softmax(lr=0.5), Trainer(3, seed=0, gradient_clip_val=5, progress=False)
    trainer.fit(model, d2l.Digits())
    assert trainer.history[-1]["val_acc"] > 0.8
    assert {*d2l.get_weights(model)} == {"W", "b"}


def test_linear_regression_is_the_same_in_numpy(d2l):
    """From the same weights, in the same order, both take the same steps; PyTorch's own loss is twice NumPy's."""
    by_hand = d2ldrop.backend("numpy")
    X = np.random.default_rng(0).standard_normal((64, 2), np.float32)
    data = by_hand.ArrayData(X, (X @ w + b)[:, None], X[:8], (X[:8] @ w + b)[:, None], batch_size=16)
    found = []
    for backend, lr in ((by_hand, 0.1), (d2l, 0.05)):
        scratch, concise = backend.LinearRegressionScratch(2, lr=0.1), backend.LinearRegression(lr=lr)
        backend.set_weights(scratch, {"w": np.full((2, 1), 0.5, np.float32), "b": np.ones(1, np.float32)})
        for model in (scratch, concise):
            Trainer(2, seed=0, progress=False).fit(model, data)
        found.append([*backend.get_weights(scratch).values(), *backend.get_weights(concise).values()])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


# Optimisers with schedules, and LBFGS

SCHEDULES = {
    "steps": lambda optim: [torch.optim.lr_scheduler.MultiStepLR(optim, [1, 3], 0.1)],
    "cosine": lambda optim: [torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optim, 3)],
    "function": lambda optim: [torch.optim.lr_scheduler.LambdaLR(optim, lambda epoch: 0.5**epoch)],
    "plateau": lambda optim: [torch.optim.lr_scheduler.ReduceLROnPlateau(optim, patience=0, threshold=0.99)],
    "two": lambda optim: [
        torch.optim.lr_scheduler.ExponentialLR(optim, 0.5),
        torch.optim.lr_scheduler.StepLR(optim, 2, 0.3),
    ],
    "sequence": lambda optim: [
        torch.optim.lr_scheduler.SequentialLR(
            optim,
            [torch.optim.lr_scheduler.ConstantLR(optim, 0.1, 2), torch.optim.lr_scheduler.ExponentialLR(optim, 0.5)],
            milestones=[2],
        )
    ],
}


def scheduled(d2l, kind):
    class Scheduled(d2l.LinearRegression):
        def configure_optimizers(self):
            if kind == "lbfgs":
                return torch.optim.LBFGS(self.parameters(), lr=self.lr, max_iter=4, history_size=3)
            optim = torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)
            return [optim], SCHEDULES[kind](optim)

    return Scheduled(lr=0.02)


class Rates(d2ldrop.Callback):
    """Notes the learning rate of each epoch."""

    def __init__(self):
        self.rates = []

    def on_epoch_start(self, trainer):
        self.rates.append(trainer.optim.param_groups[0]["lr"])


def test_a_schedule_takes_a_step_after_each_epoch(d2l):
    rates = Rates()
    fitted(d2l, scheduled(d2l, "steps"), epochs=5, callbacks=[rates])
    assert rates.rates == pytest.approx([0.02, 0.002, 0.002, 0.0002, 0.0002])


def test_a_plateau_is_one_of_the_validation_loss(d2l):
    rates = Rates()
    trainer = fitted(d2l, scheduled(d2l, "plateau"), epochs=8, callbacks=[rates])
    losses, best, expected = [row["val_loss"] for row in trainer.history], np.inf, [0.02]
    for loss in losses[:-1]:
        better = loss < best * 0.01
        best = loss if better else best
        expected.append(expected[-1] * (1 if better else 0.1))
    assert rates.rates == pytest.approx(expected)
    assert rates.rates[-1] < rates.rates[0]


@pytest.mark.parametrize("kind", [*SCHEDULES, "lbfgs"])
def test_a_training_with_it_is_resumed_bit_by_bit(d2l, kind, tmp_path):
    data = d2l.SyntheticRegressionData(w, b, num_train=64, num_val=32, batch_size=16)
    whole, again, rates = scheduled(d2l, kind), scheduled(d2l, kind), (Rates(), Rates())
    trainer = Trainer(6, seed=0, progress=False, callbacks=[rates[0]])
    trainer.fit(whole, data)
    begun = Trainer(3, seed=0, progress=False, callbacks=[Rates(), d2ldrop.Checkpoint(tmp_path)])
    begun.fit(scheduled(d2l, kind), data)
    resumed = Trainer(6, seed=0, progress=False, callbacks=[rates[1], d2ldrop.Checkpoint(tmp_path)])
    resumed.fit(again, data, resume=tmp_path)
    assert rates[0].rates[3:] == rates[1].rates
    expected = d2l.get_weights(whole)
    for name, value in d2l.get_weights(again).items():
        assert value.tobytes() == expected[name].tobytes()
    assert [row["val_loss"] for row in resumed.history] == [row["val_loss"] for row in trainer.history]


def test_a_training_is_not_resumed_with_another_schedule(d2l, tmp_path):
    fitted(d2l, scheduled(d2l, "steps"), callbacks=[d2ldrop.Checkpoint(tmp_path)])
    d2l.seed(0)
    data = d2l.SyntheticRegressionData(w, b, num_train=64, num_val=32, batch_size=16)
    with pytest.raises(d2ldrop.CheckpointError, match="schedules: 'MultiStepLR', and here 'LambdaLR'"):
        Trainer(3, seed=0, progress=False).fit(scheduled(d2l, "function"), data, resume=tmp_path)


def test_lbfgs_looks_at_the_loss_several_times_in_a_step(d2l):
    calls = []

    class Counted(type(scheduled(d2l, "lbfgs"))):
        def loss(self, *args):
            calls.append(self.training)
            return super().loss(*args)

    model = Counted(lr=1)
    trainer = fitted(d2l, model, epochs=2)
    assert calls.count(True) > 2 * 2 * len(trainer.train_dataloader)
    weights, bias = model.get_w_b()
    np.testing.assert_allclose([*weights[0], *bias], [*w, b], atol=0.02)


def test_configure_optimizers_returns_one_optimizer(d2l):
    class Two(d2l.LinearRegression):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), 0.1) for _ in range(2)]

    with pytest.raises(d2ldrop.UsageError, match=r"Expected configure_optimizers\(\) to return an optimiser.*SGD, SGD"):
        fitted(d2l, Two(lr=0.1))


def test_layer_summary_of_one_layer_and_of_none(d2l, capsys):
    d2l.LinearRegression(lr=0.1).layer_summary((4, 2))
    assert "(4, 1)" in capsys.readouterr().out
    with pytest.raises(d2ldrop.UsageError, match=r"Expected LinearRegressionScratch to have its layers in self\.net"):
        d2l.LinearRegressionScratch(2, 0.1).layer_summary((4, 2))


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (lambda optim: None, "NoneType"),
        (lambda optim: "sgd", "str"),
        (lambda optim: {"optimizer": optim}, "dict"),
        (lambda optim: ([optim], [{"scheduler": None}]), r"\[\[SGD\], \[dict\]\]"),
        (lambda optim: ([optim], [None]), r"\[\[SGD\], \[NoneType\]\]"),
        (lambda optim: ([], []), r"\[\[\], \[\]\]"),
    ],
)
def test_what_is_no_optimiser_is_refused(d2l, given, received):
    class Wrong(d2l.LinearRegression):
        def configure_optimizers(self):
            return given(super().configure_optimizers())

    with pytest.raises(d2ldrop.UsageError, match=rf"Expected configure_optimizers\(\).* Received: {received}$"):
        Trainer(1, progress=False).fit(Wrong(0.1), d2l.SyntheticRegressionData(w, b, num_train=8, num_val=0))


def test_parameters_whose_names_would_be_the_same_are_all_trained_and_kept(d2l, tmp_path):
    class Alike(d2l.LinearRegression):
        def __init__(self, lr):
            super().__init__(lr)
            self.params = {0: torch.zeros(2, 1, requires_grad=True), "0": torch.zeros(1, requires_grad=True)}
            self.lin1 = {"weight": torch.zeros(1, requires_grad=True)}  # the layer's name in files

        def forward(self, X):
            return self.net(X) + X @ self.params[0] + self.params["0"] + self.lin1["weight"]

    model, again = Alike(0.03), Alike(0.03)
    data = d2l.SyntheticRegressionData(w, b, num_train=64, num_val=0)
    for each in (model, again):
        Trainer(1, seed=0, progress=False).fit(each, data)
    assert len(d2l.get_weights(model)) == 5
    assert all(values.any() for values in d2l.get_weights(model).values())
    d2ldrop.save_weights(model, tmp_path / "w.safetensors")
    d2l.set_weights(again, {name: 0 * values for name, values in d2l.get_weights(again).items()})
    d2ldrop.load_weights(again, tmp_path / "w.safetensors")
    assert torch.equal(again(torch.ones(3, 2)), model(torch.ones(3, 2)))

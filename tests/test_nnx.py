"""Models in the style of `flax.nnx`, as the book's next edition writes them in JAX, trained by the same trainer."""

import contextlib
import copy
import io
import pickle

import numpy as np
import pytest

import d2ldrop
from d2ldrop import Trainer

pytest.importorskip("flax.nnx")

import optax
from flax import nnx
from jax import numpy as jnp

from d2ldrop import jax as d2l

if not hasattr(nnx, "to_pure_dict"):
    pytest.skip("flax is older than what these models need", allow_module_level=True)

SIZES = {"num_outputs": 10, "num_hiddens_1": 32, "num_hiddens_2": 16, "dropout_1": 0.2, "dropout_2": 0.5}


class Concise(d2l.Classifier):
    """The chapter's model from layers of nnx; the base class takes the style of nnx from `__init__`."""

    def __init__(self, num_outputs, num_hiddens_1, num_hiddens_2, dropout_1, dropout_2, lr, num_inputs=64, rngs=None):
        super().__init__()
        self.save_hyperparameters(ignore=["rngs"])
        rngs = rngs or nnx.Rngs(d2l.get_seed(), dropout=d2l.get_key())
        self.hidden1 = nnx.Linear(num_inputs, num_hiddens_1, rngs=rngs)
        self.drop1 = nnx.Dropout(dropout_1, rngs=rngs)
        self.hidden0 = nnx.Linear(num_hiddens_1, num_hiddens_2, rngs=rngs)
        self.drop2 = d2l.nnx.Dropout(dropout_2, rngs=rngs)
        self.head = nnx.Linear(num_hiddens_2, num_outputs, rngs=rngs)

    def forward(self, X):
        H = X.reshape(len(X), -1)
        for hidden, drop in ((self.hidden1, self.drop1), (self.hidden0, self.drop2)):
            H = drop(nnx.relu(hidden(H)))
        return self.head(H)


class Scratch(d2l.nnx.Classifier):
    """The same by hand, with a mode and a stream of keys of its own."""

    def __init__(self, num_outputs, num_hiddens_1, num_hiddens_2, dropout_1, dropout_2, lr, num_inputs=64, rngs=None):
        super().__init__()
        self.save_hyperparameters(ignore=["rngs"])
        self.rngs = nnx.Rngs(d2l.get_seed()) if rngs is None else rngs
        widths = (num_inputs, num_hiddens_1, num_hiddens_2, num_outputs)
        for k in (1, 2, 3):
            setattr(self, f"lin{k}", nnx.Linear(widths[k - 1], widths[k], rngs=self.rngs))
        self.deterministic = False

    def set_view(self, *, deterministic):
        self.deterministic = deterministic

    def forward(self, X):
        H = X.reshape(X.shape[0], -1)
        for layer, dropout in ((self.lin1, self.dropout_1), (self.lin2, self.dropout_2)):
            H = nnx.relu(layer(H))
            if not self.deterministic:
                H = d2l.dropout_layer(H, dropout, self.rngs.dropout())
        return self.lin3(H)


class Normalised(d2l.nnx.Classifier):
    """A model with batch statistics, in layers in sequence."""

    def __init__(self, lr, rngs):
        self.save_hyperparameters()
        dense = nnx.Linear(64, 16, rngs=rngs), nnx.Linear(16, 10, rngs=rngs)
        norm, dropout = nnx.BatchNorm(16, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.net = nnx.Sequential(lambda X: X.reshape(len(X), -1), dense[0], norm, nnx.relu, dropout, dense[1])


def made(kind, lr=0.5):
    rngs = nnx.Rngs(0)
    return kind(lr=lr, rngs=rngs) if kind is Normalised else kind(**SIZES, lr=lr, rngs=rngs)


KINDS = pytest.mark.parametrize("kind", [Concise, Scratch, Normalised])


def fitted(model, epochs=1, data=None, **options):
    trainer = Trainer(epochs, **{"seed": 0, "progress": False, **options})
    trainer.fit(model, data or d2l.Digits())
    return trainer


@KINDS
def test_it_learns_repeatably_and_travels(kind):
    models = [made(kind) for _ in range(2)]
    trainers = [fitted(model, epochs=6) for model in models]
    assert trainers[0].history[-1]["val_acc"] > 0.8
    weights, again = map(d2l.get_weights, models)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, again[name])
    assert weights["lin1.weight"].shape[1] == 64
    assert [name for name in weights if name.startswith("lin")][-1].startswith("lin2" if kind is Normalised else "lin3")
    X = d2l.Digits().split(False, True).X[:20]
    expected = trainers[0].predict(X)
    other = made(kind)
    assert np.abs(trainers[0].predict(X, other) - expected).max() > 0.1
    d2l.set_weights(other, weights)
    np.testing.assert_array_equal(trainers[0].predict(X, other), expected)
    for way in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        np.testing.assert_array_equal(way(trainers[0]).predict(X), expected)
        assert way(models[0]).trainer is None


@pytest.mark.parametrize(("kind", "loader"), [(Concise, False), (Scratch, False), (Scratch, True)])
def test_each_step_draws_a_new_mask_and_evaluation_none(kind, loader):
    """Where nothing is learnt and all samples are one, only the masks can make the losses of steps differ."""
    X, y = np.ones((40, 64), np.float32), np.zeros(40, np.int64)
    data = d2l.ArrayData(X, y, X, y, batch_size=4)
    given = (data.train_dataloader(), data.val_dataloader()) if loader else data
    model = made(kind, lr=1e-12)
    model.eval()  # as a reader may have left it
    trainer = fitted(model, epochs=2, data=given)
    assert len(set(trainer.epoch_log["train_loss"][0])) > 8
    assert trainer.history[0]["val_loss"] == trainer.history[1]["val_loss"] == trainer.evaluate()["val_loss"]
    undropped = trainer.predict(X[:2])
    np.testing.assert_array_equal(trainer.predict(X[:2]), undropped)
    assert d2l.mc_predict(model, X[:2], samples=20, seed=0).mutual_information.min() > 0
    np.testing.assert_array_equal(trainer.predict(X[:2]), undropped)
    model.train()
    assert not np.array_equal(model(X[:2]), model(X[:2]))


def test_batch_statistics_are_learnt_and_evaluation_leaves_them_alone():
    model = made(Normalised)
    before = d2l.get_weights(model)
    trainer = fitted(model)
    after = d2l.get_weights(model)
    moved = [name for name in after if name.endswith("mean")]
    assert [np.abs(after[name] - before[name]).max() > 0.1 for name in moved] == [True]
    trainer.evaluate()
    d2l.mc_predict(model, np.ones((2, 8, 8, 1), np.float32), samples=3)
    np.testing.assert_array_equal(d2l.get_weights(model)[moved[0]], after[moved[0]])


def test_steps_may_return_what_they_do_not_report():
    """So does the book's next edition, where a trainer plots what steps return."""

    class Returning(Concise):
        def training_step(self, batch):
            return 10 * self.loss(self(*batch[:-1]), batch[-1])

        def validation_step(self, batch):
            Y_hat = self(*batch[:-1])
            return self.loss(Y_hat, batch[-1]), self.accuracy(Y_hat, batch[-1])

        def configure_optimizers(self):
            return optax.adam(self.lr)

    row = fitted(made(Returning, lr=0.01), gradient_clip_val=1).history[0]
    assert row["train_loss"] > 3 * row["val_loss"]
    assert row["val_acc"] > 0.5
    assert "train_acc" not in row


def test_training_goes_on_from_a_checkpoint_bit_by_bit(tmp_path):
    class Adaptive(Concise):
        def configure_optimizers(self):
            return optax.adam(0.01)

    whole = made(Adaptive)
    fitted(whole, epochs=3)
    fitted(made(Adaptive), epochs=1, callbacks=[d2ldrop.Checkpoint(tmp_path)])
    resumed, trainer = made(Adaptive), Trainer(3, seed=0, progress=False)
    trainer.fit(resumed, d2l.Digits(), resume=tmp_path)
    for name, value in d2l.get_weights(whole).items():
        np.testing.assert_array_equal(value, d2l.get_weights(resumed)[name])


def test_a_module_with_parameters_of_its_own_and_a_schedule():
    class Linear(d2l.Module):
        def __init__(self, num_inputs, lr, sigma=0.01, rngs=None):
            super().__init__()
            self.save_hyperparameters(ignore=["rngs"])
            self.w = nnx.Param(d2l.normal(0, sigma, (num_inputs, 1)))
            self.b = nnx.Param(jnp.zeros(1))

        def forward(self, X):
            return d2l.matmul(X, self.w[...]) + self.b[...]

        def loss(self, y_hat, y):
            return d2l.reduce_mean((y_hat - d2l.reshape(y, y_hat.shape)) ** 2 / 2)

    data, model = d2l.SyntheticRegressionData(w=jnp.array([2, -3.4]), b=4.2, noise=0), Linear(2, lr=0.1)
    trainer = fitted(model, epochs=5, data=data, callbacks=[d2ldrop.LRSchedule(lambda epoch: 0.2 * 0.8**epoch)])
    np.testing.assert_allclose(trainer.state.params["w"][:, 0], [2, -3.4], atol=0.01)
    np.testing.assert_array_equal(model.b[...], trainer.state.params["b"])
    assert model.hparams == {"num_inputs": 2, "lr": 0.1, "sigma": 0.01}


def test_layer_summary():
    for kind, shapes in ((Normalised, [64, 16, 16, 16, 16, 10]), (Concise, [32, 32, 16, 16, 10])):
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            made(kind).layer_summary((2, 8, 8, 1), key=d2l.get_key())
        assert [line.rpartition(":")[2].strip() for line in text.getvalue().splitlines()] == [
            f"(2, {n})" for n in shapes
        ]


def test_the_two_styles_and_an_older_flax_are_told_apart(monkeypatch):
    assert issubclass(Concise, d2l.nnx.Classifier)

    class Fields(d2l.Classifier):
        lr: float

    class Later(Fields):
        def __init__(self, lr):
            super().__init__(lr)
            self.save_hyperparameters()

    assert issubclass(Fields, d2l.nn_Module)
    with pytest.raises(d2ldrop.UsageError, match=r"declare hyperparameters as fields.*subclass d2l.nnx.Classifier"):
        Later(0.1)
    monkeypatch.delattr(nnx, "to_pure_dict")
    with pytest.raises(d2ldrop.UsageError, match=r"Expected flax 0\.12 or newer.*pip install"):
        made(Concise)

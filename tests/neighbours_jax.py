"""The chapters that lead to dropout in JAX, each section as a reader writes it, with modules of flax.linen."""

import contextlib
import io
from functools import partial

import jax
import numpy as np
import optax
from flax import linen as nn
from jax import numpy as jnp
from neighbours_jax_linear import SECTIONS as LINEAR
from neighbours_jax_linear import kept_as_it_was


def better_than_chance(trainer, accuracy=0.4):
    """Check the last accuracy on samples of ten classes that were not trained on."""
    assert trainer.history[-1]["val_acc"] > accuracy, trainer.history


def image_data(d2l):
    data = d2l.FashionMNIST(resize=(32, 32))
    X, y = next(iter(data.train_dataloader()))
    assert (X.shape, X.dtype, y.shape) == ((64, 32, 32, 1), d2l.float32, (64,))
    assert 0 <= float(X.min()) < float(X.max()) <= 1
    assert jnp.issubdtype(y.dtype, jnp.integer)
    assert sum(len(y) for _, y in data.train_dataloader()) == len(data.train[0])
    assert len(data.val_dataloader()) == -(-len(data.val[0]) // 64)
    batch = next(iter(data.val_dataloader()))
    axes = data.visualize(batch)
    assert [ax.get_title() for ax in np.ravel(axes)] == data.text_labels(batch[1][:8])


def base_classifier(d2l):
    class Own(d2l.Module):  # a base class of one's own
        def training_step(self, params, batch, state):
            value, grads = jax.value_and_grad(self.loss, has_aux=True)(params, batch[:-1], batch[-1], state)
            self.plot("loss", value[0], train=True)
            return value, grads

        def validation_step(self, params, batch, state):
            value, _ = self.loss(params, batch[:-1], batch[-1], state)
            self.plot("loss", value, train=False)
            self.plot("acc", self.accuracy(params, batch[:-1], batch[-1], state), train=False)

    @d2l.add_to_class(Own)
    def configure_optimizers(self):
        return optax.sgd(self.lr)

    @partial(jax.jit, static_argnums=(0, 5))
    def accuracy(self, params, X, Y, state, averaged=True):
        scores = state.apply_fn({"params": params, "batch_stats": state.batch_stats}, *X)
        hits = d2l.astype(d2l.argmax(scores, axis=-1) == Y, d2l.float32)
        return d2l.reduce_mean(hits) if averaged else hits

    def loss(self, params, X, Y, state, averaged=True):
        Y_hat = state.apply_fn({"params": params}, *X)
        return optax.softmax_cross_entropy_with_integer_labels(Y_hat, Y).mean(), {}

    d2l.add_to_class(Own)(accuracy)

    def linear(base, **methods):
        class Linear(base):
            lr: float

            @nn.compact
            def __call__(self, X):
                return nn.Dense(10)(X.reshape(X.shape[0], -1))

        for name, method in methods.items():
            setattr(Linear, name, method)
        return Linear(lr=0.1)

    data = d2l.FashionMNIST(batch_size=256)
    histories = []
    steps = {name: vars(Own)[name] for name in ("training_step", "validation_step")}
    for model in (
        linear(Own, loss=loss),
        linear(d2l.Classifier),
        linear(d2l.Classifier, accuracy=accuracy),  # in the library's steps
        linear(d2l.Classifier, **steps),  # the reader's steps, and the library's accuracy
    ):
        trainer = d2l.Trainer(max_epochs=2, seed=0)
        trainer.fit(model, data)
        better_than_chance(trainer)
        histories.append((trainer.history[-1]["val_loss"], trainer.history[-1]["val_acc"]))
    assert np.ptp(histories, axis=0).max() < 1e-5


def softmax_scratch(d2l):
    assert d2l.reduce_sum(d2l.rand(3, 4), 0, keepdims=True).shape == (1, 4)

    def softmax(X):
        odds = d2l.exp(X)
        return odds / d2l.reduce_sum(odds, 1, keepdims=True)

    X = jax.random.uniform(jax.random.PRNGKey(d2l.get_seed()), (2, 5))
    for Y in (X, d2l.rand(2, 5), d2l.rand((2, 5))):
        np.testing.assert_allclose(d2l.reduce_sum(softmax(Y), 1), [1, 1], rtol=1e-6)

    class Scratch(d2l.Classifier):
        num_inputs: int
        num_outputs: int
        lr: float
        sigma: float = 0.01

        def setup(self):
            self.W = self.param("W", nn.initializers.normal(self.sigma), (self.num_inputs, self.num_outputs))
            self.b = self.param("b", nn.initializers.zeros, self.num_outputs)

    @d2l.add_to_class(Scratch)
    def forward(self, X):
        X = d2l.reshape(X, (-1, self.W.shape[0]))
        return softmax(d2l.matmul(X, self.W) + self.b)

    @d2l.add_to_class(Scratch)
    @partial(jax.jit, static_argnums=(0))
    def loss(self, params, X, y, state):
        y_hat = state.apply_fn({"params": params}, *X)
        return -d2l.reduce_mean(d2l.log(y_hat[jnp.arange(len(y_hat)), y])), {}

    data = d2l.FashionMNIST(batch_size=256)
    model, trainer = Scratch(num_inputs=784, num_outputs=10, lr=0.1), d2l.Trainer(max_epochs=2)
    trainer.fit(model, data)
    better_than_chance(trainer)
    assert set(trainer.state.params) == {"W", "b"}
    X, y = next(iter(data.val_dataloader()))
    guesses = d2l.argmax(model.apply({"params": trainer.state.params}, X), axis=1)
    missed = np.flatnonzero(guesses != y)
    names = [data.text_labels(part[missed]) for part in (y, guesses)]
    labels = [f"{true}, not {guess}" for true, guess in zip(*names, strict=True)]
    assert all(true != guess for true, guess in zip(*names, strict=True))
    axes = data.visualize([X[missed], y[missed]], labels=labels)
    assert np.ravel(axes)[0].get_title() == labels[0]


def softmax_concise(d2l):
    class Concise(d2l.Classifier):
        num_outputs: int
        lr: float

        @nn.compact
        def __call__(self, X):
            return nn.Dense(self.num_outputs)(X.reshape((X.shape[0], -1)))

    data = d2l.FashionMNIST(batch_size=256)
    with kept_as_it_was(d2l.Classifier, "loss"):

        @d2l.add_to_class(d2l.Classifier)
        @partial(jax.jit, static_argnums=(0, 5))
        def loss(self, params, X, Y, state, averaged=True):
            scores = state.apply_fn({"params": params}, *X, mutable=False, rngs=None)
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, Y)
            return (losses.mean(), {}) if averaged else (losses, {})

        own = d2l.Trainer(max_epochs=2, seed=0)
        own.fit(Concise(num_outputs=10, lr=0.1), data)
    better_than_chance(own)
    trainer = d2l.Trainer(max_epochs=2, seed=0)
    trainer.fit(Concise(num_outputs=10, lr=0.1), data)
    assert abs(trainer.history[-1]["val_loss"] - own.history[-1]["val_loss"]) < 1e-5


def mlp_scratch(d2l):
    def relu(X):
        return jnp.maximum(X, 0)

    class Scratch(d2l.Classifier):
        num_inputs: int
        num_outputs: int
        num_hiddens: int
        lr: float
        sigma: float = 0.01

        def setup(self):
            normal, zeros = nn.initializers.normal(self.sigma), nn.initializers.zeros
            self.W1 = self.param("W1", normal, (self.num_inputs, self.num_hiddens))
            self.b1 = self.param("b1", zeros, self.num_hiddens)
            self.W2 = self.param("W2", normal, (self.num_hiddens, self.num_outputs))
            self.b2 = self.param("b2", zeros, self.num_outputs)

    @d2l.add_to_class(Scratch)
    def forward(self, X):
        X = d2l.reshape(X, (-1, self.num_inputs))
        H = relu(d2l.matmul(X, self.W1) + self.b1)
        return d2l.matmul(H, self.W2) + self.b2

    model, trainer = Scratch(num_inputs=784, num_outputs=10, num_hiddens=32, lr=0.1), d2l.Trainer(max_epochs=4, seed=0)
    trainer.fit(model, d2l.FashionMNIST(batch_size=64))
    better_than_chance(trainer)
    assert {name: value.shape for name, value in d2l.get_weights(model).items()} == {
        "W1": (784, 32), "b1": (32,), "W2": (32, 10), "b2": (10,),
    }  # fmt: skip


def mlp_concise(d2l):
    class Concise(d2l.Classifier):
        num_outputs: int
        num_hiddens: int
        lr: float

        def setup(self):
            layers = [nn.Dense(self.num_hiddens), nn.relu, nn.Dense(self.num_outputs)]
            self.net = nn.Sequential([lambda X: X.reshape((X.shape[0], -1)), *layers])

        def configure_optimizers(self):
            return optax.sgd(optax.cosine_decay_schedule(self.lr, decay_steps=16))

    model = Concise(num_outputs=10, num_hiddens=32, lr=0.2)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        model.layer_summary((1, 28, 28, 1), key=d2l.get_key())
    assert [line.rpartition(":")[2].strip() for line in text.getvalue().splitlines()] == ["(1, 32)", "(1, 10)"]
    trainer = d2l.Trainer(max_epochs=2)
    trainer.fit(model, d2l.FashionMNIST(batch_size=256))
    better_than_chance(trainer)


def stability(d2l):
    x = jnp.linspace(-9, 9, 91)
    slope = jax.vmap(jax.grad(d2l.sigmoid))
    d2l.plot(x, [d2l.sigmoid(x), slope(x)], legend=["value", "slope"], figsize=(5, 3))
    lines = d2l.plt.gca().get_lines()
    assert [len(line.get_xdata()) for line in lines] == [len(x)] * 2
    assert 0.24 < float(slope(x).max()) <= 0.25
    assert float(slope(x).min()) < 1e-3

    product = jax.random.normal(d2l.get_key(), (5, 5))
    for _ in range(40):
        product = d2l.matmul(product, jax.random.normal(d2l.get_key(), (5, 5)))
    assert float(d2l.abs(product).max()) > 1e4
    seeds = [d2l.get_seed() for _ in range(100)]
    assert len(set(seeds)) == 100
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    d2l.seed(1)
    drawn = d2l.get_seed(), d2l.normal((3, 4)), d2l.normal(0, 0.01, (3, 4)), d2l.randn(3, 4)
    d2l.seed(1)
    assert d2l.get_seed() == drawn[0] != seeds[0]
    assert [array.shape for array in drawn[1:]] == [(3, 4)] * 3
    assert float(drawn[2].std()) < 0.1 * float(drawn[1].std())


def k_fold(d2l):
    class Prices(d2l.DataModule):
        def __init__(self, batch_size, train, val=None):
            super().__init__()
            self.save_hyperparameters()

        def get_dataloader(self, train):
            table = self.train if train else self.val
            return None if table is None else self.get_tensorloader((table[:, :3], d2l.log(table[:, 3:])), train)

    def k_fold(trainer, data, k, lr):
        parts, losses, models = np.arange(len(data.train)) % k, [], []
        for held_out in range(k):
            model = d2l.LinearRegression(lr)
            model.board.yscale, model.board.display = "log", held_out == 0
            rest, own = data.train[parts != held_out], data.train[parts == held_out]
            trainer.fit(model, Prices(data.batch_size, rest, own))
            losses.append(float(model.board.data["val_loss"][-1].y))
            models.append(model)
        return losses, models

    X = jax.random.normal(d2l.get_key(), (60, 3))
    prices = d2l.exp(d2l.matmul(X, jnp.array([[0.5], [-0.2], [0.1]])) + 1)
    data = Prices(batch_size=8, train=jnp.concatenate([X, prices], axis=1))
    trainer = d2l.Trainer(max_epochs=20)
    losses, models = k_fold(trainer, data, k=3, lr=0.1)
    assert max(losses) < 1e-3
    last = d2l.exp(models[-1].apply({"params": trainer.state.params}, X))
    guesses = [d2l.exp(model(X)) for model in models]
    np.testing.assert_array_equal(guesses[-1], last)
    np.testing.assert_allclose(sum(guesses) / 3, prices, rtol=0.1)


SECTIONS = {
    **LINEAR,
    "image_data": image_data,
    "base_classifier": base_classifier,
    "softmax_scratch": softmax_scratch,
    "softmax_concise": softmax_concise,
    "mlp_scratch": mlp_scratch,
    "mlp_concise": mlp_concise,
    "stability": stability,
    "k_fold": k_fold,
}

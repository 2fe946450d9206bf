"""Linear regression in JAX, and what the book's classes are made of: sections as their reader writes them."""

import contextlib
from dataclasses import field
from functools import partial

import jax
import numpy as np
import optax
from flax import linen as nn
from jax import numpy as jnp


@contextlib.contextmanager
def kept_as_it_was(kind, *names):
    """Give a class of the library its own methods back, after a reader's have taken their place."""
    own = {name: vars(kind).get(name) for name in names}
    try:
        yield
    finally:
        for name, method in own.items():
            if method is None:
                delattr(kind, name)
            else:
                setattr(kind, name, method)


def recovered(d2l, data, w, b, within=0.1):
    """Check that weights and a bias are near those that the samples were drawn from."""
    assert float(d2l.abs(data.w - d2l.reshape(w, data.w.shape)).max()) < within
    assert abs(float(data.b - b[0])) < within


def oo_design(d2l):
    class Counter:
        def __init__(self):
            self.count = 0

    counter = Counter()

    @d2l.add_to_class(Counter)
    def after(self, steps):
        return self.count + steps

    assert counter.after(3) == 3

    class Settings(d2l.HyperParameters):
        def __init__(self, depth, rate, seed):
            self.save_hyperparameters(ignore=["seed"])

    settings = Settings(depth=4, rate=0.5, seed=7)
    assert (settings.depth, settings.rate, hasattr(settings, "seed")) == (4, 0.5, False)

    class Own(d2l.nn_Module, d2l.HyperParameters):  # a base class of one's own, beside the library's
        plot_train_per_epoch: int = field(default=2, init=False)
        board: d2l.ProgressBoard = field(default_factory=lambda: d2l.ProgressBoard(), init=False)
        training: bool = field(default=None, init=False)

        def forward(self, X):
            return self.net(X)

        def __call__(self, X):
            return self.forward(X)

        @partial(jax.jit, static_argnums=0)
        def training_step(self, params, batch, state):
            return jax.value_and_grad(self.loss)(params, batch[:-1], batch[-1], state)

    class Doubling(Own):
        def forward(self, X):
            return 2 * X

    assert float(Doubling().apply({}, jnp.ones(()))) == 2
    assert issubclass(d2l.Module, d2l.nn_Module)
    assert issubclass(d2l.nn_Module, nn.Module)
    board = d2l.ProgressBoard("x")
    for x in np.arange(0, 6, 0.25):
        board.draw(x, np.tanh(x), "saturating", every_n=4)
        board.draw(x, np.exp(-x), "decaying", every_n=3)
    assert {label: len(xs) for label, (xs, _) in board.curves.items()} == {"saturating": 6, "decaying": 8}
    assert d2l.DataModule().root == "../data"
    assert d2l.Trainer(max_epochs=3).gradient_clip_val == 0


def synthetic_data(d2l):
    w = jnp.array([2, -3.4])
    data = d2l.SyntheticRegressionData(w=w, b=4.2)
    assert (data.X[0].shape, data.y[0].shape) == ((2,), (1,))
    noise = data.y - d2l.matmul(data.X, d2l.reshape(w, (-1, 1))) - 4.2
    assert 0.008 < float(noise.std()) < 0.012
    X, y = next(iter(data.train_dataloader()))
    assert (X.shape, y.shape, len(data.train_dataloader())) == ((32, 2), (32, 1), 32)

    class Own(d2l.DataModule):
        def __init__(self, w, b, noise=0.01, num_train=100, num_val=50, batch_size=10):
            super().__init__()
            self.save_hyperparameters()
            count = num_train + num_val
            key1, key2 = jax.random.split(jax.random.PRNGKey(0))
            self.X = jax.random.normal(key1, (count, w.shape[0]))
            noise = jax.random.normal(key2, (count, 1)) * noise
            self.y = d2l.matmul(self.X, d2l.reshape(w, (-1, 1))) + b + noise

    @d2l.add_to_class(Own)
    def get_dataloader(self, train):
        rows = slice(0, self.num_train) if train else slice(self.num_train, None)
        return self.get_tensorloader((self.X, self.y), train, rows)

    own = Own(w=w, b=4.2)
    assert (len(own.train_dataloader()), len(own.val_dataloader())) == (10, 5)
    model, trainer = d2l.LinearRegression(lr=0.1), d2l.Trainer(max_epochs=10)
    trainer.fit(model, own)
    recovered(d2l, own, *model.get_w_b(trainer.state))


def linear_scratch(d2l):
    class Scratch(d2l.Module):
        num_inputs: int
        lr: float
        sigma: float = 0.01

        def setup(self):
            self.w = self.param("w", nn.initializers.normal(self.sigma), (self.num_inputs, 1))
            self.b = self.param("b", nn.initializers.zeros, (1))  # a whole number, which Flax takes for a shape

    @d2l.add_to_class(Scratch)
    def forward(self, X):
        return d2l.matmul(X, self.w) + self.b

    @d2l.add_to_class(Scratch)
    def loss(self, params, X, y, state):
        y_hat = state.apply_fn({"params": params}, *X)
        return d2l.reduce_mean((y_hat - d2l.reshape(y, y_hat.shape)) ** 2 / 2)

    class Descent(d2l.HyperParameters):
        def __init__(self, lr):
            self.save_hyperparameters()

        def init(self, _):
            return optax.EmptyState  # the class, not an instance

        def update(self, slopes, memory, params=None):
            return jax.tree.map(lambda slope: -slope * self.lr, slopes), memory

    @d2l.add_to_class(Scratch)
    def configure_optimizers(self):
        return Descent(self.lr)

    data = d2l.SyntheticRegressionData(w=jnp.array([2, -3.4]), b=4.2)
    trainer = d2l.Trainer(max_epochs=3)
    trainer.fit(Scratch(2, lr=0.1), data)
    recovered(d2l, data, trainer.state.params["w"], trainer.state.params["b"])

    with kept_as_it_was(d2l.Trainer, "prepare_batch", "fit_epoch"):

        @d2l.add_to_class(d2l.Trainer)
        def prepare_batch(self, batch):
            return batch

        @d2l.add_to_class(d2l.Trainer)
        def fit_epoch(self):
            model = self.model
            model.training = True
            for batch in map(self.prepare_batch, self.train_dataloader):
                _, slope = model.training_step(self.state.params, batch, self.state)
                stepped = self.state.apply_gradients(grads=slope)
                self.state = stepped.replace(dropout_rng=jax.random.fold_in(stepped.dropout_rng, 1))
                self.train_batch_idx += 1
            model.training = False
            for batch in map(self.prepare_batch, self.val_dataloader or ()):
                model.validation_step(self.state.params, batch, self.state)
                self.val_batch_idx += 1

        data = d2l.SyntheticRegressionData(w=jnp.array([2, -3.4]), b=4.2, num_train=640, num_val=640)
        own = d2l.Trainer(max_epochs=2)
        own.fit(d2l.LinearRegressionScratch(2, lr=0.2), data)
    recovered(d2l, data, own.state.params["w"], own.state.params["b"])
    assert own.history[-1]["val_loss"] < own.history[0]["val_loss"]
    assert own.train_batch_idx == own.val_batch_idx == 40


def linear_concise(d2l):
    class Concise(d2l.Module):
        lr: float

        def setup(self):
            self.net = nn.Dense(1, kernel_init=nn.initializers.normal(0.01))

    @d2l.add_to_class(Concise)
    def forward(self, X):
        return self.net(X)

    @d2l.add_to_class(Concise)
    def loss(self, params, X, y, state):
        y_hat = state.apply_fn({"params": params}, *X)
        return d2l.reduce_mean(optax.l2_loss(y_hat, y))

    @d2l.add_to_class(Concise)
    def configure_optimizers(self):
        return optax.sgd(self.lr)

    @d2l.add_to_class(Concise)
    def get_w_b(self, state):
        net = state.params["net"]
        return net["kernel"], net["bias"]

    data = d2l.SyntheticRegressionData(w=jnp.array([2, -3.4]), b=4.2)
    losses = []
    for model in (Concise(lr=0.1), d2l.LinearRegression(lr=0.1)):
        trainer = d2l.Trainer(max_epochs=3, seed=0)
        trainer.fit(model, data)
        recovered(d2l, data, *model.get_w_b(trainer.state))
        losses.append(trainer.history[-1]["val_loss"])
    assert losses[0] == losses[1]


def weight_decay(d2l):
    class Wide(d2l.DataModule):  # more weights than samples
        def __init__(self, count, held_out, width, batch_size=6):
            self.save_hyperparameters()
            self.X = jax.random.normal(jax.random.PRNGKey(d2l.get_seed()), (count + held_out, width))
            self.y = d2l.reduce_mean(self.X, 1, keepdims=True) + 0.1

        def get_dataloader(self, train):
            rows = slice(None, self.count) if train else slice(self.count, None)
            return self.get_tensorloader([self.X, self.y], train, rows)

    def half_square(w):
        return d2l.reduce_sum(w * w) / 2

    class Scratch(d2l.LinearRegressionScratch):
        strength: int = 0

        def loss(self, params, X, y, state):
            return super().loss(params, X, y, state) + self.strength * half_square(params["w"])

    class Concise(d2l.LinearRegression):
        strength: int = 0

        def configure_optimizers(self):
            descent = optax.sgd(optax.constant_schedule(self.lr))
            return optax.chain(optax.add_decayed_weights(self.strength), descent)

    data = Wide(count=24, held_out=48, width=160)
    trainer = d2l.Trainer(max_epochs=10, seed=0)

    def norm_of(model, weights):
        model.board.yscale = "log"
        trainer.fit(model, data)
        return float(half_square(weights(model)))

    def scratch(strength):
        model = Scratch(num_inputs=160, strength=strength, lr=0.01)
        return norm_of(model, weights=lambda model: trainer.state.params["w"])

    def concise(strength):
        return norm_of(Concise(strength=strength, lr=0.01), weights=lambda model: model.get_w_b(trainer.state)[0])

    assert scratch(3) < 0.3 * scratch(0)
    assert concise(3) < 0.3 * concise(0)


SECTIONS = {
    "oo_design": oo_design,
    "synthetic_data": synthetic_data,
    "linear_scratch": linear_scratch,
    "linear_concise": linear_concise,
    "weight_decay": weight_decay,
}

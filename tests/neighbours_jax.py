"""The chapters that lead to dropout in JAX, each section as a reader writes it, with modules of flax.linen."""

import contextlib
import io
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


def better_than_chance(trainer, accuracy=0.4):
    """Check the last accuracy on samples of ten classes that were not trained on."""
    assert trainer.history[-1]["val_acc"] > accuracy, trainer.history


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
    section.__name__: section
    for section in (
        oo_design, synthetic_data, linear_scratch, linear_concise, weight_decay, image_data, base_classifier,
        softmax_scratch, softmax_concise, mlp_scratch, mlp_concise, stability, k_fold,
    )
}  # fmt: skip

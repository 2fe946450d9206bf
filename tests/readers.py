"""Models as readers of the book write them, in each framework's idiom, with a `dropout_layer` of their own."""

import importlib
from functools import partial
from typing import Any


def readers_models(d2l: Any) -> tuple[type, type]:
    """Return a scratch and a concise model; both take (num_outputs, num_hiddens, dropout, lr) by keyword."""
    return globals()[f"_{d2l.name}"](d2l)


def _torch(d2l):
    torch = importlib.import_module("torch")
    nn = torch.nn

    def dropout_layer(X, dropout):
        mask = (torch.rand(X.shape) > dropout).float()
        return mask * X / (1.0 - dropout)

    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.lin1, self.lin2 = nn.LazyLinear(num_hiddens), nn.LazyLinear(num_outputs)

        def forward(self, X):
            H = torch.relu(self.lin1(X.reshape((X.shape[0], -1))))
            if self.training:
                H = dropout_layer(H, self.dropout)
            return self.lin2(H)

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(
                nn.Flatten(), nn.LazyLinear(num_hiddens), nn.ReLU(), nn.Dropout(dropout), nn.LazyLinear(num_outputs)
            )

    return Scratch, Concise


def _tf(d2l):
    tf = importlib.import_module("tensorflow")
    layers = tf.keras.layers

    def dropout_layer(X, dropout):
        mask = tf.random.uniform(shape=tf.shape(X), minval=0, maxval=1) < 1 - dropout
        return tf.cast(mask, dtype=tf.float32) * X / (1.0 - dropout)

    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.lin1, self.lin2 = layers.Dense(num_hiddens, activation="relu"), layers.Dense(num_outputs)

        def forward(self, X):
            H = self.lin1(tf.reshape(X, (X.shape[0], -1)))
            if self.training:
                H = dropout_layer(H, self.dropout)
            return self.lin2(H)

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = tf.keras.models.Sequential(
                [
                    layers.Flatten(),
                    layers.Dense(num_hiddens, activation=tf.nn.relu),
                    layers.Dropout(dropout),
                    layers.Dense(num_outputs),
                ]
            )

    return Scratch, Concise


def _mxnet(d2l):
    mxnet = importlib.import_module("mxnet")
    autograd, np, nn = mxnet.autograd, mxnet.np, mxnet.gluon.nn

    def dropout_layer(X, dropout):
        mask = np.random.uniform(0, 1, X.shape) > dropout
        return mask.astype(np.float32) * X / (1.0 - dropout)

    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.lin1, self.lin2 = nn.Dense(num_hiddens, activation="relu"), nn.Dense(num_outputs)
            self.initialize()

        def forward(self, X):
            H = self.lin1(X)
            if autograd.is_training():
                H = dropout_layer(H, self.dropout)
            return self.lin2(H)

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential()
            self.net.add(nn.Dense(num_hiddens, activation="relu"), nn.Dropout(dropout), nn.Dense(num_outputs))
            self.net.initialize()

    return Scratch, Concise


def _jax(d2l):
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    nn, jnp = importlib.import_module("flax.linen"), jax.numpy

    def dropout_layer(X, dropout, key=d2l.get_key()):  # noqa: B008 - as readers write it
        mask = jax.random.uniform(key, X.shape) > dropout
        return jnp.asarray(mask, dtype=jnp.float32) * X / (1.0 - dropout)

    class Scratch(d2l.Classifier):
        num_hiddens: int
        num_outputs: int
        dropout: float
        lr: float
        training: bool = True

        def setup(self):
            self.lin1, self.lin2 = nn.Dense(self.num_hiddens), nn.Dense(self.num_outputs)

        def forward(self, X):
            H = nn.relu(self.lin1(X.reshape(X.shape[0], -1)))
            if self.training:
                H = dropout_layer(H, self.dropout)
            return self.lin2(H)

    class Concise(d2l.Classifier):
        num_hiddens: int
        num_outputs: int
        dropout: float
        lr: float
        training: bool = True

        @nn.compact
        def __call__(self, X):
            x = nn.relu(nn.Dense(self.num_hiddens)(X.reshape((X.shape[0], -1))))
            x = nn.Dropout(self.dropout, deterministic=not self.training)(x)
            return nn.Dense(self.num_outputs)(x)

    @d2l.add_to_class(Concise)  # readers do so with d2l.Classifier; a test must leave that alone
    @partial(jax.jit, static_argnums=(0, 5))
    def loss(self, params, X, Y, state, averaged=True):
        Y_hat = state.apply_fn({"params": params}, *X, mutable=False, rngs={"dropout": state.dropout_rng})
        Y_hat = Y_hat.reshape((-1, Y_hat.shape[-1]))
        fn = optax.softmax_cross_entropy_with_integer_labels
        return (fn(Y_hat, Y.reshape((-1,))).mean(), {}) if averaged else (fn(Y_hat, Y.reshape((-1,))), {})

    return Scratch, Concise


def _numpy(d2l):
    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            self.save_hyperparameters()
            self.lin1, self.lin2 = d2l.Linear(num_hiddens), d2l.Linear(num_outputs)

        def forward(self, X):
            self.H = d2l.relu(self.lin1(X.reshape(len(X), -1)))
            self.mask = d2l.rand(*self.H.shape) > (self.dropout if self.training else -1)
            self.scale = 1 / (1 - self.dropout) if self.training else 1
            return self.lin2(self.mask * self.H * np_float(self.scale))

        def backward(self, dY):
            dH = self.lin2.backward(dY) * self.mask * np_float(self.scale)
            return self.lin1.backward(d2l.relu_backward(dH, self.H))

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            self.save_hyperparameters()
            self.net = d2l.Sequential(
                d2l.Flatten(), d2l.Linear(num_hiddens), d2l.ReLU(), d2l.Dropout(dropout), d2l.Linear(num_outputs)
            )

    np_float = d2l.float32
    return Scratch, Concise

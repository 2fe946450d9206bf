"""JAX: what tests need of it."""

from functools import partial
from types import SimpleNamespace

import jax
import optax
from flax import linen as nn
from jax import numpy as jnp

from backends.common import starting_weights

FLOATS = ["float16", "bfloat16", "float32"]
DEFAULT_FLOAT = "float32"
HAS_AUTODIFF = True
HAS_VIEWS = False
TRACES_STEPS = True
GRADIENTS_ARE_VALUES = True


def as_dtype(d2l, X, dtype):
    return d2l.array(X).astype(dtype)


def with_gradient(d2l, function, X):
    Y, pull_back = jax.vjp(function, X)
    return Y, *pull_back(jnp.ones_like(Y))


def drop(d2l, X, p):
    return d2l.dropout_layer(X, p, key=d2l.get_key())  # what is traced needs a key


def set_mode(model, training):
    model.training = training


def concise_net(d2l, rate, lr=0.5):
    dense, dropout = nn.Dense(10), nn.Dropout(rate)

    def function(params, X, key=None):
        Y = dense.apply(params, X.reshape(len(X), -1))
        return Y if key is None else dropout.apply({}, Y, deterministic=False, rngs={"dropout": key})

    each = optax.softmax_cross_entropy_with_integer_labels
    losses = (lambda y_hat, y: each(y_hat, y).mean()), each
    net = d2l.Net(function, dense.init(d2l.get_key(), d2l.zeros((1, 64))))
    return SimpleNamespace(net=net, losses=losses, updater=optax.sgd(lr))


def scratch_net(d2l, rate, lr=0.5):
    def function(W, X, key=None):
        Y = X.reshape(len(X), -1) @ W
        return Y if key is None else d2l.dropout_layer(Y, rate, key=key)

    def updater(batch_size, grads):
        net.params = d2l.sgd(net.params, grads, lr, batch_size)

    net = d2l.Net(function, d2l.array(starting_weights()))
    return SimpleNamespace(net=net, updater=updater)


def spied(d2l, loss, note):
    def spy(y_hat, y):  # outputs have no values yet where a gradient is taken
        jax.debug.callback(note, y_hat)
        return loss(y_hat, y)

    return spy


def finish():
    """Wait for callbacks."""
    jax.effects_barrier()


def loss_times_ten(d2l):
    class Tenfold(d2l.SoftmaxRegression):
        def loss(self, *args, **kwargs):
            value, extra = super().loss(*args, **kwargs)
            return 10 * value, extra

    return Tenfold


def losses_of(d2l, model, Y_hat, Y, averaged):
    # its loss takes parameters and inputs: here the inputs are the outputs
    state = SimpleNamespace(apply_fn=lambda variables, X, **_: (X, {}), dropout_rng=None, batch_stats=None)
    return model.loss({}, (Y_hat,), Y, state, averaged=averaged)[0]


def readers_models(d2l):
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


def with_batch_norm(d2l):
    """Return a class of models, made from `lr`, with buffers beside their parameters."""

    class Normalised(d2l.Classifier):
        lr: float

        @nn.compact
        def __call__(self, X):
            X = nn.Dense(8)(X.reshape(len(X), -1))
            return nn.Dense(10)(nn.BatchNorm(use_running_average=not self.training)(X))

    return Normalised


def with_adam(d2l, kind):
    """Return a kind of model that is trained with Adam."""

    class Adaptive(kind):
        def configure_optimizers(self):
            return optax.adam(0.01)

    return Adaptive

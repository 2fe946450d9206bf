"""What our speed is measured against: the same training as users of JAX and Flax write it."""

from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax import numpy as jnp

from d2ldrop.data import Split, as_floats


class Net(nn.Module):
    """The chapter's network."""

    dropout: float

    @nn.compact
    def __call__(self, X: jax.Array, train: bool) -> jax.Array:
        """Return logits."""
        X = X.reshape(len(X), -1)
        for _ in range(2):
            X = nn.relu(nn.Dense(256)(X))
            X = nn.Dropout(self.dropout, deterministic=not train)(X)
        return nn.Dense(10)(X)


def plain_loop(train: Split, val: Split, batch_size: int, lr: float, dropout: float) -> Callable[[], float]:
    """Return a function that runs an epoch with validation: a loop over arrays in memory around a jitted step."""
    X, X_val = (jnp.asarray(as_floats(split.X)) for split in (train, val))
    y, y_val = jnp.asarray(train.y), jnp.asarray(val.y)
    net, key = Net(dropout), jax.random.key(0)
    params = net.init(key, X[:1], train=False)["params"]
    state = TrainState.create(apply_fn=net.apply, params=params, tx=optax.sgd(lr))

    @jax.jit
    def step(state: TrainState, images: jax.Array, labels: jax.Array, key: jax.Array) -> TrainState:
        def loss(params: dict[str, jax.Array]) -> jax.Array:
            logits = state.apply_fn({"params": params}, images, train=True, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    @jax.jit
    def correct(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
        return (state.apply_fn({"params": state.params}, images, train=False).argmax(axis=1) == labels).sum()

    def epoch() -> float:
        nonlocal state, key
        order = np.random.permutation(len(y))  # noqa: NPY002 - as most people write it
        for start in range(0, len(y), batch_size):
            key, step_key = jax.random.split(key)
            chosen = order[start : start + batch_size]
            state = step(state, X[chosen], y[chosen], step_key)
        hits = 0
        for start in range(0, len(y_val), batch_size):
            part = slice(start, start + batch_size)
            hits += int(correct(state, X_val[part], y_val[part]))
        return hits / len(y_val)

    return epoch

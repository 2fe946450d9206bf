"""Baselines of the benchmark: the same training as users of JAX and Flax write it."""

from collections.abc import Callable
from functools import partial, reduce
from itertools import accumulate, pairwise
from typing import Any

import jax
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax import lax
from jax import numpy as jnp

from d2ldrop.data import Split, as_floats
from d2ldrop.jax.lesson import dropout_layer


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
    """Return a function that runs an epoch with validation: one jitted scan over arrays in memory."""
    X, X_val = (jnp.asarray(as_floats(split.X)) for split in (train, val))
    y, y_val = jnp.asarray(train.y), jnp.asarray(val.y)
    net, key = Net(dropout), jax.random.key(0)
    params = net.init(key, X[:1], train=False)["params"]
    state = TrainState.create(apply_fn=net.apply, params=params, tx=optax.sgd(lr))

    @jax.jit
    def training(state: TrainState, X: jax.Array, y: jax.Array, key: jax.Array) -> TrainState:
        def step(state: TrainState, xs: tuple[jax.Array, jax.Array]) -> tuple[TrainState, jax.Array]:
            chosen, key = xs

            def loss(params: dict[str, jax.Array]) -> jax.Array:
                logits = state.apply_fn({"params": params}, X[chosen], train=True, rngs={"dropout": key})
                return optax.softmax_cross_entropy_with_integer_labels(logits, y[chosen]).mean()

            value, grads = jax.value_and_grad(loss)(state.params)
            return state.apply_gradients(grads=grads), value

        order_key, key = jax.random.split(key)
        steps = len(y) // batch_size  # an incomplete last batch is skipped, as is usual
        rows = jax.random.permutation(order_key, len(y))[: steps * batch_size].reshape(steps, batch_size)
        return lax.scan(step, state, (rows, jax.random.split(key, steps)))[0]

    @jax.jit
    def correct(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
        return (state.apply_fn({"params": state.params}, images, train=False).argmax(axis=1) == labels).sum()

    def epoch() -> float:
        nonlocal state, key
        key, epoch_key = jax.random.split(key)
        state = training(state, X, y, epoch_key)
        hits = 0
        for start in range(0, len(y_val), batch_size):
            part = slice(start, start + batch_size)
            hits += int(correct(state, X_val[part], y_val[part]))
        return hits / len(y_val)

    return epoch


def matrix_products(sizes: tuple[int, ...], batch_size: int, steps: int, validated: int) -> Callable[[], object]:
    """Return a function that multiplies the matrices of an epoch, and does little else.

    The weights change a little in each step, because XLA would otherwise see that all steps are the same.
    """
    X, X_val = jnp.ones((batch_size, sizes[0])), jnp.ones((validated, sizes[0]))
    Ws = [jnp.full(pair, 1e-3) for pair in pairwise(sizes)]

    @jax.jit
    def epoch(Ws: list[jax.Array], X: jax.Array, X_val: jax.Array) -> jax.Array:
        def step(Ws: list[jax.Array], _: None) -> tuple[list[jax.Array], None]:
            Hs = list(accumulate(Ws, jnp.matmul, initial=X))
            dH, changed = Hs.pop(), []
            for k, (H, W) in reversed(list(enumerate(zip(Hs, Ws, strict=True)))):
                changed.append(W - 1e-9 * H.T @ dH)
                dH = dH @ W.T if k else dH
            return changed[::-1], None

        Ws, _ = lax.scan(step, Ws, length=steps)
        return reduce(jnp.matmul, Ws, X_val)

    return lambda: epoch(Ws, X, X_val).block_until_ready()


def dropout_calls(
    shape: tuple[int, ...], p: float, dtype: str = "float32", turns: int = 1
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return by name calls of `dropout_layer`, of Flax's own layer, and of a product with a mask that exists already.

    For each there are two compiled functions, forward, and forward and backward, which run `turns` times before the
    host waits.
    """
    X, key = jnp.ones(shape, dtype), jax.random.PRNGKey(0)
    own, mask = nn.Dropout(p, deterministic=False), dropout_layer(X, p, key=key)

    def calls(layer: Callable[[jax.Array, jax.Array], Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        def backward(X: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            Y, pull = jax.vjp(lambda X: layer(X, key), X)
            return Y, pull(X)[0]

        def several(call: Callable[..., Any]) -> None:
            for _ in range(turns):
                result = call(X, key)
            jax.block_until_ready(result)

        return partial(several, jax.jit(layer)), partial(several, jax.jit(backward))

    return {
        "dropout_layer": calls(lambda X, key: dropout_layer(X, p, key=key)),
        "own": calls(lambda X, key: own.apply({}, X, rngs={"dropout": key})),
        "product": calls(lambda X, key: X * mask),
    }


def ones(shape: tuple[int, ...], dtype: str, device: jax.Device) -> jax.Array:
    """Return ones of a dtype on a device."""
    return jax.device_put(jnp.ones(shape, dtype), device)


def about() -> dict[str, str]:
    """Return the name of the first device."""
    return {"card": jax.devices()[0].device_kind}


def device_memory() -> dict[str, float]:
    """Return how much of the first device's memory is used now, and was at most, in megabytes."""
    sizes = jax.devices()[0].memory_stats() or {}
    names = {"used": "bytes_in_use", "peak": "peak_bytes_in_use"}
    return {name: sizes[key] / 2**20 for name, key in names.items() if key in sizes}

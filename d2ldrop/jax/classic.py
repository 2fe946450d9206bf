"""The function edition in JAX's words: a net is a function of its parameters, and they travel with it."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from d2ldrop.errors import UsageError
from d2ldrop.jax.keys import get_key


class Net:
    """A pure function together with the parameters it has now, so that it can be called like a net elsewhere.

    Parameters
    ----------
    function
        Returns outputs for `(params, X, key)`. The key is for dropout masks; with None, nothing is dropped. Under
        `jax.jit` it is compiled once for training and once for evaluation.
    params
        Arrays in lists or dictionaries, nested as you like. A step of training replaces them, as arrays of JAX do not
        change.

    Examples
    --------
    >>> from jax import numpy as jnp
    >>> net = Net(lambda params, X, key: X @ params["W"], {"W": jnp.ones((2, 1))})
    >>> net(jnp.array([[3.0, 4.0]])).tolist()
    [[7.0]]
    """

    def __init__(self, function: Callable[[Any, Array, Any], Array], params: Any):
        self.function, self.params = function, params
        self._optimizer: Any = None
        self._memory: Any = None

    def __call__(self, X: Array) -> Array:
        """Return the outputs for a batch, without dropout."""
        return self.function(self.params, X, None)

    def update(self, optimizer: Any, grads: Any) -> None:
        """Take a step of an optimiser of Optax, whose memory is kept from one step to the next."""
        if self._optimizer is not optimizer:
            self._optimizer, self._memory = optimizer, optimizer.init(self.params)
        changes, self._memory = optimizer.update(grads, self._memory, self.params)
        self.params = jax.tree.map(lambda param, change: param + change, self.params, changes)


def outputs(net: Any, X: Array) -> Array:
    """Return what a net or function makes of a batch, without dropout."""
    return net(X)


def total_loss(loss: Any, y_hat: Array, y: Array) -> Array:
    """Return the sum of a batch's losses, whether `loss` averages them or gives one per sample."""
    value = loss(y_hat, y)
    return value.sum() if value.ndim else value * len(y)


def learn(net: Any, X: Array, y: Array, loss: Any, updater: Any) -> tuple[Array, Array]:
    """Take a step with a new key for the masks; return the sum of the losses, and the outputs, under dropout.

    An updater that is no optimiser of Optax is called with the batch size and the gradients.
    """
    if not isinstance(net, Net):
        raise UsageError(f"Expected a net of the kind Net(function, params). Received: {net!r}")
    key = get_key()

    def objective(params: Any) -> tuple[Array, Array]:
        y_hat = net.function(params, X, key)
        return total_loss(loss, y_hat, y), y_hat

    (total, y_hat), grads = jax.value_and_grad(objective, has_aux=True)(net.params)
    if hasattr(updater, "update"):
        net.update(updater, jax.tree.map(lambda grad: grad / len(y), grads))
    else:  # divides by the batch size itself
        updater(len(y), grads)
    return total, y_hat


@jax.jit
def sgd(params: Any, grads: Any, lr: float, batch_size: int) -> Any:
    """Return the parameters after a step of stochastic gradient descent."""
    return jax.tree.map(lambda param, grad: param - lr * grad / batch_size, params, grads)

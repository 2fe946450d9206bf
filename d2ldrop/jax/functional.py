"""The function edition in JAX: a net is a function together with its parameters."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array


class Net:
    """A pure function together with its parameters, so that it can be called like a net of other frameworks.

    Parameters
    ----------
    function
        Returns outputs for `(params, X, key)`. The key is for dropout masks; with None, nothing is dropped. Under
        `jax.jit` it is compiled once for training and once for evaluation.
    params
        Arrays in lists or dictionaries, nested to any depth. A step of training replaces them, as arrays of JAX are
        immutable.

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
        """Take a step of an optimiser of Optax, whose state is kept from one step to the next."""
        if self._optimizer is not optimizer:
            self._optimizer, self._memory = optimizer, optimizer.init(self.params)
        changes, self._memory = optimizer.update(grads, self._memory, self.params)
        self.params = jax.tree.map(lambda param, change: param + change, self.params, changes)


@jax.jit
def sgd(params: Any, grads: Any, lr: float, batch_size: int) -> Any:
    """Return the parameters after a step of stochastic gradient descent."""
    return jax.tree.map(lambda param, grad: param - lr * grad / batch_size, params, grads)

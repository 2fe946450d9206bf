"""gluon's optimisers, by the names that a model may give, with the same steps as in PyTorch."""

import math
from typing import Any

import mxnet as mx
from mxnet import gluon

from d2ldrop.mxnet.plain import as_parameters
from d2ldrop.training.optimizers import chosen

EPSILON = 1e-8


class Momentum(mx.optimizer.Optimizer):
    """SGD with momentum, and with the learning rate outside of the velocity.

    MXNet's own SGD adds up gradients times learning rates: where the rate changes, steps go on at the old one for a
    while. Here, as in PyTorch, a rate is at once that of the whole step.
    """

    def __init__(self, momentum: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.momentum = momentum

    def create_state(self, index: int, weight: Any) -> Any:
        """Return the velocity, zeros, as an array like the parameter."""
        return mx.nd.zeros(weight.shape, weight.context, dtype=weight.dtype)

    def update(self, index: int, weight: Any, grad: Any, state: Any) -> None:
        """Change a parameter in place; `state` is its velocity."""
        self._update_count(index)
        state *= self.momentum
        state += self.rescale_grad * grad + self._get_wd(index) * weight
        weight -= self._get_lr(index) * state


class Adam(mx.optimizer.Adam):
    """Adam, with epsilon where PyTorch has it: MXNet adds it before it corrects the mean square for its start at 0."""

    def update(self, index: int, weight: Any, grad: Any, state: Any) -> None:
        """Change a parameter in place; `state` is the mean of its gradients, and that of their squares."""
        steps = self._index_update_count.get(index, self.begin_num_update) + 1
        self.epsilon = EPSILON * math.sqrt(1 - self.beta2**steps)
        super().update(index, weight, grad, state)


class AdamW(Adam):
    """Adam with decoupled weight decay: each step multiplies the parameters by 1 - lr decay.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization (2019).
    """

    def __init__(self, decay: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.decay = decay  # `wd` is MXNet's name for what is added to the gradient

    def update(self, index: int, weight: Any, grad: Any, state: Any) -> None:
        """Change a parameter in place."""
        weight *= 1 - self._get_lr(index) * self.decay
        super().update(index, weight, grad, state)


def optimizer_for(model: Any) -> gluon.Trainer:
    """Return the optimiser that a model asks for, see `d2ldrop.training.optimizers.chosen`, as a `gluon.Trainer`."""
    name, lr, decay, momentum = chosen(model)
    if name == "adamw":
        optimizer = AdamW(decay, learning_rate=lr)
    elif name == "adam":
        optimizer = Adam(learning_rate=lr, wd=decay)
    elif momentum:
        optimizer = Momentum(momentum, learning_rate=lr, wd=decay)
    else:
        optimizer = mx.optimizer.SGD(learning_rate=lr, wd=decay)
        optimizer.aggregate_num = 1  # on a CPU, four parameters at once take twice as long as one by one
    return gluon.Trainer(as_parameters(model.parameters()), optimizer)

"""The function edition in MXNet: what it has by names of its own, with MXNet's arguments."""

from collections.abc import Iterable
from typing import Any

import mxnet as mx
from mxnet import gluon, init, np
from mxnet.gluon import nn

from d2ldrop.hyperparameters import TINY, number
from d2ldrop.mxnet import arrays
from d2ldrop.mxnet.plain import gradients


def sgd(params: Iterable[np.ndarray], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place: w <- w - lr dw / batch_size."""
    for param in params:
        param[:] = param - lr * param.grad / batch_size


def grad_clipping(net: Any, theta: float) -> None:
    """Scale gradients in place to a common norm of at most `theta`: of a block, or of an object's `params`."""
    theta = number("theta", theta)
    grads = gradients(net) if isinstance(net, nn.Block) else [p.grad for p in net.params if p.grad is not None]
    factor = np.minimum(theta / np.sqrt(sum(((grad**2).sum() for grad in grads), TINY)), 1)
    for grad in grads:
        grad *= factor


def for_ch6(net: nn.Block, lr: float, device: mx.Context | None) -> tuple[nn.Block, Any, Any]:
    """Return a net with new weights on a device, and the loss and the optimiser of `train_ch6`."""
    net.initialize(force_reinit=True, ctx=device or arrays.cpu(), init=init.Xavier())
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    return net, loss, gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})

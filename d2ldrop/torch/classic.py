"""The function edition in PyTorch's words."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def outputs(net: Any, X: Tensor) -> Tensor:
    """Return what a model or function makes of a batch, without dropout and gradients."""
    if isinstance(net, nn.Module):
        net.eval()
    return net(X)


def total_loss(loss: Any, y_hat: Tensor, y: Tensor) -> Tensor:
    """Return the sum of a batch's losses, whether `loss` averages them or gives one per sample."""
    value = loss(y_hat, y)
    return value.sum() if value.ndim else value * len(y)


def learn(net: Any, X: Tensor, y: Tensor, loss: Any, updater: Any) -> tuple[Tensor, Tensor]:
    """Take a step; return the sum of the losses, and the outputs, under dropout."""
    if isinstance(net, nn.Module):
        net.train()
    y_hat = net(X)
    total = total_loss(loss, y_hat, y)
    if isinstance(updater, torch.optim.Optimizer):
        updater.zero_grad()
        (total / len(y)).backward()
        updater.step()
    else:  # divides by the batch size itself
        total.backward()
        updater(len(y))
    return total.detach(), y_hat.detach()


@torch.no_grad()
def sgd(params: Iterable[Tensor], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place, and set the gradients to zero."""
    for param in params:
        param -= lr * param.grad / batch_size
        param.grad.zero_()

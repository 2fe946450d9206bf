"""The function edition in PyTorch: the optimiser as a function."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def sgd(params: Iterable[Tensor], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place, and set the gradients to zero."""
    for param in params:
        if param.grad is not None:
            param -= lr * param.grad / batch_size
            param.grad.zero_()

"""The function edition in PyTorch: what it has by names of its own, with PyTorch's arguments."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from d2ldrop.hyperparameters import number
from d2ldrop.torch import arrays

FlattenLayer = nn.Flatten


@torch.no_grad()
def sgd(params: Iterable[Tensor], lr: float, batch_size: int) -> None:
    """Take a step of stochastic gradient descent in place, and set the gradients to zero."""
    for param in params:
        if param.grad is not None:
            param -= lr * param.grad / batch_size
            param.grad.zero_()


def grad_clipping(net: Any, theta: float) -> None:
    """Scale gradients in place to a common norm of at most `theta`: of a module, or of an object's `params`."""
    theta = number("theta", theta)
    torch.nn.utils.clip_grad_norm_(net.parameters() if isinstance(net, nn.Module) else net.params, theta)


def for_ch6(net: nn.Module, lr: float, device: torch.device | None) -> tuple[nn.Module, nn.Module, Any]:
    """Return a net with new weights on a device, and the loss and the optimiser of `train_ch6`."""

    def initialise(layer: nn.Module) -> None:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight)

    net.apply(initialise).to(device or arrays.cpu())
    return net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=lr)

"""PyTorch's optimisers, by the names that a model may give."""

import torch
from torch import nn

from d2ldrop.training.optimizers import chosen


def optimizer_for(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of PyTorch that a model asks for, see `d2ldrop.training.optimizers.chosen`."""
    name, lr, decay, momentum = chosen(model)
    params = list(model.parameters())
    if name == "sgd":
        return torch.optim.SGD(params, lr, momentum=momentum, weight_decay=decay, fused=True)
    on_gpu = any(param.is_cuda for param in params)  # a step that is recorded there counts steps there
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(params, lr, weight_decay=decay, fused=True, capturable=on_gpu)

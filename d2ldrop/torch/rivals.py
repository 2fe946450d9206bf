"""What our speed is measured against: the same training as users of PyTorch write it."""

from collections.abc import Callable

import torch
from torch import nn

from d2ldrop.data import Split, as_floats


def plain_loop(train: Split, val: Split, batch_size: int, lr: float, dropout: float) -> Callable[[], float]:
    """Return a function that runs an epoch with validation: a loop over tensors in memory, with `nn.Dropout`."""
    X, X_val = (torch.tensor(as_floats(split.X)) for split in (train, val))
    y, y_val = torch.tensor(train.y), torch.tensor(val.y)
    net = nn.Sequential(
        nn.Flatten(),
        nn.Linear(X[0].numel(), 256), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)

    def epoch() -> float:
        net.train()
        for chosen in torch.randperm(len(y)).split(batch_size):
            loss = nn.functional.cross_entropy(net(X[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in zip(X_val.split(batch_size), y_val.split(batch_size), strict=True):
                correct += (net(images).argmax(dim=1) == labels).sum().item()
        return correct / len(y_val)

    return epoch

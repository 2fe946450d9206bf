"""PyTorch: what tests need of it."""

from types import SimpleNamespace

import torch
from torch import nn

from backends.common import drop, finish, loss_times_ten, losses_of, spied, starting_weights

__all__ = ["drop", "finish", "loss_times_ten", "losses_of", "spied"]

FLOATS = ["float16", "bfloat16", "float32", "float64"]
DEFAULT_FLOAT = "float32"
HAS_AUTODIFF = True
HAS_VIEWS = True
TRACES_STEPS = False
GRADIENTS_ARE_VALUES = False


def as_dtype(d2l, X, dtype):
    return torch.tensor(X).to(d2l.try_gpu(), getattr(torch, dtype))


def with_gradient(d2l, function, X):
    """Return `function(X)`, and the gradient of its sum with respect to X."""
    X = X.clone().requires_grad_()
    Y = function(X)
    Y.sum().backward()
    return Y, X.grad


def set_mode(model, training):
    model.train(training)


def concise_net(d2l, rate, lr=0.5):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(rate))
    losses = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none")
    return SimpleNamespace(net=net, losses=losses, updater=torch.optim.SGD(net.parameters(), lr))


def scratch_net(d2l, rate, lr=0.5):
    W = d2l.tensor(starting_weights(), requires_grad=True)

    class Net(nn.Module):
        def forward(self, X):
            Y = X.reshape(len(X), -1) @ W
            return d2l.dropout_layer(Y, rate) if self.training else Y

    return SimpleNamespace(net=Net(), updater=lambda batch_size: d2l.sgd([W], lr, batch_size))


def readers_models(d2l):
    def dropout_layer(X, dropout):
        mask = (torch.rand(X.shape) > dropout).float()
        return mask * X / (1.0 - dropout)

    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.lin1, self.lin2 = nn.LazyLinear(num_hiddens), nn.LazyLinear(num_outputs)

        def forward(self, X):
            H = torch.relu(self.lin1(X.reshape((X.shape[0], -1))))
            if self.training:
                H = dropout_layer(H, self.dropout)
            return self.lin2(H)

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(
                nn.Flatten(), nn.LazyLinear(num_hiddens), nn.ReLU(), nn.Dropout(dropout), nn.LazyLinear(num_outputs)
            )

    return Scratch, Concise


def with_batch_norm(d2l):
    """Return a class of models, made from `lr`, with buffers beside their parameters."""

    class Normalised(d2l.Classifier):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(10))

    return Normalised


def with_adam(d2l, kind):
    """Return a kind of model that is trained with Adam."""

    class Adaptive(kind):
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    return Adaptive

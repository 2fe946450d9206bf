"""NumPy, by hand: what tests need of it."""

from types import SimpleNamespace

import numpy as np

from backends.common import drop, finish, losses_of, starting_weights

__all__ = ["drop", "finish", "losses_of"]

FLOATS = ["float16", "float32", "float64"]
DEFAULT_FLOAT = "float64"
HAS_AUTODIFF = False  # layers know their backward passes
HAS_VIEWS = True  # arrays that are not contiguous
TRACES_STEPS = False  # a step is compiled once, and Python runs only then
GRADIENTS_ARE_VALUES = False  # optimisers take gradients as arguments, not the parameters that hold them


def as_dtype(d2l, X, dtype):
    """Return a host array as an array of the framework, with elements of a type that NumPy may not have."""
    return d2l.array(X.astype(dtype))


def set_mode(model, training):
    """Turn dropout of a model on or off."""
    model.train(training)


def concise_net(d2l, rate, lr=0.5):
    """Return a net for digits with dropout after its last layer, losses averaged and per sample, and an optimiser."""
    net = d2l.Sequential(d2l.Flatten(), d2l.Linear(10), d2l.Dropout(rate))
    losses = d2l.CrossEntropyLoss(averaged=True), d2l.CrossEntropyLoss()
    return SimpleNamespace(net=net, losses=losses, updater=d2l.SGD(net.parameters(), lr))


def scratch_net(d2l, rate, lr=0.5):
    """Return the same as a function of the inputs with an updater by hand."""
    W = starting_weights()

    class ByHand(d2l.Layer):
        def forward(self, X):
            self.X = X.reshape(len(X), -1)
            self.mask = d2l.dropout_mask((len(X), 10), rate if self.training else 0)
            return d2l.masked(self.X @ W, *self.mask)

        def backward(self, dY):
            self.grads = [self.X.T @ d2l.masked(dY, *self.mask)]

    net = ByHand()
    return SimpleNamespace(net=net, updater=lambda batch_size: d2l.sgd([W], net.grads, lr, batch_size))


def spied(d2l, loss, note):
    """Return a loss that first calls `note` with the outputs on the host."""

    class Spy:
        def __call__(self, y_hat, y):
            note(y_hat)
            return loss(y_hat, y)

        def backward(self):
            return loss.backward()

    return Spy()


def readers_models(d2l):
    """Return a scratch and a concise model as readers write them; they take (num_outputs, num_hiddens, dropout, lr)."""

    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            self.save_hyperparameters()
            self.lin1, self.lin2 = d2l.Linear(num_hiddens), d2l.Linear(num_outputs)

        def forward(self, X):
            self.H = d2l.relu(self.lin1(X.reshape(len(X), -1)))
            self.mask = d2l.rand(*self.H.shape) > (self.dropout if self.training else -1)
            self.scale = np.float32(1 / (1 - self.dropout) if self.training else 1)
            return self.lin2(self.mask * self.H * self.scale)

        def backward(self, dY):
            dH = self.lin2.backward(dY) * self.mask * self.scale
            return self.lin1.backward(d2l.relu_backward(dH, self.H))

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            self.save_hyperparameters()
            self.net = d2l.Sequential(
                d2l.Flatten(), d2l.Linear(num_hiddens), d2l.ReLU(), d2l.Dropout(dropout), d2l.Linear(num_outputs)
            )

    return Scratch, Concise


def loss_times_ten(d2l):
    """Return a `SoftmaxRegression` whose loss, and so its gradient, is ten times as large."""

    class Tenfold(d2l.SoftmaxRegression):
        def loss(self, *args, **kwargs):
            value = super().loss(*args, **kwargs)
            if self.training:
                self.dloss = 10 * self.dloss
            return 10 * value

    return Tenfold


def with_adam(d2l, kind):
    """Return a kind of model that is trained with Adam, written by hand."""

    class Adam(d2l.SGD):
        def __init__(self, params, lr):
            super().__init__(params, lr)
            self.means = [np.zeros_like(param.value) for param in self.params]
            self.squares = [np.zeros_like(param.value) for param in self.params]
            self.steps = 0

        def step(self):
            self.steps += 1
            for param, m, s in zip(self.params, self.means, self.squares, strict=True):
                m += 0.1 * (param.grad - m)
                s += 0.001 * (param.grad**2 - s)
                corrected = np.sqrt(s / (1 - 0.999**self.steps)) + 1e-8
                param.value[...] -= self.lr * m / (1 - 0.9**self.steps) / corrected

    class Adaptive(kind):
        def configure_optimizers(self):
            return Adam(self.parameters(), 0.01)

    return Adaptive

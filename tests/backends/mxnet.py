"""MXNet: what tests need of it."""

from types import SimpleNamespace

from backends.common import drop, finish, loss_times_ten, losses_of, spied, starting_weights
from d2ldrop.mxnet.arrays import mx  # imported there, where what it asks NumPy for is put back

__all__ = ["drop", "finish", "loss_times_ten", "losses_of", "spied"]

autograd, gluon, np, nn = mx.autograd, mx.gluon, mx.np, mx.gluon.nn

FLOATS = ["float16", "float32", "float64"]
DEFAULT_FLOAT = "float32"
HAS_AUTODIFF = True
HAS_VIEWS = False
TRACES_STEPS = False
GRADIENTS_ARE_VALUES = False


def as_dtype(d2l, X, dtype):
    return d2l.array(X).astype(dtype)


def with_gradient(d2l, function, X):
    X = X.copy()
    X.attach_grad()
    with autograd.record():
        Y = function(X)
    Y.backward()
    return Y, X.grad


def set_mode(model, training):
    autograd.set_training(training)  # it is a state of the thread


def concise_net(d2l, rate, lr=0.5):
    net = nn.Sequential()
    net.add(nn.Dense(10), d2l.Dropout(rate))
    net.initialize()
    each = gluon.loss.SoftmaxCrossEntropyLoss()
    losses = (lambda y_hat, y: each(y_hat, y).mean()), each
    updater = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    return SimpleNamespace(net=net, losses=losses, updater=updater)


def scratch_net(d2l, rate, lr=0.5):
    W = d2l.array(starting_weights())
    W.attach_grad()

    def net(X):
        Y = d2l.matmul(X.reshape(len(X), -1), W)
        return d2l.dropout_layer(Y, rate) if autograd.is_training() else Y

    return SimpleNamespace(net=net, updater=lambda batch_size: d2l.sgd([W], lr, batch_size))


def readers_models(d2l):
    def dropout_layer(X, dropout):
        mask = np.random.uniform(0, 1, X.shape) > dropout
        return mask.astype(np.float32) * X / (1.0 - dropout)

    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.lin1, self.lin2 = nn.Dense(num_hiddens, activation="relu"), nn.Dense(num_outputs)
            self.initialize()

        def forward(self, X):
            H = self.lin1(X)
            if autograd.is_training():
                H = dropout_layer(H, self.dropout)
            return self.lin2(H)

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential()
            self.net.add(nn.Dense(num_hiddens, activation="relu"), nn.Dropout(dropout), nn.Dense(num_outputs))
            self.net.initialize()

    return Scratch, Concise


def with_batch_norm(d2l):
    """Return a class of models, made from `lr`, with buffers beside their parameters."""

    class Normalised(d2l.Classifier):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.HybridSequential()
            self.net.add(nn.Dense(8), nn.BatchNorm(), nn.Dense(10))
            self.net.initialize()

    return Normalised


def with_adam(d2l, kind):
    """Return a kind of model that is trained with Adam."""

    class Adaptive(kind):
        def configure_optimizers(self):
            return mx.gluon.Trainer(self.parameters(), "adam", {"learning_rate": 0.01})

    return Adaptive

"""What is the same for most backends."""

import numpy as np


def drop(d2l, X, p):
    """Return dropout of X where a gradient is taken."""
    return d2l.dropout_layer(X, p)


def starting_weights():
    """Return weights (64, 10) for `scratch_net`, always the same."""
    return (np.random.default_rng(0).standard_normal((64, 10)) / 8).astype(np.float32)


def spied(d2l, loss, note):
    """Return a loss that first calls `note` with the outputs on the host."""

    def spy(y_hat, y):
        note(d2l.numpy(y_hat))
        return loss(y_hat, y)

    return spy


def finish():
    """Wait until what `spied` has to note was noted."""


def loss_times_ten(d2l):
    """Return a `SoftmaxRegression` whose loss, and so its gradient, is ten times as large."""

    class Tenfold(d2l.SoftmaxRegression):
        def loss(self, *args, **kwargs):
            return 10 * super().loss(*args, **kwargs)

    return Tenfold


def losses_of(d2l, model, Y_hat, Y, averaged):
    """Return the model's loss of some outputs."""
    return model.loss(Y_hat, Y, averaged=averaged)

"""The chapters that lead to dropout in NumPy, where gradients are written by hand: those on regression."""

import numpy as np

TRUE_W, TRUE_B = [2, -3.4], 4.2


def recovered(w, b, within=0.1):
    """Check that weights and a bias are near those that the samples were drawn from."""
    assert np.abs(w.ravel() - TRUE_W).max() < within
    assert abs(float(b[0]) - TRUE_B) < within


def linear_scratch(d2l):
    class Scratch(d2l.Module):
        def __init__(self, num_inputs, lr, sigma=0.01):
            self.save_hyperparameters()
            self.w = d2l.normal(0, sigma, (num_inputs, 1))
            self.b = d2l.zeros(1)

        def forward(self, X):
            self.X = X
            return d2l.matmul(X, self.w) + self.b

        def loss(self, y_hat, y):
            self.dloss = (y_hat - y) / len(y)
            return d2l.reduce_mean((y_hat - y) ** 2 / 2)

        def backward(self, dY):
            self.dw, self.db = self.X.T @ dY, d2l.reduce_sum(dY, axis=0)

        def configure_optimizers(self):
            return d2l.SGD(self.parameters(), self.lr)

    data = d2l.SyntheticRegressionData(w=d2l.tensor(TRUE_W), b=TRUE_B)
    for model in (Scratch(2, lr=0.03), d2l.LinearRegressionScratch(2, lr=0.03)):
        d2l.Trainer(max_epochs=3, gradient_clip_val=10).fit(model, data)
        recovered(model.w, model.b, within=0.3)


def linear_concise(d2l):
    data = d2l.SyntheticRegressionData(w=d2l.tensor(TRUE_W), b=TRUE_B)
    model = d2l.LinearRegression(lr=0.06)
    d2l.Trainer(max_epochs=3).fit(model, data)
    recovered(*model.get_w_b())
    model.layer_summary((4, 2))


def weight_decay(d2l):
    class Wide(d2l.DataModule):  # more weights than samples
        def __init__(self, count, held_out, width, batch_size=6):
            self.save_hyperparameters()
            self.X = d2l.randn(count + held_out, width)
            self.y = d2l.reduce_mean(self.X, axis=1, keepdims=True) + 0.1

        def get_dataloader(self, train):
            rows = slice(None, self.count) if train else slice(self.count, None)
            return self.get_tensorloader([self.X, self.y], train, rows)

    def half_square(w):
        return d2l.reduce_sum(w * w) / 2

    class Scratch(d2l.LinearRegressionScratch):
        def __init__(self, num_inputs, strength, lr):
            super().__init__(num_inputs, lr)
            self.save_hyperparameters()

        def loss(self, y_hat, y):
            return super().loss(y_hat, y) + self.strength * half_square(self.w)

        def backward(self, dY):
            super().backward(dY)
            self.dw += self.strength * self.w

    class Concise(d2l.LinearRegression):
        def __init__(self, strength, lr):
            super().__init__(lr)
            self.save_hyperparameters()

        def configure_optimizers(self):
            return d2l.SGD(self.parameters(), self.lr, weight_decay=self.strength)

    data = Wide(count=24, held_out=48, width=160)
    norms = []
    for strength in (0, 3):
        d2l.seed(1)
        scratch, concise = Scratch(160, strength, lr=0.01), Concise(strength, lr=0.01)
        for model in (scratch, concise):
            d2l.Trainer(max_epochs=5).fit(model, data)
        norms.append((float(half_square(scratch.w)), float(half_square(concise.get_w_b()[0]))))
    assert norms[1][0] < norms[0][0] / 2
    assert norms[1][1] < norms[0][1] / 2


def k_fold(d2l):
    X = d2l.randn(60, 2)
    y = d2l.matmul(X, d2l.reshape(d2l.tensor(TRUE_W), -1, 1)) + TRUE_B

    class Fold(d2l.DataModule):
        def __init__(self, train, val, batch_size=16):
            self.save_hyperparameters()

        def get_dataloader(self, train):
            rows = self.train if train else self.val
            return self.get_tensorloader((X[rows], y[rows]), train)

    losses = []
    for val in np.arange(60).reshape(3, 20):
        model, trainer = d2l.LinearRegression(lr=0.1), d2l.Trainer(max_epochs=10)
        trainer.fit(model, Fold(np.setdiff1d(np.arange(60), val), val))
        losses.append(trainer.history[-1]["val_loss"])
    assert max(losses) < 0.3


SECTIONS = {
    "linear_scratch": linear_scratch,
    "linear_concise": linear_concise,
    "weight_decay": weight_decay,
    "k_fold": k_fold,
}

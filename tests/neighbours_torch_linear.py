"""Linear regression in PyTorch, and what the book's classes are made of: sections as their reader writes them."""

import time

import torch
from torch import nn


def recovered(d2l, data, w, b, within=0.1):
    """Check that weights and a bias are near those that the samples were drawn from."""
    assert float((d2l.reshape(data.w, w.shape) - w).abs().max()) < within
    assert abs(float(data.b - b)) < within


def oo_design(d2l):
    class Notes:
        def __init__(self):
            self.pages = ["first"]

    notes = Notes()

    @d2l.add_to_class(Notes)
    def last(self):
        return self.pages[-1]

    assert notes.last() == "first"

    class Settings(d2l.HyperParameters):
        def __init__(self, width, rate, name):
            self.save_hyperparameters(ignore=["name"])

    settings = Settings(width=8, rate=0.5, name="small")
    assert (settings.width, settings.rate, hasattr(settings, "name")) == (8, 0.5, False)
    board = d2l.ProgressBoard("x")
    for x in d2l.arange(0, 6, 0.25):
        board.draw(x, d2l.tanh(x), "saturating", every_n=4)
        board.draw(x, d2l.exp(-x), "decaying", every_n=3)
    assert {label: len(xs) for label, (xs, ys) in board.curves.items()} == {"saturating": 6, "decaying": 8}
    assert issubclass(d2l.Module, d2l.nn_Module)
    assert issubclass(d2l.nn_Module, nn.Module)
    assert d2l.DataModule().root == "../data"

    class Module(d2l.nn_Module, d2l.HyperParameters):
        def __init__(self, plot_train_per_epoch=2):
            super().__init__()
            self.save_hyperparameters()
            self.board = d2l.ProgressBoard()
            self.net = nn.LazyLinear(1)

        def training_step(self, batch):
            loss = ((self.net(batch[0]) - batch[1]) ** 2).mean()
            x = self.trainer.train_batch_idx / self.trainer.num_train_batches
            n = self.trainer.num_train_batches / self.plot_train_per_epoch
            self.board.draw(x, d2l.numpy(d2l.to(loss, d2l.cpu())), "train_loss", every_n=int(n))
            return loss

    class Trainer(d2l.HyperParameters):
        def __init__(self, max_epochs, num_gpus=0, gradient_clip_val=0):
            self.save_hyperparameters()

        def fit(self, model, data):
            loader = data.train_dataloader()
            model.trainer, self.train_batch_idx, self.num_train_batches = self, 0, len(loader)
            for _ in range(self.max_epochs):
                for batch in loader:
                    model.zero_grad()
                    model.training_step(batch).backward()
                    d2l.SGD(model.parameters(), 0.1).step()
                    self.train_batch_idx += 1

    model = Module()
    Trainer(max_epochs=3).fit(model, d2l.SyntheticRegressionData(torch.tensor([2, -3.4]), 4.2, num_train=64))
    xs, ys = model.board.curves["train_loss"]
    assert len(xs) == 6
    assert ys[-1] < ys[0] / 2


def synthetic_data(d2l):
    w = torch.tensor([2, -3.4])
    data = d2l.SyntheticRegressionData(w=w, b=4.2)
    assert tuple(data.X[0].shape) == (2,)
    assert tuple(data.y[0].shape) == (1,)
    noise = data.y - d2l.matmul(data.X, d2l.reshape(w, (-1, 1))) - 4.2
    assert 0.008 < float(noise.std()) < 0.012
    X, y = next(iter(data.train_dataloader()))
    assert (tuple(X.shape), tuple(y.shape), len(data.train_dataloader())) == ((32, 2), (32, 1), 32)

    class Own(d2l.DataModule):
        def __init__(self, w, b, noise=0.01, num_train=100, num_val=50, batch_size=10):
            super().__init__()
            self.save_hyperparameters()
            n = num_train + num_val
            self.X = d2l.randn(n, len(w))
            self.y = d2l.matmul(self.X, d2l.reshape(w, (-1, 1))) + b + d2l.randn(n, 1) * noise

        def get_dataloader(self, train):
            rows = slice(0, self.num_train) if train else slice(self.num_train, None)
            return self.get_tensorloader((self.X, self.y), train, rows)

    own = Own(w=w, b=4.2)
    assert (len(own.train_dataloader()), len(own.val_dataloader())) == (10, 5)
    model = d2l.LinearRegression(lr=0.1)
    d2l.Trainer(max_epochs=10).fit(model, own)
    recovered(d2l, own, *model.get_w_b())


def linear_scratch(d2l):
    n, a, b = 1000, d2l.ones(1000), d2l.ones(1000)
    start = time.time()
    total = a + b
    assert float(d2l.reduce_sum(total)) == 2 * n
    assert time.time() >= start

    class Scratch(d2l.Module):
        def __init__(self, num_inputs, lr, sigma=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.w = torch.normal(0, sigma, (num_inputs, 1), requires_grad=True)
            self.b = torch.zeros(1, requires_grad=True)

    @d2l.add_to_class(Scratch)
    def forward(self, X):
        return d2l.matmul(X, self.w) + self.b

    @d2l.add_to_class(Scratch)
    def loss(self, y_hat, y):
        half_squares = (y_hat - y) ** 2 / 2
        return d2l.reduce_mean(half_squares)

    class Descent(d2l.HyperParameters):
        def __init__(self, params, lr):
            self.save_hyperparameters()

        def step(self):
            for array in self.params:
                array -= self.lr * array.grad

        def zero_grad(self):
            for array in self.params:
                array.grad = None

    @d2l.add_to_class(Scratch)
    def configure_optimizers(self):
        return self.optimizer_class([self.w, self.b], self.lr)

    class Loop(d2l.Trainer):
        def fit_epoch(self):
            model, limit = self.model.train(), self.gradient_clip_val
            for batch in map(self.prepare_batch, self.train_dataloader):
                self.optim.zero_grad()
                model.training_step(batch).backward()
                if limit:
                    self.clip_gradients(limit, model)
                with torch.no_grad():
                    self.optim.step()
                self.train_batch_idx += 1
            model.eval()
            with torch.no_grad():
                for batch in map(self.prepare_batch, self.val_dataloader):
                    model.validation_step(batch)
                    self.val_batch_idx += 1

    data = d2l.SyntheticRegressionData(w=torch.tensor([2, -3.4]), b=4.2)
    ours = d2l.Trainer(max_epochs=3)
    for optimizer_class, trainer in ((d2l.SGD, ours), (Descent, Loop(max_epochs=3, gradient_clip_val=10))):
        Scratch.optimizer_class = optimizer_class
        model = Scratch(2, lr=0.03)
        trainer.fit(model, data)
        with torch.no_grad():
            recovered(d2l, data, model.w, model.b, within=0.3)
        assert type(model.w) is torch.Tensor
        assert trainer.history[-1]["val_loss"] < trainer.history[0]["train_loss"]
    model = d2l.LinearRegressionScratch(2, lr=0.03)
    ours.fit(model, data)
    with torch.no_grad():
        recovered(d2l, data, model.w, model.b, within=0.3)


def linear_concise(d2l):
    class Concise(d2l.Module):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.LazyLinear(1)
            self.net.weight.data.normal_(0, 0.01)
            self.net.bias.data.fill_(0)

        def forward(self, X):
            return self.net(X)

        def loss(self, y_hat, y):
            return nn.MSELoss()(y_hat, y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr)

    data = d2l.SyntheticRegressionData(w=torch.tensor([2, -3.4]), b=4.2)
    trainer = d2l.Trainer(max_epochs=3)
    model = Concise(lr=0.03)
    trainer.fit(model, data)
    recovered(d2l, data, model.net.weight.data, model.net.bias.data)
    model = d2l.LinearRegression(lr=0.06)
    trainer.fit(model, data)
    recovered(d2l, data, *model.get_w_b())
    model.layer_summary((4, 2))


def weight_decay(d2l):
    class Wide(d2l.DataModule):  # more weights than samples
        def __init__(self, count, held_out, width, batch_size=6):
            self.save_hyperparameters()
            self.X = d2l.randn(count + held_out, width)
            self.y = d2l.reduce_mean(self.X, 1, keepdims=True) + 0.1

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

    class Concise(d2l.LinearRegression):
        def __init__(self, strength, lr):
            super().__init__(lr)
            self.save_hyperparameters()

        def configure_optimizers(self):
            decayed = {"params": self.net.weight, "weight_decay": self.strength}
            return torch.optim.SGD([decayed, {"params": self.net.bias}], lr=self.lr)

    data, trainer = Wide(count=24, held_out=48, width=160), d2l.Trainer(max_epochs=5)
    norms = {}
    for strength in (0, 3):
        d2l.seed(1)
        scratch, concise = Scratch(160, strength, lr=0.01), Concise(strength, lr=0.01)
        for model in (scratch, concise):
            model.board.yscale = "log"
            trainer.fit(model, data)
        norms[strength] = [float(half_square(w.detach())) for w in (scratch.w, concise.get_w_b()[0])]
    assert norms[3][0] < norms[0][0] / 2
    assert norms[3][1] < norms[0][1] / 2


SECTIONS = {
    "oo_design": oo_design,
    "synthetic_data": synthetic_data,
    "linear_scratch": linear_scratch,
    "linear_concise": linear_concise,
    "weight_decay": weight_decay,
}

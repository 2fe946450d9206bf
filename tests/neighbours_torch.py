"""The chapters that lead to dropout in PyTorch, each section as a reader writes it."""

import time

import torch
from neighbours_torch_linear import SECTIONS as LINEAR
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name


def better_than_chance(trainer, accuracy=0.4):
    """Check the last accuracy on samples of ten classes that were not trained on."""
    assert trainer.history[-1]["val_acc"] > accuracy, trainer.history


def image_data(d2l):
    d2l.use_svg_display()
    data = d2l.FashionMNIST(resize=(32, 32))
    assert tuple(data.train[0][0].shape) == (1, 32, 32)
    assert len(data.train) > len(data.val)
    X, y = next(iter(data.train_dataloader()))
    assert (tuple(X.shape), X.dtype) == ((64, 1, 32, 32), torch.float32)
    assert (tuple(y.shape), y.dtype) == ((64,), torch.int64)
    timer = time.time()
    assert sum(len(y) for _, y in data.train_dataloader()) == len(data.train)
    assert time.time() >= timer
    assert data.text_labels([0, 9]) == ["t-shirt", "ankle boot"]
    data.visualize(next(iter(data.val_dataloader())))

    class Loaded(d2l.FashionMNIST):
        def get_dataloader(self, train):
            data = self.train if train else self.val
            return torch.utils.data.DataLoader(data, self.batch_size, shuffle=train, num_workers=0)

    class Half(d2l.FashionMNIST):
        def get_dataloader(self, train):
            data = self.train if train else self.val
            half = len(data) // 2
            return self.get_tensorloader((data.data[:half, None] / 255, data.targets[:half]), train)

    for kind in (Loaded, Half):
        model, trainer = d2l.SoftmaxRegression(num_outputs=10, lr=0.1), d2l.Trainer(max_epochs=2)
        trainer.fit(model, kind(batch_size=32))
        better_than_chance(trainer)


def base_classifier(d2l):
    class Classifier(d2l.Module):
        def validation_step(self, batch):
            Y_hat = self(*batch[:-1])
            self.plot("loss", self.loss(Y_hat, batch[-1]), train=False)
            self.plot("acc", self.accuracy(Y_hat, batch[-1]), train=False)

    @d2l.add_to_class(d2l.Module)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    @d2l.add_to_class(Classifier)
    def accuracy(self, scores, labels, averaged=True):
        guesses = d2l.argmax(d2l.reshape(scores, (-1, scores.shape[-1])), axis=1)
        hits = d2l.astype(d2l.astype(guesses, labels.dtype) == d2l.reshape(labels, -1), d2l.float32)
        return d2l.reduce_mean(hits) if averaged else hits

    class Softmax(Classifier):
        def __init__(self, num_outputs, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_outputs))

        def loss(self, Y_hat, Y):
            return F.cross_entropy(Y_hat, Y)

    model, trainer = Softmax(10, lr=0.1), d2l.Trainer(max_epochs=2)
    try:
        trainer.fit(model, d2l.FashionMNIST(batch_size=64))
    finally:
        del d2l.Module.configure_optimizers
    better_than_chance(trainer)
    scores, y = torch.tensor([[0.7, 0.1, 0.2], [0.2, 0.6, 0.2]]), torch.tensor([0, 2])
    assert float(d2l.Classifier().accuracy(scores, y)) == 0.5 == float(model.accuracy(scores, y))


def softmax_scratch(d2l):
    X = d2l.rand((3, 4))
    assert tuple(d2l.reduce_sum(X, 0, keepdims=True).shape) == (1, 4)
    assert tuple(d2l.reduce_sum(X, 1, keepdims=True).shape) == (3, 1)

    def softmax(X):
        odds = d2l.exp(X)
        return odds / d2l.reduce_sum(odds, 1, keepdims=True)

    assert torch.allclose(d2l.reduce_sum(softmax(X), 1), d2l.ones(3))

    class Scratch(d2l.Classifier):
        def __init__(self, num_inputs, num_outputs, lr, sigma=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.W = torch.normal(0, sigma, size=(num_inputs, num_outputs), requires_grad=True)
            self.b = torch.zeros(num_outputs, requires_grad=True)

        def parameters(self):
            return [self.W, self.b]

    @d2l.add_to_class(Scratch)
    def forward(self, X):
        X = d2l.reshape(X, (-1, self.W.shape[0]))
        return softmax(d2l.matmul(X, self.W) + self.b)

    def cross_entropy(y_hat, y):
        rows = list(range(len(y)))
        return d2l.reduce_mean(-d2l.log(y_hat[rows, y]))

    y, y_hat = d2l.tensor([1, 0]), d2l.tensor([[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]])
    assert abs(float(cross_entropy(y_hat, y)) - 1.5 * float(torch.log(d2l.tensor(2.0)))) < 1e-6

    @d2l.add_to_class(Scratch)
    def loss(self, y_hat, y):
        return cross_entropy(y_hat, y)

    data = d2l.FashionMNIST(batch_size=256)
    model, trainer = Scratch(num_inputs=784, num_outputs=10, lr=0.1), d2l.Trainer(max_epochs=3)
    before = model.W.detach().clone()
    trainer.fit(model, data)
    better_than_chance(trainer)
    assert not torch.equal(model.W, before)
    X, y = next(iter(data.val_dataloader()))
    guesses = d2l.argmax(model(X), axis=1)
    assert tuple(guesses.shape) == (256,)
    missed = d2l.astype(guesses, y.dtype) != y
    names = [data.text_labels(part[missed]) for part in (y, guesses)]
    labels = [f"{true}, not {guess}" for true, guess in zip(*names, strict=True)]
    data.visualize([X[missed], y[missed]], labels=labels)


def softmax_concise(d2l):
    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_outputs))

        def forward(self, X):
            return self.net(X)

    @d2l.add_to_class(Concise)
    def loss(self, Y_hat, Y, averaged=True):
        Y_hat = d2l.reshape(Y_hat, (-1, Y_hat.shape[-1]))
        return F.cross_entropy(Y_hat, d2l.reshape(Y, (-1,)), reduction="mean" if averaged else "none")

    data = d2l.FashionMNIST(batch_size=256)
    model, trainer = Concise(num_outputs=10, lr=0.1), d2l.Trainer(max_epochs=3)
    trainer.fit(model, data)
    better_than_chance(trainer)


def mlp_scratch(d2l):
    class Scratch(d2l.Classifier):
        def __init__(self, width, lr):
            super().__init__()
            self.save_hyperparameters()
            self.W1, self.b1 = nn.Parameter(0.05 * torch.randn(784, width)), nn.Parameter(torch.zeros(width))
            self.W2, self.b2 = nn.Parameter(0.05 * torch.randn(width, 10)), nn.Parameter(torch.zeros(10))

    def relu(X):
        return (X > 0) * X

    @d2l.add_to_class(Scratch)
    def forward(self, X):
        H = relu(d2l.matmul(d2l.reshape(X, (len(X), -1)), self.W1) + self.b1)
        return d2l.matmul(H, self.W2) + self.b2

    model = Scratch(width=64, lr=0.5)
    data, trainer = d2l.FashionMNIST(batch_size=256), d2l.Trainer(max_epochs=4)
    trainer.fit(model, data)
    better_than_chance(trainer)


def mlp_concise(d2l):
    x = torch.linspace(-5, 5, 41, requires_grad=True)
    for curve in (torch.relu, torch.sigmoid, torch.tanh):
        y = curve(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        d2l.plot(x.detach(), [y.detach(), slope], "x", legend=[curve.__name__, "slope"], figsize=(4, 3))

    class MLP(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_hiddens), nn.ReLU(), nn.LazyLinear(num_outputs))

    model = MLP(num_outputs=10, num_hiddens=64, lr=0.5)
    data, trainer = d2l.FashionMNIST(batch_size=256), d2l.Trainer(max_epochs=4)
    trainer.fit(model, data)
    better_than_chance(trainer)
    model.layer_summary((2, 1, 28, 28))


def stability(d2l):
    x = torch.linspace(-9, 9, 91, requires_grad=True)
    y = torch.sigmoid(x)
    y.sum().backward()
    d2l.plot(x.detach().numpy(), [y.detach().numpy(), x.grad.numpy()], legend=["value", "slope"], figsize=(5, 3))
    assert float(x.grad[0]) < 1e-3 < float(x.grad[45])
    product = d2l.normal(0, 1, size=(5, 5))
    before = float(d2l.reduce_mean(d2l.abs(product)))
    for _ in range(60):
        product = product @ d2l.normal(0, 1, size=(5, 5))
    assert float(d2l.reduce_mean(d2l.abs(product))) > 1e6 * before

    def init_xavier(layer):
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)

    model = d2l.SoftmaxRegression(num_outputs=3, lr=0.1)
    model.apply_init([d2l.rand((2, 7))], init_xavier)
    assert float(model.net[1].weight.detach().abs().max()) <= (6 / 10) ** 0.5


def k_fold(d2l):
    w = torch.tensor([2, -3.4, 1.0])

    class Fold(d2l.DataModule):
        def __init__(self, X, y, train, val, batch_size=16):
            super().__init__()
            self.save_hyperparameters()

        def get_dataloader(self, train):
            rows = self.train if train else self.val
            return self.get_tensorloader((self.X[rows], self.y[rows]), train)

    X = d2l.randn(60, 3)
    y = d2l.matmul(X, w.reshape(-1, 1)) + 4.2

    def k_fold_data(k):
        size = len(X) // k
        for j in range(k):
            val = list(range(j * size, (j + 1) * size))
            yield Fold(X, y, [i for i in range(len(X)) if i not in val], val)

    def validate(trainer, k, lr):
        models = []
        for fold in k_fold_data(k):
            model = d2l.LinearRegression(lr)
            model.board.yscale, model.board.display = "log", not models
            trainer.fit(model, fold)
            models.append(model)
        losses = [float(model.board.data["val_loss"][-1].y) for model in models]
        return sum(losses) / k, models

    mean, models = validate(d2l.Trainer(max_epochs=10), k=3, lr=0.1)
    assert len(models) == 3
    assert mean < 0.3
    with torch.no_grad():
        guesses = [model(X) for model in models]
    ensemble = d2l.reduce_mean(d2l.concat(guesses, 1), 1)
    assert float((d2l.reshape(ensemble, -1, 1) - y).abs().mean()) < 0.5


SECTIONS = {
    **LINEAR,
    "image_data": image_data,
    "base_classifier": base_classifier,
    "softmax_scratch": softmax_scratch,
    "softmax_concise": softmax_concise,
    "mlp_scratch": mlp_scratch,
    "mlp_concise": mlp_concise,
    "stability": stability,
    "k_fold": k_fold,
}

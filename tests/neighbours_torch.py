"""The chapters that lead to dropout in PyTorch, each section as a reader writes it."""

import time

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name


def recovered(d2l, data, w, b, within=0.1):
    """Check that weights and a bias are near those that the samples were drawn from."""
    assert float((d2l.reshape(data.w, w.shape) - w).abs().max()) < within
    assert abs(float(data.b - b)) < within


def better_than_chance(trainer, accuracy=0.4):
    """Check the last accuracy on samples of ten classes that were not trained on."""
    assert trainer.history[-1]["val_acc"] > accuracy, trainer.history


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
    "oo_design": oo_design,
    "synthetic_data": synthetic_data,
    "linear_scratch": linear_scratch,
    "linear_concise": linear_concise,
    "weight_decay": weight_decay,
    "image_data": image_data,
    "base_classifier": base_classifier,
    "softmax_scratch": softmax_scratch,
    "softmax_concise": softmax_concise,
    "mlp_scratch": mlp_scratch,
    "mlp_concise": mlp_concise,
    "stability": stability,
    "k_fold": k_fold,
}

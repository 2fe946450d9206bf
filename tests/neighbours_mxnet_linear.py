"""Linear regression in MXNet, and what the book's classes are made of: sections as their reader writes them."""

import functools
import random
import time
import warnings

from d2ldrop.mxnet.arrays import mx  # imported there, where what it asks NumPy for is put back

autograd, gluon, init, np, npx = mx.autograd, mx.gluon, mx.init, mx.np, mx.npx
nn = gluon.nn


def near(a, b, within):
    """Check that two arrays of as many elements are near each other."""
    assert float(np.abs(a.reshape(-1) - b.reshape(-1)).max()) < within


def quiet(section):
    """Return a section that does not show what MXNet, when it indexes arrays, says of its own old names."""

    @functools.wraps(section)
    def run(d2l):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "ndarray.as_in_context has been renamed", DeprecationWarning)
            section(d2l)

    return run


def oo_design(d2l):
    class Timed:
        def __init__(self):
            self.started = time.time()

    timed = Timed()

    @d2l.add_to_class(Timed)
    def since(self, now):
        return now - self.started

    assert timed.since(timed.started + 2) == 2

    class Recipe(d2l.HyperParameters):
        def __init__(self, flour, water, secret):
            self.save_hyperparameters(ignore=["secret"])

    recipe = Recipe(flour=500, water=300, secret="salt")
    assert (recipe.flour, recipe.water, hasattr(recipe, "secret")) == (500, 300, False)

    board = d2l.ProgressBoard("x")
    for x in np.arange(0, 6, 0.25):
        board.draw(x, np.tanh(x), "saturating", every_n=4)
        board.draw(x, np.exp(-x), "decaying", every_n=3)
    assert (len(board.data["saturating"]), len(board.data["decaying"])) == (6, 8)

    class OwnModule(d2l.nn_Module, d2l.HyperParameters):
        def __init__(self, plot_train_per_epoch=2, plot_valid_per_epoch=1):
            super().__init__()
            self.save_hyperparameters()
            self.board = d2l.ProgressBoard()

        def forward(self, X):
            return self.net(X)

    own = OwnModule()
    own.net = nn.Dense(1)
    own.initialize()
    assert own(np.ones((3, 2))).shape == (3, 1)
    assert own.plot_train_per_epoch == 2
    assert issubclass(d2l.Module, d2l.nn_Module)
    assert d2l.DataModule().root == "../data"
    assert d2l.Trainer(max_epochs=3, num_gpus=0, gradient_clip_val=1).gradient_clip_val == 1


def synthetic_data(d2l):
    true_w = d2l.tensor([2, -3.4])

    class Synthetic(d2l.DataModule):
        def __init__(self, w, b, noise=0.01, num_train=100, num_val=50, batch_size=16):
            super().__init__()
            self.save_hyperparameters()
            n = num_train + num_val
            self.X = d2l.randn(n, len(w))
            self.y = d2l.matmul(self.X, d2l.reshape(w, (-1, 1))) + b + d2l.randn(n, 1) * noise

    data = Synthetic(w=true_w, b=4.2)
    near(data.y, data.X[:, 0] * 2 - data.X[:, 1] * 3.4 + 4.2, within=0.1)

    @d2l.add_to_class(Synthetic)
    def get_dataloader(self, train):
        first, last = (0, self.num_train) if train else (self.num_train, self.num_train + self.num_val)
        rows = list(range(first, last))
        if train:
            random.shuffle(rows)
        for i in range(0, len(rows), self.batch_size):
            chosen = d2l.tensor(rows[i : i + self.batch_size])
            yield self.X[chosen], self.y[chosen]

    X, y = next(iter(data.train_dataloader()))
    assert (X.shape, y.shape) == ((16, 2), (16, 1))
    model = d2l.LinearRegression(lr=0.3)
    for _epoch in range(10):  # a generator ends after one epoch, and so does the trainer
        d2l.Trainer(max_epochs=1).fit(model, data)
    near(model.get_w_b()[0], true_w, within=0.1)

    def with_loader(self, train):
        rows = slice(0, self.num_train) if train else slice(self.num_train, None)
        return self.get_tensorloader((self.X, self.y), train, rows)

    Synthetic.get_dataloader = with_loader
    X, y = next(iter(data.train_dataloader()))
    assert (X.shape, y.shape, len(data.train_dataloader())) == ((16, 2), (16, 1), 7)

    class GluonLoader(Synthetic):
        def get_tensorloader(self, tensors, train, indices=slice(0, None)):
            samples = gluon.data.ArrayDataset(*(a[indices] for a in tensors))
            return gluon.data.DataLoader(samples, self.batch_size, shuffle=train)

    for kind in (Synthetic, GluonLoader):
        model, data = d2l.LinearRegression(lr=0.3), kind(w=true_w, b=4.2)
        d2l.Trainer(max_epochs=10).fit(model, data)
        near(model.get_w_b()[0], true_w, within=0.1)
    data = d2l.SyntheticRegressionData(w=true_w, b=4.2)
    assert (len(data.train_dataloader()), data.X.shape, data.y[0].shape) == (32, (2000, 2), (1,))


def linear_scratch(d2l):
    class Scratch(d2l.Module):
        def __init__(self, num_inputs, lr, sigma=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.w = d2l.normal(0, sigma, (num_inputs, 1))
            self.b = d2l.zeros(1)
            self.w.attach_grad()
            self.b.attach_grad()

    @d2l.add_to_class(Scratch)
    def forward(self, X):
        return d2l.matmul(X, self.w) + self.b

    @d2l.add_to_class(Scratch)
    def loss(self, y_hat, y):
        return d2l.reduce_mean((y_hat - y) ** 2 / 2)

    class Descent(d2l.HyperParameters):
        def __init__(self, params, lr):
            self.save_hyperparameters()

        def step(self, _):
            for array in self.params:
                array -= self.lr * array.grad

    @d2l.add_to_class(Scratch)
    def configure_optimizers(self):
        return self.optimizer_class([self.w, self.b], self.lr)

    class Loop(d2l.Trainer):
        def prepare_batch(self, batch):
            return batch

        def fit_epoch(self):
            model, limit = self.model, self.gradient_clip_val
            for batch in map(self.prepare_batch, self.train_dataloader):
                with autograd.record():
                    loss = model.training_step(batch)
                loss.backward()
                if limit:
                    self.clip_gradients(limit, model)
                self.optim.step(1)
                self.train_batch_idx += 1
            for batch in map(self.prepare_batch, self.val_dataloader or ()):
                model.validation_step(batch)
                self.val_batch_idx += 1

    data = d2l.SyntheticRegressionData(w=d2l.tensor([2, -3.4]), b=4.2, num_val=200)
    trainer = d2l.Trainer(max_epochs=3)
    for Scratch.optimizer_class, own in ((d2l.SGD, trainer), (Descent, Loop(max_epochs=3, gradient_clip_val=10))):
        model = Scratch(2, lr=0.1)
        own.fit(model, data)
        near(data.w - d2l.reshape(model.w, data.w.shape), d2l.zeros(2), within=0.05)
        assert abs(float(data.b - model.b)) < 0.05
        assert [*d2l.get_weights(model)] == ["w", "b"]
    assert len(model.board.data["val_loss"]) == 3

    model = d2l.LinearRegressionScratch(2, lr=0.1)
    trainer.fit(model, data)
    near(model.w, data.w, within=0.05)


def linear_concise(d2l):
    class Concise(d2l.Module):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Dense(1)
            self.net.initialize(init.Normal(sigma=0.01))

        def forward(self, X):
            return self.net(X)

        def loss(self, y_hat, y):
            return gluon.loss.L2Loss()(y_hat, y).mean()

        def configure_optimizers(self):
            return gluon.Trainer(self.collect_params(), "sgd", {"learning_rate": self.lr})

        def get_w_b(self):
            return self.net.weight.data(), self.net.bias.data()

    data = d2l.SyntheticRegressionData(w=d2l.tensor([2, -3.4]), b=4.2, num_val=200)
    for kind in (Concise, d2l.LinearRegression):
        model, trainer = kind(lr=0.1), d2l.Trainer(max_epochs=3)
        trainer.fit(model, data)
        w, b = model.get_w_b()
        near(data.w - d2l.reshape(w, data.w.shape), d2l.zeros(2), within=0.05)
        near(data.b - b, d2l.zeros(1), within=0.05)


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
        return (w * w).sum() / 2

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
            self.collect_params(".*bias").setattr("wd_mult", 0)
            settings = {"learning_rate": self.lr, "wd": self.strength}
            return gluon.Trainer(self.collect_params(), "sgd", settings)

    data = Wide(count=24, held_out=48, width=160)
    trainer = d2l.Trainer(max_epochs=10)

    def norms(make, weights):
        models = {strength: make(strength) for strength in (0, 3)}
        for model in models.values():
            model.board.yscale = "log"
            trainer.fit(model, data)
        return {strength: float(half_square(weights(model))) for strength, model in models.items()}

    scratch = norms(lambda strength: Scratch(160, strength, lr=0.01), lambda model: model.w)
    assert scratch[3] < scratch[0] / 2
    concise = norms(lambda strength: Concise(strength, lr=0.01), lambda model: model.get_w_b()[0])
    assert concise[3] < concise[0] / 2
    assert (trainer.model.net.bias.wd_mult, trainer.model.net.weight.wd_mult) == (0, 1)


SECTIONS = {
    "oo_design": quiet(oo_design),
    "synthetic_data": quiet(synthetic_data),
    "linear_scratch": quiet(linear_scratch),
    "linear_concise": quiet(linear_concise),
    "weight_decay": quiet(weight_decay),
}

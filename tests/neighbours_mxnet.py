"""The chapters that lead to dropout in MXNet, each section as a reader writes it."""

from neighbours_mxnet_linear import SECTIONS as LINEAR
from neighbours_mxnet_linear import near, quiet

from d2ldrop.mxnet.arrays import mx  # imported there, where what it asks NumPy for is put back

autograd, gluon, init, np, npx = mx.autograd, mx.gluon, mx.init, mx.np, mx.npx
nn = gluon.nn


def better_than_chance(trainer, accuracy=0.4):
    """Check the last accuracy on samples of ten classes that were not trained on."""
    assert trainer.history[-1]["val_acc"] > accuracy, trainer.history


def image_data(d2l):
    data = d2l.FashionMNIST(resize=(32, 32))
    assert (len(data.train), len(data.val)) == (2000, 500)
    assert data.train[0][0].shape == (1, 32, 32)
    X, y = next(iter(data.train_dataloader()))
    assert (X.shape, X.dtype, y.shape) == ((64, 1, 32, 32), d2l.float32, (64,))
    assert data.text_labels(d2l.tensor([0, 9])) == ["t-shirt", "ankle boot"]
    seen = 0
    for _X, y in data.train_dataloader():
        seen += len(y)
    assert seen == 2000
    data.visualize(next(iter(data.val_dataloader())), ncols=4)

    transform = gluon.data.vision.transforms.Compose(
        [gluon.data.vision.transforms.Resize((14, 14)), gluon.data.vision.transforms.ToTensor()]
    )

    class Small(d2l.DataModule):
        def __init__(self, batch_size=64):
            super().__init__()
            self.save_hyperparameters()
            pictures = data.train.data.reshape(-1, 32, 32, 1)
            self.train = gluon.data.ArrayDataset(pictures, data.train.targets).transform_first(transform)
            self.val = self.train

        def get_dataloader(self, train):
            return gluon.data.DataLoader(self.train if train else self.val, self.batch_size, shuffle=train)

    X, y = next(iter(Small().val_dataloader()))
    assert (X.shape, y.shape) == ((64, 1, 14, 14), (64,))
    assert 0.2 < float(X.max()) <= 1


def base_classifier(d2l):
    class Own(d2l.Module):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Dense(10)
            self.net.initialize()

        def validation_step(self, batch):
            Y_hat = self(*batch[:-1])
            self.plot("loss", self.loss(Y_hat, batch[-1]), train=False)
            self.plot("acc", self.accuracy(Y_hat, batch[-1]), train=False)

        def loss(self, Y_hat, Y):
            return gluon.loss.SoftmaxCrossEntropyLoss()(Y_hat, Y).mean()

    @d2l.add_to_class(Own)
    def configure_optimizers(self):
        params = self.parameters()
        if isinstance(params, list):
            return d2l.SGD(params, self.lr)
        return gluon.Trainer(params, "sgd", {"learning_rate": self.lr})

    @d2l.add_to_class(Own)
    def accuracy(self, scores, labels, averaged=True):
        guesses = d2l.argmax(d2l.reshape(scores, (-1, scores.shape[-1])), axis=1)
        hits = d2l.astype(d2l.astype(guesses, labels.dtype) == d2l.reshape(labels, -1), d2l.float32)
        return d2l.reduce_mean(hits) if averaged else hits

    scores, labels = d2l.tensor([[0.1, 0.9], [0.8, 0.2]]), d2l.tensor([1, 1], dtype=d2l.int32)
    assert float(Own(lr=0.1).accuracy(scores, labels)) == 0.5
    assert Own(lr=0.1).accuracy(scores, labels, averaged=False).tolist() == [1, 0]
    assert float(d2l.Classifier().accuracy(scores, labels)) == 0.5

    trainer = d2l.Trainer(max_epochs=2)
    trainer.fit(Own(lr=0.1), d2l.FashionMNIST(batch_size=256))
    better_than_chance(trainer)

    class Arrays(d2l.Module):
        def __init__(self):
            super().__init__()
            self.W, self.inner = np.ones((2, 3)), d2l.Module()
            self.inner.W = np.zeros(4)

    assert [array.shape for array in Arrays().get_scratch_params()] == [(2, 3), (4,)]


def softmax_scratch(d2l):
    def softmax(X):
        exponentials = d2l.exp(X)
        return exponentials / d2l.reduce_sum(exponentials, 1, keepdims=True)

    X = d2l.rand(2, 5)
    near(d2l.reduce_sum(softmax(X), 1), d2l.ones(2), within=1e-5)
    assert d2l.rand((2, 5)).shape == X.shape

    class SoftmaxScratch(d2l.Classifier):
        def __init__(self, num_inputs, num_outputs, lr, sigma=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.W = np.random.normal(0, sigma, (num_inputs, num_outputs))
            self.b = np.zeros(num_outputs)
            self.W.attach_grad()
            self.b.attach_grad()

        def collect_params(self):
            return [self.W, self.b]

        def forward(self, X):
            X = d2l.reshape(X, (-1, self.W.shape[0]))
            return softmax(d2l.matmul(X, self.W) + self.b)

        def loss(self, y_hat, y):
            rows = list(range(len(y)))
            return d2l.reduce_mean(-d2l.log(y_hat[rows, y]))

    data = d2l.FashionMNIST(batch_size=256)
    model, trainer = SoftmaxScratch(num_inputs=784, num_outputs=10, lr=0.1), d2l.Trainer(max_epochs=2)
    trainer.fit(model, data)
    better_than_chance(trainer)

    X, y = next(iter(data.val_dataloader()))
    guesses = d2l.argmax(model(X), axis=1)
    missed = d2l.astype(guesses, y.dtype) != y
    assert 0 < len(y[missed]) == int(missed.sum()) < 256
    names = [data.text_labels(part[missed]) for part in (y, guesses)]
    labels = [f"{true}, not {guess}" for true, guess in zip(*names, strict=True)]
    data.visualize([X[missed], y[missed]], labels=[labels])


def softmax_concise(d2l):
    class Softmax(d2l.Classifier):
        def __init__(self, num_outputs, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Dense(num_outputs)
            self.net.initialize()

        def forward(self, X):
            return self.net(X)

    @d2l.add_to_class(Softmax)
    def loss(self, Y_hat, Y, averaged=True):
        Y_hat, Y = d2l.reshape(Y_hat, (-1, Y_hat.shape[-1])), d2l.reshape(Y, (-1,))
        losses = gluon.loss.SoftmaxCrossEntropyLoss()(Y_hat, Y)
        return losses.mean() if averaged else losses

    data = d2l.FashionMNIST(batch_size=256)
    for kind in (Softmax, d2l.SoftmaxRegression):
        trainer = d2l.Trainer(max_epochs=2)
        trainer.fit(kind(num_outputs=10, lr=0.1), data)
        better_than_chance(trainer)
    assert trainer.model.loss(np.zeros((4, 10)), np.zeros(4), averaged=False).shape == (4,)


def mlp_scratch(d2l):
    class MLPScratch(d2l.Classifier):
        def __init__(self, width, lr):
            super().__init__()
            self.save_hyperparameters()
            self.W1, self.b1 = np.random.normal(0, 0.01, (784, width)), np.zeros(width)
            self.W2, self.b2 = np.random.normal(0, 0.01, (width, 10)), np.zeros(10)
            for array in self.get_scratch_params():
                array.attach_grad()

    def relu(X):
        return np.maximum(X, 0)

    @d2l.add_to_class(MLPScratch)
    def forward(self, X):
        H = relu(d2l.matmul(d2l.reshape(X, (len(X), -1)), self.W1) + self.b1)
        return d2l.matmul(H, self.W2) + self.b2

    model, trainer = MLPScratch(width=64, lr=0.3), d2l.Trainer(max_epochs=5)
    start = model.W1.copy()
    trainer.fit(model, d2l.FashionMNIST(batch_size=128))
    better_than_chance(trainer)
    assert float(np.abs(model.W1 - start).max()) > 0


def mlp_concise(d2l):
    class MLP(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential()
            self.net.add(nn.Dense(num_hiddens, activation="relu"), nn.Dense(num_outputs))
            self.net.initialize()

    model, trainer = MLP(num_outputs=10, num_hiddens=64, lr=0.2), d2l.Trainer(max_epochs=3)
    model.layer_summary((2, 784))
    assert model.net[0].weight.shape == (64, 784)
    trainer.fit(model, d2l.FashionMNIST(batch_size=128))
    better_than_chance(trainer)


def stability(d2l):
    x = np.linspace(-9, 9, 91)
    x.attach_grad()
    with autograd.record():
        y = npx.sigmoid(x)
    y.backward()
    near(x.grad, y * (1 - y), within=1e-6)
    d2l.plot(x, [y, x.grad], legend=["value", "slope"], figsize=(5, 3))

    product = np.random.normal(size=(5, 5))
    largest = float(np.abs(product).max())
    for _ in range(50):
        product = np.dot(product, np.random.normal(size=(5, 5)))
    assert float(np.abs(product).max()) > 1e3 * largest


def k_fold(d2l):
    class Houses(d2l.DataModule):
        def __init__(self, batch_size, X=None, y=None, held_out=None):
            super().__init__()
            self.save_hyperparameters()
            if X is None:
                X = d2l.randn(60, 4)
                y = d2l.exp(d2l.matmul(X, d2l.tensor([[0.3], [-0.2], [0.1], [0.0]])) + 1)
            self.samples, self.held_out = (X, y), held_out

        def get_dataloader(self, train):
            X, y = self.samples if train else self.held_out
            return self.get_tensorloader((X, d2l.log(y)), train)

    def folds_of(data, k):
        X, y = data.samples
        width = len(X) // k
        for i in range(k):
            rows = [*range(i * width), *range((i + 1) * width, len(X))]
            inside = slice(i * width, (i + 1) * width)
            yield Houses(data.batch_size, X[rows], y[rows], (X[inside], y[inside]))

    trainer, models = d2l.Trainer(max_epochs=10), []
    data = Houses(batch_size=8)
    for fold in folds_of(data, k=3):
        model = d2l.LinearRegression(lr=0.1)
        model.board.yscale, model.board.display = "log", not models
        trainer.fit(model, fold)
        models.append(model)
    losses = [float(model.board.data["val_loss"][-1].y) for model in models]
    assert len(losses) == 3
    assert max(losses) < 0.05
    mean = sum(d2l.exp(model(data.samples[0])) for model in models) / len(models)
    near(mean, data.samples[1], within=1)


SECTIONS = {
    **LINEAR,
    "image_data": quiet(image_data),
    "base_classifier": quiet(base_classifier),
    "softmax_scratch": quiet(softmax_scratch),
    "softmax_concise": quiet(softmax_concise),
    "mlp_scratch": quiet(mlp_scratch),
    "mlp_concise": quiet(mlp_concise),
    "stability": quiet(stability),
    "k_fold": quiet(k_fold),
}

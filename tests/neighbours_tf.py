"""The chapters that lead to dropout, section by section, as their reader writes them in TensorFlow."""

import numpy as np
import tensorflow as tf
from neighbours_tf_linear import SECTIONS as LINEAR


def untouched(d2l, data, resolution=28):
    """Check a batch of images and their labels."""
    X, y = next(iter(data.train_dataloader()))
    assert tuple(X.shape) == (data.batch_size, resolution, resolution, 1)
    assert (X.dtype, y.dtype) == (d2l.float32, d2l.int32)
    assert float(tf.reduce_max(X)) <= 1
    return X, y


def improves(d2l, model, data, epochs=2, **options):
    """Train, and check that the validation loss falls."""
    trainer = d2l.Trainer(max_epochs=epochs, progress=False, **options)
    trainer.fit(model, data)
    losses = [row["val_loss"] for row in trainer.history]
    assert losses[-1] < losses[0]
    return trainer


def image_data(d2l):
    data = d2l.FashionMNIST(batch_size=64, resize=(32, 32))
    assert (len(data.train[0]), len(data.val[0])) == (2000, 500)
    untouched(d2l, data, 32)
    data = d2l.FashionMNIST(batch_size=64)
    X, y = untouched(d2l, data)
    names = data.text_labels(y[:8])
    assert len(names) == 8
    assert all(isinstance(name, str) for name in names)
    data.visualize([X, y])
    batch = next(iter(data.val_dataloader()))
    data.visualize(batch)
    assert sum(len(y) for _, y in data.val_dataloader()) == 500


def base_classifier(d2l):
    class Reporting(d2l.Module):
        def validation_step(self, batch):
            Y_hat = self(*batch[:-1])
            self.plot("loss", self.loss(Y_hat, batch[-1]), train=False)
            self.plot("acc", self.accuracy(Y_hat, batch[-1]), train=False)

    @d2l.add_to_class(Reporting)
    def configure_optimizers(self):
        return tf.keras.optimizers.SGD(self.lr)

    @d2l.add_to_class(Reporting)
    def accuracy(self, scores, labels, averaged=True):
        guesses = d2l.argmax(d2l.reshape(scores, (-1, scores.shape[-1])), axis=1)
        hits = d2l.astype(d2l.astype(guesses, labels.dtype) == d2l.reshape(labels, (-1,)), d2l.float32)
        return d2l.reduce_mean(hits) if averaged else hits

    scores, labels = d2l.tensor([[0.2, 0.7, 0.1], [0.2, 0.2, 0.6]]), d2l.tensor([0, 2])
    for kind in (Reporting, d2l.Classifier):
        assert float(kind().accuracy(scores, labels)) == 0.5
        assert d2l.numpy(kind().accuracy(scores, labels, averaged=False)).tolist() == [0, 1]


def softmax_scratch(d2l):
    def softmax(X):
        odds = tf.exp(X)
        return odds / tf.reduce_sum(odds, 1, keepdims=True)

    X = d2l.rand((2, 5))
    np.testing.assert_allclose(tf.reduce_sum(softmax(X), 1), 1, rtol=1e-6)

    def cross_entropy(y_hat, y):
        of_labels = tf.boolean_mask(y_hat, tf.one_hot(y, depth=y_hat.shape[-1]))
        return tf.reduce_mean(-tf.math.log(of_labels))

    class SoftmaxScratch(d2l.Classifier):
        def __init__(self, num_inputs, num_outputs, lr, sigma=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.W = tf.Variable(tf.random.normal((num_inputs, num_outputs), 0, sigma))
            self.b = tf.Variable(tf.zeros(num_outputs))

        def forward(self, X):
            return softmax(tf.matmul(tf.reshape(X, (-1, self.W.shape[0])), self.W) + self.b)

        def loss(self, y_hat, y):
            return cross_entropy(y_hat, y)

    data = d2l.FashionMNIST(batch_size=256)
    model = SoftmaxScratch(num_inputs=784, num_outputs=10, lr=0.1)
    trainer = improves(d2l, model, data, 3)
    assert trainer.history[-1]["val_acc"] > 0.4

    X, y = next(iter(data.val_dataloader()))
    guesses = d2l.argmax(model(X), axis=1)
    missed = d2l.astype(guesses, y.dtype) != y
    names = [data.text_labels(part[missed]) for part in (y, guesses)]
    labels = [f"{true}, not {guess}" for true, guess in zip(*names, strict=True)]
    data.visualize([X[missed], y[missed]], labels=[labels])


def softmax_concise(d2l):
    class Softmax(d2l.Classifier):
        def __init__(self, num_outputs, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = tf.keras.models.Sequential()
            self.net.add(tf.keras.layers.Flatten())
            self.net.add(tf.keras.layers.Dense(num_outputs))

        def forward(self, X):
            return self.net(X)

    @d2l.add_to_class(Softmax)
    def loss(self, Y_hat, Y, averaged=True):
        Y_hat, Y = tf.reshape(Y_hat, (-1, Y_hat.shape[-1])), tf.reshape(Y, (-1,))
        fn = tf.keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum_over_batch_size" if averaged else "none"
        )
        return fn(Y, Y_hat)

    data = d2l.FashionMNIST(batch_size=256)
    trainer = improves(d2l, Softmax(num_outputs=10, lr=0.1), data)
    assert trainer.history[-1]["val_acc"] > 0.4


def mlp_scratch(d2l):
    def relu(X):
        return tf.math.maximum(X, 0)

    class MLPScratch(d2l.Classifier):
        def __init__(self, width, lr):
            super().__init__()
            self.save_hyperparameters()
            self.W1, self.b1 = tf.Variable(0.01 * tf.random.normal((784, width))), tf.Variable(tf.zeros(width))
            self.W2, self.b2 = tf.Variable(0.01 * tf.random.normal((width, 10))), tf.Variable(tf.zeros(10))

        def forward(self, X):
            H = relu(tf.matmul(tf.reshape(X, (len(X), -1)), self.W1) + self.b1)
            return tf.matmul(H, self.W2) + self.b2

    model = MLPScratch(width=64, lr=0.1)
    before = d2l.numpy(model.W1)
    improves(d2l, model, d2l.FashionMNIST(batch_size=256))
    assert (d2l.numpy(model.W1) != before).any()
    assert set(d2l.get_weights(model)) == {"W1", "b1", "W2", "b2"}


def mlp_concise(d2l):
    class MLP(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = tf.keras.models.Sequential(
                [
                    tf.keras.layers.Flatten(),
                    tf.keras.layers.Dense(num_hiddens, activation="relu"),
                    tf.keras.layers.Dense(num_outputs),
                ]
            )

    model = MLP(num_outputs=10, num_hiddens=64, lr=0.1)
    model.layer_summary((1, 28, 28, 1))
    trainer = improves(d2l, model, d2l.FashionMNIST(batch_size=256))
    assert trainer.history[-1]["val_acc"] > 0.4


def stability(d2l):
    x = tf.Variable(tf.linspace(-9.0, 9.0, 91))
    with tf.GradientTape() as tape:
        y = tf.nn.sigmoid(x)
    slope = tape.gradient(y, x)
    d2l.plot(x.numpy(), [y.numpy(), slope.numpy()], legend=["value", "slope"], figsize=(5, 3))
    assert float(tf.reduce_max(slope)) <= 0.25

    product = d2l.normal((5, 5))
    start = float(tf.norm(product))
    for _ in range(60):
        product = d2l.matmul(product, d2l.normal((5, 5), 0, 1))
    assert float(tf.norm(product)) > 1e6 * start


def k_fold(d2l):
    class House(d2l.DataModule):
        def __init__(self, batch_size, train, val):
            super().__init__()
            self.save_hyperparameters()

        def get_dataloader(self, train):
            X, y = self.train if train else self.val
            return self.get_tensorloader((tf.constant(X), tf.constant(y)), train)

    def folds(X, y, k):
        for part in np.array_split(np.arange(len(y)), k):
            rest = np.setdiff1d(np.arange(len(y)), part)
            yield House(32, (X[rest], y[rest]), (X[part], y[part]))

    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 4), np.float32)
    y = X @ np.float32([[1], [2], [0], [-1]]) + 0.1 * rng.standard_normal((120, 1), np.float32)
    trainer, models = d2l.Trainer(max_epochs=5, progress=False), []
    for data in folds(X, y, 3):
        model = d2l.LinearRegression(lr=0.1)
        model.board.yscale, model.board.display = "log", not models
        trainer.fit(model, data)
        models.append(model)
    losses = [float(model.board.data["val_loss"][-1].y) for model in models]
    assert len(losses) == 3
    assert max(losses) < 0.5
    outputs = [model(tf.constant(X)) for model in models]
    mean = d2l.reduce_mean(d2l.concat(outputs, 1), 1)
    assert float(tf.reduce_mean((mean - y[:, 0]) ** 2)) < 0.5


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

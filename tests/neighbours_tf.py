"""The chapters that lead to dropout, section by section, as their reader writes them in TensorFlow."""

import random

import numpy as np
import tensorflow as tf


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


def oo_design(d2l):
    class Thing:
        def __init__(self):
            self.size = 2

    thing = Thing()

    @d2l.add_to_class(Thing)
    def doubled(self):
        return 2 * self.size

    assert thing.doubled() == 4

    class Settings(d2l.HyperParameters):
        def __init__(self, width, height, secret):
            self.save_hyperparameters(ignore=["secret"])

    settings = Settings(width=3, height=4, secret=5)
    assert (settings.width, settings.height) == (3, 4)
    assert not hasattr(settings, "secret")

    board = d2l.ProgressBoard("x", display=False)
    for x in np.arange(0, 5, 0.1):
        board.draw(x, np.sin(x), "sin", every_n=2)
        board.draw(x, np.cos(x), "cos", every_n=10)

    class Base(d2l.nn_Module, d2l.HyperParameters):
        def __init__(self, plot_train_per_epoch=2):
            super().__init__()
            self.save_hyperparameters()
            self.training = None

        def call(self, X, *args, training=None):
            self.training = training
            return self.net(X)

    class Halves(Base):
        def __init__(self):
            super().__init__()
            self.net = tf.keras.layers.Dense(1, kernel_initializer="ones")

    model = Halves()
    assert isinstance(model, tf.keras.Model)
    assert float(model(tf.ones((1, 3)), training=True)[0, 0]) == 3
    assert model.training
    assert d2l.DataModule().root == "../data"


def synthetic_data(d2l):
    w, b = tf.constant([2, -3.4]), 4.2
    data = d2l.SyntheticRegressionData(w=w, b=b)
    assert (data.X.shape, data.y.shape) == ((2000, 2), (2000, 1))
    noise = data.y - tf.matmul(data.X, tf.reshape(w, (-1, 1))) - b
    assert abs(float(tf.math.reduce_std(noise)) - 0.01) < 0.001

    class ByHand(d2l.SyntheticRegressionData):
        def get_dataloader(self, train):
            indices = list(range(self.num_train)) if train else list(range(self.num_train, len(self.y)))
            if train:
                random.shuffle(indices)
            for start in range(0, len(indices), self.batch_size):
                rows = tf.constant(indices[start : start + self.batch_size])
                yield tf.gather(self.X, rows), tf.gather(self.y, rows)

    batches = list(ByHand(w, b, num_train=70, num_val=10).train_dataloader())
    assert [len(X) for X, y in batches] == [32, 32, 6]

    class ByTensors(d2l.SyntheticRegressionData):
        def get_dataloader(self, train):
            rows = slice(0, self.num_train) if train else slice(self.num_train, None)
            return self.get_tensorloader((self.X, self.y), train, rows)

    loader = ByTensors(w, b).train_dataloader()
    X, y = next(iter(loader))
    assert (X.shape, y.shape, len(loader)) == ((32, 2), (32, 1), 32)


def linear_scratch(d2l):
    class LinearScratch(d2l.Module):
        def __init__(self, num_inputs, lr, sigma=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.w = tf.Variable(tf.random.normal((num_inputs, 1), mean=0, stddev=sigma), trainable=True)
            self.b = tf.Variable(tf.zeros(1), trainable=True)

        def forward(self, X):
            return tf.matmul(X, self.w) + self.b

        def loss(self, y_hat, y):
            return tf.reduce_mean((y_hat - y) ** 2 / 2)

        def configure_optimizers(self):
            return Descent(self.lr)

    class Descent(d2l.HyperParameters):
        def __init__(self, lr):
            self.save_hyperparameters()

        def apply_gradients(self, grads_and_vars):
            for grad, param in grads_and_vars:
                param.assign_sub(self.lr * grad)

    class ByLoops(d2l.Trainer):
        def fit_epoch(self):
            self.model.training = True
            for batch in self.train_dataloader:
                with tf.GradientTape() as tape:
                    loss = self.model.training_step(self.prepare_batch(batch))
                grads = tape.gradient(loss, self.model.trainable_variables)
                if self.gradient_clip_val > 0:
                    grads = self.clip_gradients(self.gradient_clip_val, grads)
                self.optim.apply_gradients(zip(grads, self.model.trainable_variables, strict=True))
                self.train_batch_idx += 1
            self.model.training = False
            for batch in self.val_dataloader:
                self.model.validation_step(self.prepare_batch(batch))
                self.val_batch_idx += 1

    w, b = tf.constant([2, -3.4]), 4.2
    data = d2l.SyntheticRegressionData(w, b)
    for make, fit_by in (
        (LinearScratch, d2l.Trainer),
        (LinearScratch, ByLoops),
        (d2l.LinearRegressionScratch, d2l.Trainer),
    ):
        model, trainer = make(2, lr=0.1), fit_by(max_epochs=3, progress=False)
        trainer.fit(model, data)
        assert np.abs(w - tf.reshape(model.w, w.shape)).max() < 0.05
        assert abs(b - model.b.numpy()[0]) < 0.05


def linear_concise(d2l):
    class Concise(d2l.Module):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = tf.keras.layers.Dense(1, kernel_initializer=tf.initializers.RandomNormal(stddev=0.01))

        def forward(self, X):
            return self.net(X)

        def loss(self, y_hat, y):
            return tf.keras.losses.MeanSquaredError()(y, y_hat)

        def configure_optimizers(self):
            return tf.keras.optimizers.SGD(self.lr)

        def get_w_b(self):
            return self.get_weights()[0], self.get_weights()[1]

    w, b = tf.constant([2, -3.4]), 4.2
    data = d2l.SyntheticRegressionData(w, b)
    for model in (Concise(lr=0.1), d2l.LinearRegression(lr=0.1)):
        d2l.Trainer(max_epochs=3, progress=False).fit(model, data)
        found_w, found_b = model.get_w_b()
        assert np.abs(w - found_w.reshape(w.shape)).max() < 0.05
        assert abs(b - found_b[0]) < 0.05
    d2l.LinearRegression(lr=0.1).layer_summary((5, 2))


def weight_decay(d2l):
    class Data(d2l.DataModule):
        def __init__(self, num_train, num_val, num_inputs, batch_size):
            self.save_hyperparameters()
            count = num_train + num_val
            self.X = tf.random.normal((count, num_inputs))
            w, b = tf.ones((num_inputs, 1)) * 0.01, 0.05
            self.y = tf.matmul(self.X, w) + b + tf.random.normal((count, 1)) * 0.01

        def get_dataloader(self, train):
            rows = slice(0, self.num_train) if train else slice(self.num_train, None)
            return self.get_tensorloader([self.X, self.y], train, rows)

    def l2_penalty(w):
        return tf.reduce_sum(w**2) / 2

    class DecayScratch(d2l.LinearRegressionScratch):
        def __init__(self, num_inputs, lambd, lr, sigma=0.01):
            super().__init__(num_inputs, lr, sigma)
            self.save_hyperparameters()

        def loss(self, y_hat, y):
            return super().loss(y_hat, y) + self.lambd * l2_penalty(self.w)

    class Decay(d2l.LinearRegression):
        def __init__(self, wd, lr):
            super().__init__(lr)
            self.save_hyperparameters()
            self.net = tf.keras.layers.Dense(
                1,
                kernel_regularizer=tf.keras.regularizers.l2(wd),
                kernel_initializer=tf.keras.initializers.RandomNormal(0, 0.01),
            )

        def loss(self, y_hat, y):
            return super().loss(y_hat, y) + self.net.losses

    data = Data(num_train=20, num_val=100, num_inputs=200, batch_size=5)

    def norm(model):
        model.board.yscale = "log"
        d2l.Trainer(max_epochs=6, progress=False).fit(model, data)
        w = model.w if hasattr(model, "w") else model.get_w_b()[0]
        return float(l2_penalty(w))

    assert norm(DecayScratch(num_inputs=200, lambd=3, lr=0.01)) < norm(DecayScratch(200, lambd=0, lr=0.01))
    assert norm(Decay(wd=3, lr=0.01)) < norm(Decay(wd=0, lr=0.01))


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
    def accuracy(self, Y_hat, Y, averaged=True):
        Y_hat = d2l.reshape(Y_hat, (-1, Y_hat.shape[-1]))
        guesses = d2l.astype(d2l.argmax(Y_hat, axis=1), Y.dtype)
        hits = d2l.astype(guesses == d2l.reshape(Y, (-1,)), d2l.float32)
        return d2l.reduce_mean(hits) if averaged else hits

    scores, labels = d2l.tensor([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]]), d2l.tensor([0, 2])
    for kind in (Reporting, d2l.Classifier):
        assert float(kind().accuracy(scores, labels)) == 0.5
        assert d2l.numpy(kind().accuracy(scores, labels, averaged=False)).tolist() == [0, 1]


def softmax_scratch(d2l):
    def softmax(X):
        X_exp = tf.exp(X)
        return X_exp / tf.reduce_sum(X_exp, 1, keepdims=True)

    X = d2l.rand((2, 5))
    np.testing.assert_allclose(tf.reduce_sum(softmax(X), 1), 1, rtol=1e-6)

    def cross_entropy(y_hat, y):
        return -tf.reduce_mean(tf.math.log(tf.boolean_mask(y_hat, tf.one_hot(y, depth=y_hat.shape[-1]))))

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
    wrong = d2l.astype(guesses, y.dtype) != y
    X, y, guesses = X[wrong], y[wrong], guesses[wrong]
    labels = [a + "\n" + b for a, b in zip(data.text_labels(y), data.text_labels(guesses), strict=True)]
    data.visualize([X, y], labels=[labels])


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
        def __init__(self, num_inputs, num_outputs, num_hiddens, lr, sigma=0.01):
            super().__init__()
            self.save_hyperparameters()
            self.W1 = tf.Variable(tf.random.normal((num_inputs, num_hiddens)) * sigma)
            self.b1 = tf.Variable(tf.zeros(num_hiddens))
            self.W2 = tf.Variable(tf.random.normal((num_hiddens, num_outputs)) * sigma)
            self.b2 = tf.Variable(tf.zeros(num_outputs))

        def forward(self, X):
            H = relu(tf.matmul(tf.reshape(X, (-1, self.num_inputs)), self.W1) + self.b1)
            return tf.matmul(H, self.W2) + self.b2

    model = MLPScratch(num_inputs=784, num_outputs=10, num_hiddens=64, lr=0.1)
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
    x = tf.Variable(tf.range(-8.0, 8.0, 0.1))
    with tf.GradientTape() as tape:
        y = tf.nn.sigmoid(x)
    slope = tape.gradient(y, x)
    d2l.plot(x.numpy(), [y.numpy(), slope.numpy()], legend=["sigmoid", "gradient"], figsize=(4.5, 2.5))
    assert float(tf.reduce_max(slope)) <= 0.25

    M = d2l.normal((4, 4))
    start = float(tf.norm(M))
    for _ in range(100):
        M = d2l.matmul(M, d2l.normal((4, 4), 0, 1))
    assert float(tf.norm(M)) > 1e6 * start


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
    trainer, losses, models = d2l.Trainer(max_epochs=5, progress=False), [], []
    for i, data in enumerate(folds(X, y, 3)):
        model = d2l.LinearRegression(lr=0.1)
        model.board.yscale = "log"
        if i != 0:
            model.board.display = False
        trainer.fit(model, data)
        losses.append(float(model.board.data["val_loss"][-1].y))
        models.append(model)
    assert len(losses) == 3
    assert max(losses) < 0.5
    outputs = [model(tf.constant(X)) for model in models]
    mean = d2l.reduce_mean(d2l.concat(outputs, 1), 1)
    assert float(tf.reduce_mean((mean - y[:, 0]) ** 2)) < 0.5


SECTIONS = {
    each.__name__: each
    for each in (
        oo_design,
        synthetic_data,
        linear_scratch,
        linear_concise,
        weight_decay,
        image_data,
        base_classifier,
        softmax_scratch,
        softmax_concise,
        mlp_scratch,
        mlp_concise,
        stability,
        k_fold,
    )
}

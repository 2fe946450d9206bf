"""Linear regression in TensorFlow, and what the book's classes are made of: sections as their reader writes them."""

import random

import numpy as np
import tensorflow as tf


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
    for x in np.arange(0, 6, 0.25):
        board.draw(x, np.tanh(x), "saturating", every_n=4)
        board.draw(x, np.exp(-x), "decaying", every_n=3)

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

        def apply_gradients(self, pairs):
            for slope, variable in pairs:
                variable.assign(variable - self.lr * slope)

    class ByLoops(d2l.Trainer):
        def fit_epoch(self):
            model, limit = self.model, self.gradient_clip_val
            model.training = True
            for batch in map(self.prepare_batch, self.train_dataloader):
                with tf.GradientTape() as tape:
                    loss = model.training_step(batch)
                slopes = tape.gradient(loss, model.trainable_variables)
                slopes = self.clip_gradients(limit, slopes) if limit else slopes
                self.optim.apply_gradients(zip(slopes, model.trainable_variables, strict=True))
                self.train_batch_idx += 1
            model.training = False
            for batch in map(self.prepare_batch, self.val_dataloader):
                model.validation_step(batch)
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
    class Wide(d2l.DataModule):  # more weights than samples
        def __init__(self, count, held_out, width, batch_size=6):
            self.save_hyperparameters()
            self.X = tf.random.normal((count + held_out, width))
            self.y = tf.reduce_mean(self.X, 1, keepdims=True) + 0.1

        def get_dataloader(self, train):
            rows = slice(None, self.count) if train else slice(self.count, None)
            return self.get_tensorloader([self.X, self.y], train, rows)

    def half_square(w):
        return tf.reduce_sum(w * w) / 2

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
            small, penalty = tf.keras.initializers.RandomNormal(0, 0.01), tf.keras.regularizers.l2(strength)
            self.net = tf.keras.layers.Dense(1, kernel_initializer=small, kernel_regularizer=penalty)

        def loss(self, y_hat, y):
            return super().loss(y_hat, y) + self.net.losses

    data = Wide(count=24, held_out=48, width=160)

    def norm(model):
        model.board.yscale = "log"
        d2l.Trainer(max_epochs=6, progress=False).fit(model, data)
        w = model.w if hasattr(model, "w") else model.get_w_b()[0]
        return float(half_square(w))

    assert norm(Scratch(160, strength=3, lr=0.01)) < norm(Scratch(160, strength=0, lr=0.01))
    assert norm(Concise(strength=3, lr=0.01)) < norm(Concise(strength=0, lr=0.01))


SECTIONS = {
    "oo_design": oo_design,
    "synthetic_data": synthetic_data,
    "linear_scratch": linear_scratch,
    "linear_concise": linear_concise,
    "weight_decay": weight_decay,
}

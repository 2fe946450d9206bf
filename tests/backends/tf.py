"""TensorFlow: what tests need of it."""

from types import SimpleNamespace

import tensorflow as tf

from backends.common import drop, finish, loss_times_ten, losses_of, starting_weights

__all__ = ["drop", "finish", "loss_times_ten", "losses_of"]

layers = tf.keras.layers

FLOATS = ["float16", "bfloat16", "float32", "float64"]
DEFAULT_FLOAT = "float32"
HAS_AUTODIFF = True
HAS_VIEWS = False
TRACES_STEPS = True
GRADIENTS_ARE_VALUES = True


def as_dtype(d2l, X, dtype):
    return d2l.astype(d2l.array(X), dtype)


def with_gradient(d2l, function, X):
    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = function(X)
    return Y, tape.gradient(Y, X)


def set_mode(model, training):
    model.training = training


def concise_net(d2l, rate, lr=0.5):
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy
    net = tf.keras.Sequential([layers.Flatten(), layers.Dense(10), layers.Dropout(rate)])
    losses = cross_entropy(from_logits=True), cross_entropy(from_logits=True, reduction="none")
    return SimpleNamespace(net=net, losses=losses, updater=tf.keras.optimizers.SGD(lr))


def scratch_net(d2l, rate, lr=0.5):
    W = tf.Variable(starting_weights())

    def net(X, training=False):
        Y = d2l.reshape(X, (len(X), -1)) @ W
        return d2l.dropout_layer(Y, rate) if training else Y

    def updater(batch_size, grads):
        d2l.sgd([W], grads, lr, batch_size)

    updater.params = [W]
    return SimpleNamespace(net=net, updater=updater)


def spied(d2l, loss, note):
    def spy(y_hat, y):  # a function, which takes the labels last; a loss of Keras takes them first
        note(d2l.numpy(y_hat))
        return loss(y, y_hat)

    return spy


def readers_models(d2l):
    def dropout_layer(X, dropout):
        mask = tf.random.uniform(shape=tf.shape(X), minval=0, maxval=1) < 1 - dropout
        return tf.cast(mask, dtype=tf.float32) * X / (1.0 - dropout)

    class Scratch(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.lin1, self.lin2 = layers.Dense(num_hiddens, activation="relu"), layers.Dense(num_outputs)

        def forward(self, X):
            H = self.lin1(tf.reshape(X, (X.shape[0], -1)))
            if self.training:
                H = dropout_layer(H, self.dropout)
            return self.lin2(H)

    class Concise(d2l.Classifier):
        def __init__(self, num_outputs, num_hiddens, dropout, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = tf.keras.models.Sequential(
                [
                    layers.Flatten(),
                    layers.Dense(num_hiddens, activation=tf.nn.relu),
                    layers.Dropout(dropout),
                    layers.Dense(num_outputs),
                ]
            )

    return Scratch, Concise


def with_batch_norm(d2l):
    """Return a class of models, made from `lr`, with buffers beside their parameters."""

    class Normalised(d2l.Classifier):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            layers = tf.keras.layers
            self.net = tf.keras.Sequential(
                [layers.Flatten(), layers.Dense(8), layers.BatchNormalization(), layers.Dense(10)]
            )

    return Normalised


def with_adam(d2l, kind):
    """Return a kind of model that is trained with Adam."""

    class Adaptive(kind):
        def configure_optimizers(self):
            return tf.keras.optimizers.Adam(0.01)

    return Adaptive

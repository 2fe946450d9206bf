"""What readers write in TensorFlow: parameters as plain variables, steps that want values, and Keras' extra losses."""

from contextlib import suppress

import numpy as np
import pytest

import d2ldrop

pytestmark = pytest.mark.only_tf

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((40, 3), np.float32), RNG.integers(0, 2, 40)


def fitted(d2l, model, epochs=2, batch_size=16, y=Y, **options):
    """Return a trainer that has trained a model on a few samples from seed 0."""
    trainer = d2l.Trainer(epochs, seed=0, progress=False, **options)
    trainer.fit(model, d2l.ArrayData(X, y, X, y, batch_size=batch_size))
    return trainer


def wanting(d2l, what):
    """Return a model with dropout, of which some part wants to know values while it trains."""
    import tensorflow as tf

    class Model(d2l.Classifier):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = tf.keras.layers.Dense(8, activation="relu"), tf.keras.layers.Dense(2)
            self.calls = 0

        def forward(self, X):
            H = self.hidden(X)
            if what == "an if":
                assert tf.reduce_max(H) >= 0
            return self.out(d2l.dropout_layer(H, 0.5) if self.training else H)

        def training_step(self, batch):
            self.calls += 1
            loss = super().training_step(batch)
            if what == "float":
                assert float(loss) > 0
            if what == "numpy of a variable":
                assert np.isfinite(self.hidden.kernel.numpy()).all()
            return loss

        def validation_step(self, batch):
            super().validation_step(batch)
            if what == "validation":
                assert f"{self.loss(self(batch[0]), batch[1]):.3f}"

        def loss(self, y_hat, y):
            if what == "argmax":
                assert np.argmax(y_hat, axis=1).shape == (len(y),)
            return super().loss(y_hat, y)

        def configure_optimizers(self):
            return ByHand(0.1) if what == "optimiser" else tf.keras.optimizers.SGD(0.1)

    class ByHand(d2l.SGD):
        def apply_gradients(self, pairs):
            for grad, param in pairs:
                param.assign(param.numpy() - self.lr * grad.numpy())

    return Model()


@pytest.fixture(scope="module")
def compiled():
    """Return the weights and the history of the model whose steps are compiled."""
    d2l = d2ldrop.backend("tf")
    model = wanting(d2l, "nothing")
    history = fitted(d2l, model, 1).history
    assert model.calls == 2  # as it is traced for 16 samples, and for 8
    return d2l.get_weights(model), history


@pytest.mark.parametrize(
    "what", ["float", "numpy of a variable", "an if", "validation", "argmax", "optimiser", "to run eagerly"]
)
def test_steps_that_want_values_run_eagerly_with_the_same_outcome(d2l, what, compiled):
    """The order, the masks of `dropout_layer` and the number of steps are those of a model that is compiled."""
    import tensorflow as tf

    model, (weights, history) = wanting(d2l, what), compiled
    tf.config.run_functions_eagerly(what == "to run eagerly")
    try:
        trainer = fitted(d2l, model, 1)
    finally:
        tf.config.run_functions_eagerly(False)
    assert model.calls == {"validation": 2, "to run eagerly": 3}.get(what, 1 + 3)  # a trace in vain, and each batch
    for name, value in d2l.get_weights(model).items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-4, atol=1e-5)
    for metric in ("train_loss", "val_loss"):
        assert trainer.history[0][metric] == pytest.approx(history[0][metric], rel=1e-4)


def test_other_errors_of_a_step_are_not_tried_again(d2l):
    class Model(d2l.SoftmaxRegression):
        calls = 0

        def training_step(self, batch):
            self.calls += 1
            return batch[5]

    model = Model(num_outputs=2, lr=0.1)
    with pytest.raises(IndexError):
        fitted(d2l, model)
    assert model.calls == 1


def test_eager_training_with_draws_of_the_reader_is_resumed_bit_by_bit(d2l, tmp_path):
    import tensorflow as tf

    class Noisy(d2l.SoftmaxRegression):
        def training_step(self, batch):
            loss = super().training_step((batch[0] + tf.random.normal(tf.shape(batch[0])), batch[1]))
            self.plot("twice", 2 * float(loss), train=True)
            return loss

    class Stop(d2ldrop.Callback):
        def on_epoch_start(self, trainer):
            if trainer.epoch == 1:
                raise KeyboardInterrupt

    data = d2l.ArrayData(X, Y, X, Y, batch_size=16)

    def fit(callbacks, resume=None):
        model, trainer = Noisy(num_outputs=2, lr=0.1), d2l.Trainer(2, seed=0, progress=False, callbacks=callbacks)
        with suppress(KeyboardInterrupt):
            trainer.fit(model, data, resume=resume)
        return d2l.get_weights(model), [row["train_twice"] for row in trainer.history]

    weights, history = fit([])
    fit([Stop(), d2ldrop.Checkpoint(tmp_path)])
    resumed, again = fit([d2ldrop.Checkpoint(tmp_path)], resume=tmp_path)
    assert history == again
    for name, value in weights.items():
        np.testing.assert_array_equal(resumed[name], value)


def holding(d2l, form):
    """Return a linear model whose variables are in some container."""
    import tensorflow as tf

    class Model(d2l.Classifier):
        def __init__(self, lr=0.1):
            super().__init__()
            self.save_hyperparameters()
            W, b = tf.Variable(tf.random.normal((3, 2))), tf.Variable(tf.zeros(2))
            if form == "list":
                self.params = [W, b]
            elif form == "appended":
                self.params = []
                self.params.append(W)
                self.params += [b]
            elif form == "dictionary":
                self.params = {"W": W, "b": b}
            elif form == "twice":
                self.W, self.b = W, b
                self.params = [W, b]
            self.seen = W  # the variable itself

        def forward(self, X):
            W, b = self.params.values() if form == "dictionary" else self.params
            return tf.matmul(X, W) + b

    return Model()


@pytest.mark.parametrize("form", ["list", "appended", "dictionary", "twice"])
def test_variables_in_containers_are_trained_saved_and_restored(d2l, form, tmp_path):
    model = holding(d2l, form)
    before = d2l.numpy(model.seen)
    trainer = fitted(d2l, model, 1)
    assert (d2l.numpy(model.seen) != before).any()
    weights = d2l.get_weights(model)
    names = {"dictionary": {"params.W", "params.b"}, "twice": {"W", "b"}}.get(form, {"params.0", "params.1"})
    assert set(weights) == names
    assert len(model.trainable_variables) == 2

    d2ldrop.save_weights(model, tmp_path / "w.safetensors")
    copy = holding(d2l, form)
    d2ldrop.load_weights(copy, tmp_path / "w.safetensors", X[:1])
    np.testing.assert_array_equal(trainer.predict(X, copy), trainer.predict(X))

    class Explode(d2ldrop.Callback):
        def on_epoch_start(self, trainer):
            if trainer.epoch == 1:
                trainer.optim.learning_rate = np.nan

    kept = {}

    class Keep(d2ldrop.Callback):
        def on_epoch_end(self, trainer):
            kept.update(d2l.get_weights(trainer.model))

    with pytest.raises(d2ldrop.DivergedError):
        fitted(d2l, model, callbacks=[Explode(), Keep()])
    for name, value in d2l.get_weights(model).items():
        np.testing.assert_array_equal(value, kept[name])


def test_what_a_subclass_replaces_is_neither_trained_nor_saved(d2l):
    """A layer that is never built would let each evaluation initialise, and so seed, the model anew."""
    import tensorflow as tf

    class Wide(d2l.LinearRegressionScratch):
        def __init__(self, lr=0.1):
            super().__init__(num_inputs=3, lr=lr)
            self.w = tf.Variable(tf.ones((3, 1)))

    class Own(d2l.LinearRegression):
        def __init__(self, lr=0.1):
            super().__init__(lr)
            layers = tf.keras.layers
            self.net = tf.keras.Sequential([layers.Dense(64), layers.Dropout(0.5), layers.Dense(1)])

    class Evaluate(d2ldrop.Callback):
        def on_refresh(self, trainer):
            trainer.evaluate()

    y = X.sum(axis=1) + 0.5
    wide = Wide()
    fitted(d2l, wide, 1, y=y)
    assert {name: value.shape for name, value in d2l.get_weights(wide).items()} == {"w": (3, 1), "b": (1,)}
    assert len(wide.trainable_variables) == 2
    losses = [fitted(d2l, Own(), 1, y=y, callbacks=each).history[-1]["train_loss"] for each in ([], [Evaluate()])]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("reader_adds", [False, True])
def test_all_losses_of_keras_layers_count_once(d2l, reader_adds):
    """Those of weights and those of outputs, as in Keras' own `fit`, in each of several steps."""
    import tensorflow as tf

    regularizers = tf.keras.regularizers

    def made():
        options = {"kernel_regularizer": regularizers.L2(0.1), "activity_regularizer": regularizers.L2(0.1)}
        return tf.keras.Sequential([tf.keras.layers.Dense(2, kernel_initializer="ones", **options)])

    class Model(d2l.Classifier):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def loss(self, y_hat, y):
            return super().loss(y_hat, y) + (sum(self.net.losses) if reader_adds else 0)

        def configure_optimizers(self):
            return tf.keras.optimizers.SGD(0.5)

    ours, theirs = made(), made()
    model = Model(ours)
    fitted(d2l, model, 3, batch_size=40)
    theirs.compile(tf.keras.optimizers.SGD(0.5), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    theirs.fit(X, Y, batch_size=40, epochs=3, verbose=0)
    for value, right in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-5)


def test_a_loss_with_an_axis_is_reported_as_a_number(d2l):
    """Keras' `losses` is a list, so that a loss plus it has an axis; here in an epoch that a reader has written."""
    import tensorflow as tf

    class Model(d2l.LinearRegression):
        def __init__(self, lr):
            super().__init__(lr)
            self.net = tf.keras.layers.Dense(1, kernel_regularizer=tf.keras.regularizers.L2(0.1))

        def loss(self, y_hat, y):
            return super().loss(y_hat, y) + self.net.losses

    class ByLoops(d2l.Trainer):
        def fit_epoch(self):
            for batch in self.train_dataloader:
                with tf.GradientTape() as tape:
                    loss = self.model.training_step(self.prepare_batch(batch))
                grads = tape.gradient(loss, self.model.trainable_variables)
                self.optim.apply_gradients(zip(grads, self.model.trainable_variables, strict=True))
                self.train_batch_idx += 1

    y = X.sum(axis=1) + 0.5
    by_loops = ByLoops(2, seed=0, progress=False)
    by_loops.fit(Model(0.1), d2l.ArrayData(X, y, X, y, batch_size=16))
    trainer = fitted(d2l, Model(0.1), y=y)
    for row, right in zip(by_loops.history, trainer.history, strict=True):
        assert row["train_loss"] == pytest.approx(right["train_loss"], rel=1e-4)


@pytest.mark.parametrize("form", ["in the optimiser", "in lists"])
def test_schedules_of_keras_decide_the_rate(d2l, form):
    """After the third of the six steps, the rate is 0."""
    import tensorflow as tf

    class Model(d2l.SoftmaxRegression):
        def configure_optimizers(self):
            schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.0])
            if form == "in lists":
                return [tf.keras.optimizers.SGD(1.0)], [schedule]
            return tf.keras.optimizers.SGD(schedule)

    once, twice = Model(num_outputs=2, lr=0.1), Model(num_outputs=2, lr=0.1)
    first, _ = fitted(d2l, once, 1), fitted(d2l, twice, 2)
    assert first.history[0]["train_loss"] > 0
    for name, value in d2l.get_weights(once).items():
        np.testing.assert_array_equal(d2l.get_weights(twice)[name], value)


def test_what_is_no_optimiser_is_refused(d2l):
    class Model(d2l.SoftmaxRegression):
        def configure_optimizers(self):
            return {"optimizer": None}

    with pytest.raises(d2ldrop.D2LDropError, match="Expected configure_optimizers to return an optimiser of Keras"):
        fitted(d2l, Model(num_outputs=2, lr=0.1))


def test_shapes_of_random_arrays_are_written_as_tensorflow_has_them(d2l):
    import tensorflow as tf

    like = tf.zeros((2, 5))
    for draw in (d2l.rand, d2l.randn):
        for shape in ((2, 5), ((2, 5),), ([2, 5],), (like.shape,), (tf.shape(like),)):
            assert tuple(draw(*shape).shape) == (2, 5)
        assert draw(3).shape == (3,)
        assert draw().shape == ()
    assert float(tf.reduce_min(d2l.rand((50,), minval=3, maxval=4))) >= 3
    for arguments in (((1000,), 5.0, 0.1), (5.0, 0.1, (1000,))):
        drawn = d2l.normal(*arguments)
        assert drawn.shape == (1000,)
        assert float(tf.reduce_mean(drawn)) == pytest.approx(5, abs=0.02)
        assert float(tf.math.reduce_std(drawn)) == pytest.approx(0.1, abs=0.02)
    assert d2l.normal((3, 4)).shape == d2l.normal(shape=(3, 4), stddev=2.0).shape == (3, 4)


def test_layer_summary_of_a_single_layer(d2l, capsys):
    d2l.LinearRegression(lr=0.1).layer_summary((5, 3))
    assert "(5, 1)" in capsys.readouterr().out


def test_variables_whose_names_would_be_the_same_are_all_kept(d2l):
    import tensorflow as tf

    class Alike(d2l.Module):
        def __init__(self):
            super().__init__()
            self.params = {0: tf.Variable(tf.zeros((2, 1))), "0": tf.Variable(tf.zeros(1))}
            self.lin1 = {"weight": tf.Variable(tf.zeros(3))}
            self.dense = tf.keras.layers.Dense(1)

        def forward(self, X):
            return self.dense(X) + X @ self.params[0] + self.params["0"]

    model = Alike()
    model(tf.ones((1, 2)))
    shapes = sorted(values.shape for values in d2l.get_weights(model).values())
    assert shapes == [(1,), (1,), (1, 2), (2, 1), (3,)]

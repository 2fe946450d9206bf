"""What readers bring: their own models and dropout, a mask per step, overrides, and no waste in compilers."""

import threading

import numpy as np
import pytest

import d2ldrop

KINDS = ["reader's scratch", "reader's concise", "our scratch", "our concise"]


def made(d2l, own, kind, lr=0.5):
    """Return a new model of a kind, with dropout 0.5."""
    concise = kind.endswith("concise")
    if kind.startswith("reader's"):
        return own.readers_models(d2l)[concise](num_outputs=10, num_hiddens=64, dropout=0.5, lr=lr)
    Model = d2l.DropoutMLP if concise else d2l.DropoutMLPScratch
    return Model(num_outputs=10, num_hiddens_1=64, num_hiddens_2=64, dropout_1=0.5, dropout_2=0.5, lr=lr)


@pytest.mark.parametrize("kind", KINDS)
def test_models_learn(d2l, own, kind):
    trainer = d2l.Trainer(max_epochs=12, seed=0, progress=False)
    trainer.fit(made(d2l, own, kind), d2l.Digits(batch_size=64))
    assert trainer.history[-1]["val_acc"] > 0.8


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_each_step_draws_a_new_mask_and_evaluation_none(d2l, own, kind, seed):
    """Where nothing is learnt and all samples are one, only the masks can make the losses of steps differ."""
    X = np.ones((68, 4, 4, 1) if d2l.channels_last else (68, 1, 4, 4), np.float32)
    y = np.zeros(68, np.int64)
    data = d2l.ArrayData(X, y, X, y, batch_size=8)
    losses, validations = [], set()

    class Look(d2ldrop.Callback):
        def on_epoch_end(self, trainer):
            losses.extend(trainer.epoch_log["train_loss"][0])
            validations.add(trainer.history[-1]["val_loss"])

    d2l.Trainer(max_epochs=3, seed=seed, callbacks=[Look()], progress=False).fit(made(d2l, own, kind, lr=1e-12), data)
    assert len(losses) == 3 * 9
    assert len(set(losses)) >= 26  # two masks may by chance give the same sum, in float32
    assert len(validations) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_compilers_trace_once_per_shape_not_per_epoch(d2l, own, kind):
    """The body of a step runs in Python as often as it is traced; without a compiler, at each step."""
    model, calls = made(d2l, own, kind), []

    class Traced(type(model)):
        def training_step(self, *args):
            calls.append(1)
            return super().training_step(*args)

    names = {"num_outputs", "num_hiddens", "num_hiddens_1", "num_hiddens_2", "dropout", "dropout_1", "dropout_2", "lr"}
    hparams = {name: value for name, value in model.hparams.items() if name in names}
    counts = []
    for epochs in (1, 4):
        calls.clear()
        d2l.Trainer(max_epochs=epochs, seed=0, progress=False).fit(Traced(**hparams), d2l.Digits(batch_size=64))
        counts.append(len(calls))
    if own.TRACES_STEPS:
        assert counts[0] == counts[1] <= 6
    else:
        assert counts == [23, 4 * 23]


def test_overridden_steps_take_effect(d2l, own):
    """A loss that is ten times as large must be seen in the history, and in how far the weights go."""

    def train(kind):
        model = kind(num_outputs=10, lr=0.01)
        trainer = d2l.Trainer(max_epochs=1, seed=0, progress=False)
        trainer.fit(model, d2l.Digits(batch_size=1437))
        return trainer.history[0]["train_loss"], d2l.get_weights(model)["lin1.bias"]

    class Doubled(d2l.SoftmaxRegression):
        def training_step(self, *args):
            result = super().training_step(*args)
            self.plot("twice", 2 * (result[0][0] if isinstance(result, tuple) else result), train=True)
            return result

    plain, tenfold = train(d2l.SoftmaxRegression), train(own.loss_times_ten(d2l))
    assert tenfold[0] == pytest.approx(10 * plain[0], rel=1e-5)
    assert np.abs(tenfold[1] - plain[1]).max() > 1e-4
    trainer = d2l.Trainer(max_epochs=2, seed=0, progress=False)
    trainer.fit(Doubled(num_outputs=10, lr=0.1), d2l.Digits())
    for row in trainer.history:
        assert row["train_twice"] == pytest.approx(2 * row["train_loss"], rel=1e-5)


@pytest.mark.only_jax
def test_jax_keys(d2l):
    import jax

    keys = {np.asarray(d2l.get_key()).tobytes() for _ in range(100)}
    assert len(keys) == 100
    X = d2l.ones((50, 50))
    key = d2l.get_key()
    pure = jax.jit(lambda X, key: d2l.dropout_layer(X, 0.5, key=key))
    assert (pure(X, key) == d2l.dropout_layer(X, 0.5, key=key)).all()
    assert (pure(X, key) != pure(X, d2l.get_key())).any()
    _, masks = jax.lax.scan(
        lambda carry, key: (carry, d2l.dropout_layer(X, 0.5, key=key)), 0, jax.random.split(jax.random.key(0), 20)
    )
    assert len({np.asarray(mask).tobytes() for mask in masks}) == 20
    with pytest.raises(d2ldrop.UsageError, match="Expected a key for dropout_layer"):
        jax.jit(lambda X: d2l.dropout_layer(X, 0.5))(X)


@pytest.mark.only_tf
def test_masks_in_a_tf_function(d2l):
    import tensorflow as tf

    X = d2l.ones((50, 50))
    for layer in (d2l.dropout_layer, d2ldrop.dropout_layer):  # AutoGraph converts the latter

        def drop(X, layer=layer):
            return layer(X, 0.5)

        compiled = tf.function(drop)
        assert len({compiled(X).numpy().tobytes() for _ in range(20)}) == 20


@pytest.mark.only_mxnet
def test_mxnet_leaves_numpy_as_it_is(d2l):
    assert "bool" not in vars(np) or np.bool is np.bool_
    from mxnet import np as mnp

    assert d2l.is_array(mnp.ones(3))


@pytest.mark.only_jax
def test_batch_statistics_are_updated_in_training(d2l):
    from flax import linen as nn

    class Model(d2l.Classifier):
        lr: float = 0.1
        training: bool = True

        @nn.compact
        def __call__(self, X):
            X = nn.BatchNorm(use_running_average=not self.training)(X.reshape(X.shape[0], -1))
            return nn.Dense(10)(X)

    model, trainer = Model(), d2l.Trainer(max_epochs=2, seed=0, progress=False)
    trainer.fit(model, d2l.Digits())
    weights = d2l.get_weights(model)
    (mean,) = (value for name, value in weights.items() if name.endswith(".mean"))
    X = d2l.Digits().split(True).X.reshape(1437, -1)
    share = 1 - 0.99**46  # how far the running mean has come from 0, with Flax's momentum, in 46 steps
    np.testing.assert_allclose(mean, share * X.mean(axis=0), atol=0.02)
    assert trainer.history[-1]["val_acc"] > 0.8


@pytest.mark.only_tf
def test_variables_of_a_reader_are_trained_and_saved(d2l):
    import tensorflow as tf

    class Model(d2l.Classifier):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.W = tf.Variable(tf.random.normal((64, 10), stddev=0.01))
            self.b = tf.Variable(tf.zeros(10))

        def forward(self, X):
            return tf.reshape(X, (-1, 64)) @ self.W + self.b

    model, trainer = Model(0.5), d2l.Trainer(max_epochs=5, seed=0, progress=False)
    trainer.fit(model, d2l.Digits())
    assert trainer.history[-1]["val_acc"] > 0.8
    assert {name: value.shape for name, value in d2l.get_weights(model).items()} == {"W": (64, 10), "b": (10,)}


@pytest.mark.only_tf
def test_compiled_functions_for_other_batch_sizes_draw_other_numbers(d2l):
    """Each step reports which of 20 elements were kept: no two steps agree, in batches of 8 or in the last one of 4."""
    import tensorflow as tf

    class Model(d2l.SoftmaxRegression):
        def training_step(self, batch):
            kept = tf.random.uniform((20,)) > 0.5  # from TensorFlow's own generator
            self.plot("kept", tf.reduce_sum(tf.cast(kept, tf.float32) * 2.0 ** tf.range(20.0)), train=True)
            return super().training_step(batch)

    X, y = np.ones((20, 3), np.float32), np.zeros(20, np.int64)
    codes = []

    class Look(d2ldrop.Callback):
        def on_epoch_end(self, trainer):
            codes.extend(trainer.epoch_log["train_kept"][0])

    model = Model(num_outputs=10, lr=0.1)
    model.plot_train_per_epoch = 1
    d2l.Trainer(max_epochs=3, seed=0, callbacks=[Look()], progress=False).fit(model, d2l.ArrayData(X, y, X, y, 8))
    assert len(codes) == len(set(codes)) == 9


@pytest.mark.only_numpy
def test_layers_in_containers_and_layers_with_parameters_of_their_own_by_hand(d2l, tmp_path):
    class Scale(d2l.Layer):
        def __init__(self, width):
            self.W = np.ones(width, np.float32)

        def forward(self, X):
            self.X = X
            return X * self.W

        def backward(self, dY):
            self.dW = (dY * self.X).sum(axis=0)
            return dY * self.W

    class Model(d2l.Classifier):
        def __init__(self, lr):
            self.save_hyperparameters()
            self.hidden = [d2l.Linear(16), d2l.ReLU()]
            self.more = {"scale": Scale(16)}
            self.last = (d2l.Linear(10),)

        def sequence(self):
            return *self.hidden, self.more["scale"], *self.last

        def forward(self, X):
            X = X.reshape(len(X), -1)
            for layer in self.sequence():
                X = layer(X)
            return X

        def backward(self, dY):
            for layer in reversed(self.sequence()):
                dY = layer.backward(dY)

    model, trainer = Model(0.3), d2l.Trainer(max_epochs=5, seed=0, progress=False)
    trainer.fit(model, d2l.Digits())
    assert trainer.history[-1]["val_acc"] > 0.8
    weights = d2l.get_weights(model)
    assert set(weights) == {"lin1.weight", "lin1.bias", "scale1.W", "lin2.weight", "lin2.bias"}
    assert (weights["scale1.W"] != 1).any()
    d2ldrop.save_weights(model, tmp_path / "w.safetensors")
    copy, X = Model(0.3), d2l.Digits().split(False).X
    d2ldrop.load_weights(copy, tmp_path / "w.safetensors", X[:1])
    np.testing.assert_array_equal(trainer.predict(X, copy), trainer.predict(X))


@pytest.mark.only_tf
@pytest.mark.parametrize("own_loss", [False, True])
def test_regularizers_of_keras_shrink_weights_as_in_its_fit(d2l, own_loss):
    """Also where a reader's loss adds the terms, they count once; the loss reported by our steps is without them."""
    import tensorflow as tf

    X, y = d2l.Digits().split(True, True)
    X = X.astype(np.float32) / 255

    def made(strength=0.3):
        penalty = tf.keras.regularizers.L2(strength) if strength else None
        dense = tf.keras.layers.Dense(10, kernel_initializer="ones", kernel_regularizer=penalty)
        return tf.keras.Sequential([tf.keras.layers.Flatten(), dense])

    class Model(d2l.Classifier):
        def __init__(self, net, lr=0.1):
            super().__init__()
            self.save_hyperparameters(ignore=["net"])
            self.net = net

        def loss(self, y_hat, y):
            return super().loss(y_hat, y) + (sum(self.net.losses) if own_loss else 0)

    def by_trainer(net):
        data = d2l.ArrayData(X, y, X, y, batch_size=len(X))
        d2l.Trainer(max_epochs=5, seed=0, progress=False).fit(Model(net), data)
        return net.get_weights()

    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def by_learn(net):
        updater = tf.keras.optimizers.SGD(0.1)
        for _ in range(5):
            d2l.learn(net, tf.constant(X), tf.constant(y), cross_entropy, updater)
        return net.get_weights()

    def by_keras(net):
        net.compile(optimizer=tf.keras.optimizers.SGD(0.1), loss=cross_entropy)
        net.fit(X, y, epochs=5, batch_size=len(X), shuffle=False, verbose=0)
        return net.get_weights()

    expected = by_keras(made())
    for train in (by_trainer, by_learn):
        for value, right in zip(train(made()), expected, strict=True):
            np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(expected[0]) < 0.8 * np.linalg.norm(by_learn(made(0))[0])


@pytest.mark.skip_toy
@pytest.mark.parametrize("kind", ["DropoutMLPScratch", "DropoutMLP"])
def test_a_thread_makes_trains_and_uses_a_model_as_the_main_thread_does(d2l, small, kind):
    def work(results):
        trainer = d2l.Trainer(max_epochs=2, seed=0, progress=False)
        trainer.fit(getattr(d2l, kind)(**small), d2l.Digits())
        X, _ = d2l.Digits().split(False, d2l.channels_last)
        results += [trainer.history[-1]["val_acc"], trainer.predict(X), trainer]

    def in_thread(function, *args):
        thread = threading.Thread(target=function, args=args)
        thread.start()
        thread.join()

    here, there, again = [], [], []
    work(here)
    in_thread(work, there)
    in_thread(lambda: again.append(here[2].evaluate()["val_acc"]))  # of a model from another thread
    assert here[0] == there[0] == again[0]
    np.testing.assert_allclose(here[1], there[1], rtol=1e-3, atol=1e-5)  # PyTorch may sum in another order there

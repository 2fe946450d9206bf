"""The `Dropout` layer for Keras, and models with dropout, under what Keras does with layers and models."""

import copy
import math
import pickle

import numpy as np
import pytest
from dropping_tf import MODELS, check, tf

import d2ldrop

pytestmark = [pytest.mark.only_tf, pytest.mark.filterwarnings("ignore:In the future `np.object`")]


@pytest.fixture
def policy():
    """Set Keras' policy of dtypes, and set it back afterwards."""
    before = tf.keras.config.dtype_policy()
    yield tf.keras.config.set_dtype_policy
    tf.keras.config.set_dtype_policy(before)


# The layer


def test_layer_drops_in_training_alone(d2l):
    layer, X = d2l.Dropout(0.3), tf.ones((60, 70))
    assert layer(X) is X
    assert layer(X, training=False) is X
    assert layer(X, training=None) is X
    check(layer(X, training=True), layer(X, training=True), p=0.3)
    assert d2l.Dropout(0)(X, training=True) is X
    assert not d2l.Dropout(1)(X * math.inf, training=True).numpy().any()
    dropped = d2l.Dropout(0.5)(X * math.nan, training=True).numpy()
    assert 0.4 < (dropped == 0).mean() < 0.6
    assert isinstance(layer, tf.keras.layers.Dropout)
    assert not layer.weights


@pytest.mark.parametrize("rate", [1.5, -0.1, math.nan, "x", None, [0.1, 0.2], 1j])
def test_layer_rejects_rates_when_it_is_made(d2l, rate):
    with pytest.raises((d2ldrop.ArgumentError, d2ldrop.ArgumentTypeError), match=r"Expected rate to be a number in"):
        d2l.Dropout(rate)


def test_noise_shape(d2l):
    X = tf.ones((60, 70, 5))
    for noise_shape in ((None, 1, None), (60, 1, 5), [None, 1, 5]):
        layer = d2l.Dropout(0.3, noise_shape=noise_shape)
        unknown = tf.function(lambda X, layer=layer: layer(X, training=True), input_signature=[tf.TensorSpec(None)])
        for Y in (layer(X, training=True), unknown(X)):
            np.testing.assert_array_equal(Y, np.broadcast_to(Y[:, :1], Y.shape))
            check(Y[:, 0], p=0.3)
    for wrong in ((61, 1, 5), (None, 1), (None, 1, 5, None)):
        with pytest.raises(d2ldrop.ArgumentError, match="Expected noise_shape to have, for each axis"):
            d2l.Dropout(0.3, noise_shape=wrong)(X, training=True)
    fixed = d2l.Dropout(0.3, noise_shape=(61, 1, 5))
    batches = tf.function(lambda X: fixed(X, training=True), input_signature=[tf.TensorSpec((None, 70, 5))])
    assert batches(tf.ones((61, 70, 5))).shape == (61, 70, 5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        batches(X)
    for wrong in ("abc", 3, (0, 1), (-1,), (1.0,), ("a",), (True,)):
        with pytest.raises(d2ldrop.ArgumentError, match="Expected noise_shape to be a tuple"):
            d2l.Dropout(0.3, noise_shape=wrong)


def test_seeds_of_layers(d2l):
    X = tf.ones((60, 70))
    first, again = d2l.Dropout(0.3, seed=3), d2l.Dropout(0.3, seed=3)
    masks = [first(X, training=True) for _ in range(3)]
    check(*masks, d2l.Dropout(0.3, seed=4)(X, training=True), p=0.3)
    compiled = tf.function(lambda X: again(X, training=True))
    for mask in masks:
        np.testing.assert_array_equal(compiled(X), mask)
    for wrong in ("3", 0.5, True):
        with pytest.raises(d2ldrop.ArgumentTypeError, match="Expected seed to be an integer or None"):
            d2l.Dropout(0.3, seed=wrong)
    drawn = []
    for drop in (d2l.Dropout(0.3), d2l.Dropout(0.3), lambda X, training: d2l.dropout_layer(X, 0.3)):
        d2l.seed(5)  # without a seed of its own, a layer draws what `dropout_layer` does
        drawn.append(np.asarray(drop(X, training=True)).tobytes())
    assert len(set(drawn)) == 1


def test_layers_are_made_again(d2l, tmp_path):
    layer = d2l.Dropout(np.float32(0.25), noise_shape=(None, 1), seed=np.int64(7), name="noisy")
    assert {**layer.get_config(), "dtype": None} == {
        "name": "noisy", "trainable": True, "dtype": None, "rate": 0.25, "seed": 7, "noise_shape": (None, 1)
    }  # fmt: skip
    assert repr(layer) == "<Dropout name=noisy, built=True>"
    net = tf.keras.Sequential([tf.keras.Input((70,)), layer, d2l.Dropout(0.5)])
    net.save(tmp_path / "net.keras")
    loaded = tf.keras.models.load_model(tmp_path / "net.keras")  # registered: nothing else to name
    cloned = tf.keras.models.clone_model(net)
    functional = tf.keras.Model(net.inputs, net.outputs)
    made = [d2l.Dropout.from_config(layer.get_config()), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    made += [net.layers[0] for net in (loaded, cloned)] + [tf.keras.models.clone_model(functional).layers[1]]
    expected = layer(tf.ones((60, 70)), training=True)
    for other in made:
        assert type(other) is d2l.Dropout
        assert other is not layer
        np.testing.assert_array_equal(other(tf.ones((60, 70)), training=True), expected)


def test_layers_pass_masks_of_time_steps_on(d2l):
    X = tf.keras.layers.Embedding(5, 3, mask_zero=True)(np.array([[1, 0, 2]]))
    Y = d2l.Dropout(0.5)(X, training=True)
    assert Y._keras_mask.numpy().tolist() == [[True, False, True]]
    steps = tf.keras.layers.TimeDistributed(d2l.Dropout(0.3))
    check(steps(np.ones((60, 2, 70), np.float32), training=True), p=0.3)


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_policies_of_dtypes(d2l, policy, small, name):
    policy(name)
    dtype = name.removeprefix("mixed_")
    Y = d2l.Dropout(0.3)(np.ones((60, 70), np.float32), training=True)
    assert Y.dtype == dtype
    check(Y, p=0.3)
    for kind in MODELS:
        model = getattr(d2l, kind)(**small)
        assert model(tf.ones((2, 64)), training=True).dtype == dtype
        trainer = d2ldrop.Trainer(2, seed=0, progress=False)
        trainer.fit(getattr(d2l, kind)(**small), d2l.Digits())
        assert trainer.history[-1]["train_loss"] < 2.2


def test_trainers_decide_the_masks_of_layers(d2l):
    layers = tf.keras.layers

    class Net(d2l.Classifier):
        def __init__(self, rate, lr):
            super().__init__()
            self.save_hyperparameters()
            self.net = tf.keras.Sequential([layers.Flatten(), layers.Dense(16), d2l.Dropout(rate), layers.Dense(10)])

    def trained(rate, seed):
        trainer = d2ldrop.Trainer(1, seed=seed, progress=False)
        model = Net(rate, 0.1)
        trainer.fit(model, d2l.Digits())
        return d2l.get_weights(model)["lin1.bias"]

    first, again, other, none = trained(0.5, 1), trained(0.5, 1), trained(0.4, 1), trained(0, 1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, none)
    assert not trained(1, 1).any()  # no gradient passes


# Models


def inputs(n=8):
    return np.random.default_rng(0).random((n, 8, 8, 1), np.float32)


def is_random(run, X=None):
    X = inputs() if X is None else X
    return not np.array_equal(run(X), run(X))


def nested(d2l):
    """Return a reader's model with a sequential network inside another one."""
    layers = tf.keras.layers

    class Nested(d2l.Classifier):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.inner = tf.keras.Sequential([layers.Dense(9), layers.Dropout(0.5)])
            self.net = tf.keras.Sequential([layers.Flatten(), self.inner, layers.Dense(10)])

    return Nested(0.1)


@pytest.mark.parametrize("kind", [*MODELS, "reader's"])
def test_models_whose_first_call_trains_do_not_go_on_dropping(d2l, small, kind):
    def made():
        return getattr(d2l, kind)(**small) if kind in MODELS else nested(d2l)

    class Outer(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = made()

        def call(self, X):
            return self.inner(X), self.inner(X)

    class Pair(d2l.Module):
        def __init__(self):
            super().__init__()
            self.inner = made()

        def forward(self, X):
            return self.inner(X), self.inner(X)

    model = made()
    model(inputs(), training=True)
    for run in (model, getattr(model, "net", model)):
        assert not is_random(run)
        assert is_random(lambda X, run=run: run(X, training=True))
    if kind == "reader's":
        assert not is_random(model.inner, tf.ones((8, 64)))
    for outer in (Outer(), Pair()):
        pair = outer(inputs(), training=True)
        assert not is_random(outer.inner)
        assert not is_random(lambda X, outer=outer: outer(X)[0])
        for outputs in pair:  # in the very call that built it, dropout was on all the time
            assert not np.array_equal(outputs, outer.inner(inputs()))
        assert not np.array_equal(*pair)


def cross_entropy():
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("jit", [False, True], ids=["function", "xla"])
def test_keras_fits_models(d2l, small, kind, jit):
    """With a short last batch, from arrays and from `tf.data`."""
    digits = d2l.Digits().split(train=True, channels_last=True)
    X, y = digits.X.astype(np.float32) / digits.X.max(), digits.y
    model = getattr(d2l, kind)(**{**small, "num_hiddens_1": 64, "num_hiddens_2": 64})
    model.compile(tf.keras.optimizers.SGD(0.3), loss=cross_entropy(), metrics=["accuracy"], jit_compile=jit)
    assert len(X) % 64
    model.fit(X, y, batch_size=64, epochs=4, verbose=0)
    history = model.fit(
        tf.data.Dataset.from_tensor_slices((X, y)).batch(64), epochs=4, shuffle=False, verbose=0
    ).history
    loss, accuracy = model.evaluate(X, y, verbose=0)
    assert accuracy > 0.8
    assert loss < history["loss"][-1]  # dropout is off
    assert not is_random(model)
    np.testing.assert_allclose(model.predict(X[:70], verbose=0), model(X[:70]), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # where Keras' own layer drops everything
@pytest.mark.parametrize("kind", MODELS)
def test_keras_fits_under_dropout(d2l, small, kind):
    model = getattr(d2l, kind)(**{**small, "dropout_1": 1.0, "dropout_2": 1.0})
    model(inputs())
    before = d2l.get_weights(model)
    model.compile("sgd", loss=cross_entropy())
    model.fit(inputs(100), np.arange(100) % 9, verbose=0)
    after = d2l.get_weights(model)
    assert {name for name in before if (before[name] != after[name]).any()} == {"lin3.bias"}


def test_compile_leaves_the_models_own_loss(d2l, small):
    model = d2l.DropoutMLP(**small)
    model.compile("sgd", loss=cross_entropy())
    assert model.loss.__func__ is d2l.DropoutMLP.loss
    trainer = d2ldrop.Trainer(2, seed=0, progress=False)
    trainer.fit(model, d2l.Digits())
    assert trainer.history[-1]["train_loss"] < trainer.history[0]["train_loss"]
    model.fit(inputs(100), np.arange(100) % 10, verbose=0)

    class Own(d2l.SoftmaxRegression):
        def __init__(self, num_outputs, lr):
            super().__init__(num_outputs, lr)
            self.loss = lambda y_hat, y: 1.0

    own = Own(10, 0.1)
    own.compile("sgd", loss=cross_entropy())
    assert own.loss(None, None) == 1


@pytest.mark.parametrize("kind", MODELS)
def test_keras_saves_clones_and_makes_models_again(d2l, small, kind, tmp_path):
    rate = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model = getattr(d2l, kind)(**{**small, "lr": rate})
    model.compile(tf.keras.optimizers.Adam(0.01), loss=cross_entropy())
    model.fit(inputs(100), np.arange(100) % 10, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.lr(5) == rate(5)
    assert loaded.dropout_1 == small["dropout_1"]
    np.testing.assert_array_equal(loaded(inputs()), model(inputs()))
    assert int(loaded.optimizer.iterations) == 4
    loaded.fit(inputs(100), np.arange(100) % 10, verbose=0)
    for other in (
        tf.keras.models.clone_model(model),
        type(model).from_config(model.get_config()),
        tf.keras.models.model_from_json(model.to_json()),
    ):
        assert other.num_hiddens_2 == model.num_hiddens_2
        assert is_random(lambda X, other=other: other(X, training=True))
        other.set_weights(model.get_weights())
        np.testing.assert_array_equal(other(inputs()), model(inputs()))
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = getattr(d2l, kind)(**small)
    fresh(inputs())
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(fresh(inputs()), model(inputs()))


@pytest.mark.parametrize("kind", MODELS)
def test_models_are_exported(d2l, small, kind, tmp_path):
    """After a training, and copies of such models, too; for any number of samples."""
    model = getattr(d2l, kind)(**small)
    d2ldrop.Trainer(1, seed=0, progress=False).fit(model, d2l.Digits())
    copied = copy.deepcopy(model)
    copied.export(tmp_path / "exported", verbose=False)
    tf.saved_model.save(model, str(tmp_path / "saved"))
    exported, saved = (tf.saved_model.load(str(tmp_path / name)) for name in ("exported", "saved"))
    for n in (1, 7):
        np.testing.assert_allclose(exported.serve(inputs(n)), model(inputs(n)), atol=1e-5)
        (outputs,) = saved.signatures["serving_default"](tf.constant(inputs(n))).values()
        np.testing.assert_allclose(outputs, model(inputs(n)), atol=1e-5)
    archive = tf.keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, 8, 8, 1))]
    archive.add_endpoint("train", lambda X: model(X, training=True), input_signature=signature)
    archive.write_out(tmp_path / "training", verbose=False)
    training = tf.saved_model.load(str(tmp_path / "training"))
    assert is_random(training.train)


@pytest.mark.parametrize("kind", MODELS)
def test_models_in_functional_models_and_functions(d2l, small, kind):
    place = tf.keras.Input((8, 8, 1))
    inner = getattr(d2l, kind)(**small)
    model = tf.keras.Model(place, inner(place))
    assert is_random(lambda X: model(X, training=True))
    assert not is_random(model)
    np.testing.assert_array_equal(model(inputs()), inner(inputs()))
    rows = getattr(d2l, kind)(**small)
    rows(tf.ones((2, 64)))
    for compiled in (False, True):
        run = tf.function(
            lambda X: rows(X, training=True), input_signature=[tf.TensorSpec((None, None))], jit_compile=compiled
        )
        assert is_random(run, tf.ones((5, 64)))
        assert run(tf.ones((3, 64))).shape == (3, 10)


def test_models_of_several_inputs_are_saved(d2l, tmp_path):
    class Sum(d2l.Classifier):
        def __init__(self, lr):
            super().__init__()
            self.save_hyperparameters()
            self.W = tf.Variable(tf.random.normal((4, 10)))
            self.lin = tf.keras.layers.Dense(10)

        def forward(self, A, B):
            return A @ self.W + self.lin(B)

    model, A, B = Sum(0.1), tf.ones((2, 4)), tf.ones((2, 3))
    expected = model(A, B)
    model.save(tmp_path / "sum.keras")
    loaded = tf.keras.models.load_model(tmp_path / "sum.keras", custom_objects={"Sum": Sum})
    np.testing.assert_array_equal(loaded(A, B), expected)


def test_models_that_ask_for_the_number_of_samples_need_to_know_it(d2l, own):
    """The book's `reshape(X, (X.shape[0], -1))` cannot be compiled for any number of samples; Keras' Flatten can."""
    Scratch, _ = own.readers_models(d2l)
    model = Scratch(10, 16, 0.5, 0.1)
    model(inputs())
    assert tf.function(model)(inputs()).shape == (8, 10)
    with pytest.raises((TypeError, ValueError), match="None"):
        tf.function(model, input_signature=[tf.TensorSpec((None, 8, 8, 1))])(inputs())


def test_what_cannot_be_made_again_is_not_saved(d2l, tmp_path):
    class Forgetful(d2l.Classifier):
        def __init__(self, rate=0.5):
            super().__init__()
            self.net = tf.keras.Sequential([tf.keras.layers.Dropout(rate), tf.keras.layers.Dense(3)])

    class Listed(d2l.Classifier):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters()
            self.dense = tf.keras.layers.Dense(3)

        def forward(self, X):
            return self.dense(tf.concat(list(X), axis=1))

    X = tf.ones((4, 5))
    for model, given, sentence in [
        (Forgetful(0.1), X, "It did not keep: rate"),
        (Listed(), [X, X], "Expected Listed to be called with tensors"),
    ]:
        model(given)
        with pytest.raises(d2ldrop.UsageError, match=sentence):
            model.save(tmp_path / "model.keras")


def test_a_first_call_that_fails_leaves_no_dropout_on(d2l):
    class Late(d2l.Classifier):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters()
            self.width = None
            self.net = tf.keras.Sequential([tf.keras.layers.Dense(8), tf.keras.layers.Dropout(0.5)])

        def forward(self, X):
            H = self.net(X)
            return tf.reshape(H, (-1, self.width))

    class Lazy(d2l.Classifier):
        net = None

        def forward(self, X):
            if self.net is None:
                self.net = tf.keras.Sequential([tf.keras.layers.Dense(8), tf.keras.layers.Dropout(0.5)])
            return self.net(X)

    X, late, lazy = tf.ones((4, 5)), Late(), Lazy()
    with pytest.raises(ValueError, match="Late"):
        late(X, training=True)
    late.width = 8
    lazy(X, training=True)
    for model in (late, lazy):
        np.testing.assert_array_equal(model(X), model(X))

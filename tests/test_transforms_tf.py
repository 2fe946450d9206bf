"""Dropout under what TensorFlow and Keras do with functions, layers and models."""

import copy
import math
import pickle
import sys

import numpy as np
import pytest

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

tf = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.only_tf, pytest.mark.filterwarnings("ignore:In the future `np.object`")]
KINDS = ["dropout_layer", "Dropout"]
MODELS = ["DropoutMLPScratch", "DropoutMLP"]


def dropping(d2l, kind, p):
    """Return dropout as a function of a tensor: the function, or the layer while it trains."""
    if kind == "dropout_layer":
        return lambda X: d2l.dropout_layer(X, p)
    layer = d2l.Dropout(p)
    return lambda X: layer(X, training=True)


def check(*results, p=0.5, unit=1.0):
    """Check that arrays are 0 or unit / (1 - p), about as often as they should be, and differ from one another."""
    arrays = [np.asarray(tf.cast(Y, tf.float32)) for Y in results]
    for Y in arrays:
        np.testing.assert_allclose(Y[Y != 0], unit / (1 - p), rtol=1e-2 if results[0].dtype.size == 2 else 1e-4)
        assert abs((Y != 0).mean() - (1 - p)) < 5 * math.sqrt(p * (1 - p) / Y.size)
    assert len({Y.tobytes() for Y in arrays}) == len(arrays)


@pytest.fixture
def policy():
    """Set Keras' policy of dtypes, and set it back afterwards."""
    before = tf.keras.config.dtype_policy()
    yield tf.keras.config.set_dtype_policy
    tf.keras.config.set_dtype_policy(before)


# Transforms


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.5, 0.25, 0.3])
@pytest.mark.parametrize("compiled", [False, True], ids=["function", "xla"])
def test_functions(d2l, kind, p, compiled):
    drop = tf.function(dropping(d2l, kind, p), jit_compile=compiled)
    check(*(drop(tf.ones((60, 70))) for _ in range(3)), p=p)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(None, 70), (None, None), None], ids=str)
def test_functions_of_unknown_shapes(d2l, kind, shape):
    drop = tf.function(dropping(d2l, kind, 0.3), input_signature=[tf.TensorSpec(shape)])
    check(drop(tf.ones((60, 70))), drop(tf.ones((60, 70))), p=0.3)
    assert drop(tf.ones((0, 70))).shape == (0, 70)
    known = drop.get_concrete_function().structured_outputs.shape
    assert known.rank is None if shape is None else known.as_list() == list(shape)


@pytest.mark.parametrize("kind", KINDS)
def test_loops_and_branches(d2l, kind):
    drop, X = dropping(d2l, kind, 0.3), tf.ones((20, 70))

    @tf.function
    def loop(X):
        drawn = tf.TensorArray(tf.float32, 5)
        _, drawn = tf.while_loop(lambda i, _: i < 5, lambda i, rows: (i + 1, rows.write(i, drop(X))), (0, drawn))
        return drawn.stack()

    check(*loop(X), p=0.3)
    check(*tf.map_fn(drop, tf.ones((5, 20, 70))), p=0.3)
    branch = tf.function(lambda X: tf.cond(tf.reduce_sum(X) > 0, lambda: drop(X), lambda: X))
    check(branch(X), branch(X), p=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_vectorized_map_draws_for_each_sample(d2l, kind):
    """With the gradients of each sample, which are under its own mask."""
    drop = dropping(d2l, kind, 0.3)

    def sample(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = drop(x)
        return y, tape.gradient(y, x)

    Y, grads = tf.vectorized_map(sample, tf.ones((8, 500)))
    check(*Y, p=0.3)
    np.testing.assert_array_equal(Y, grads)


@pytest.mark.parametrize("kind", KINDS)
def test_data_pipelines(d2l, kind):
    """Once TensorFlow is seeded, each pass over the data draws the same again, as TensorFlow's own dropout does."""
    d2l.seed(0)
    for drop in (dropping(d2l, kind, 0.3), lambda X: tf.nn.dropout(X, 0.3)):
        data = tf.data.Dataset.from_tensor_slices(tf.ones((4, 1000))).map(drop)
        first, second = list(data), list(data)
        check(*first, p=0.3)
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_under_the_same_mask(d2l, kind):
    drop, X = dropping(d2l, kind, 0.5), tf.ones((20, 30))
    with tf.GradientTape() as outer:
        outer.watch(X)
        with tf.GradientTape() as inner:
            inner.watch(X)
            Y = drop(X**3)
        first = inner.gradient(Y, X)
    second = outer.gradient(first, X)
    check(Y, p=0.5)
    np.testing.assert_array_equal(first, 3 * Y)
    np.testing.assert_array_equal(second, 6 * Y)
    with tf.autodiff.ForwardAccumulator(X, tf.ones_like(X)) as forward:
        Y = drop(X)
    np.testing.assert_array_equal(forward.jvp(Y), Y)
    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = drop(X)
    np.testing.assert_array_equal(tf.linalg.diag_part(tape.batch_jacobian(Y, X)), Y)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_gradients_have_masks_of_their_own(d2l, kind):
    """It cannot work: the function runs twice. TensorFlow's own dropout does the same, and we say so."""
    for drop in (dropping(d2l, kind, 0.5), lambda X: tf.nn.dropout(X, 0.5)):
        X = tf.ones((20, 30))
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = tf.recompute_grad(drop)(X)
        grad = tape.gradient(Y, X)
        check(Y, grad)
    assert "recompute_grad" in d2l.Dropout.__doc__


@pytest.mark.parametrize("kind", KINDS)
def test_functions_that_are_saved_go_on_drawing(d2l, kind, tmp_path):
    module = tf.Module()
    module.layer = d2l.Dropout(0.3)
    drop = (lambda X: module.layer(X, training=True)) if kind == "Dropout" else dropping(d2l, kind, 0.3)
    module.drop = tf.function(drop, input_signature=[tf.TensorSpec((None, 70))])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    check(*(loaded.drop(tf.ones((60, 70))) for _ in range(3)), p=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_of_a_strategy(d2l, kind):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        drop = dropping(d2l, kind, 0.3)
    run = tf.function(lambda: strategy.run(drop, (tf.ones((60, 70)),)))
    check(run(), run(), p=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_ragged_tensors(d2l, kind):
    X = tf.RaggedTensor.from_row_lengths(tf.ones((3000,)), [1000, 0, 2000])
    drop = dropping(d2l, kind, 0.3)
    results = [drop(X), tf.function(drop)(X)]
    if kind == "dropout_layer":
        results.append(d2ldrop.dropout_layer(X, 0.3))
    for Y in results:
        assert isinstance(Y, tf.RaggedTensor)
        assert Y.row_lengths().numpy().tolist() == [1000, 0, 2000]
    check(*(Y.flat_values for Y in results), p=0.3)
    with pytest.raises(d2ldrop.ArgumentError, match="Expected no axes for an array whose rows differ"):
        d2l.dropout_layer(X, 0.3, axes=[1])


def test_variables_count_as_tensors(d2l):
    for make in (tf.Variable, tf.keras.Variable):
        X = make(np.ones((60, 70), np.float32))
        with tf.GradientTape() as tape:
            Y = d2l.dropout_layer(X, 0.3)
        check(Y, p=0.3)
        np.testing.assert_array_equal(tape.gradient(Y, X), Y)
        check(d2ldrop.dropout_layer(X, 0.3), p=0.3)


def test_errors_are_one_sentence(d2l):
    for foreign in (np.ones(3), [1.0], 1.0, None, tf.sparse.from_dense([1.0, 0.0])):
        with pytest.raises(d2ldrop.ArgumentTypeError, match=r"Expected X to be an array of tf. Received: "):
            d2l.dropout_layer(foreign, 0.5)
    float8 = tf.cast(tf.ones(3), tf.dtypes.experimental.float8_e5m2)
    for numbers in (tf.constant(["a"]), tf.ones(3, tf.complex64), float8):
        with pytest.raises(d2ldrop.ArgumentTypeError, match="Expected X to hold real numbers of 16 to 64 bits"):
            d2l.dropout_layer(numbers, 0.5)
    with pytest.raises(d2ldrop.ArgumentTypeError, match="Use the layer d2ldrop"):
        d2l.dropout_layer(tf.keras.Input((3,)), 0.5)


def test_autograph_leaves_our_code_and_errors_as_they_are(d2l, monkeypatch):
    """It would log warnings about code that it cannot rewrite, and turn our errors into its own."""
    callers = []

    def spy(X, dropout, **options):
        callers.append(sys._getframe(1).f_code.co_filename)
        return X

    with monkeypatch.context() as patch:
        patch.setattr(type(d2l.backend), "dropout_layer", staticmethod(spy))
        tf.function(lambda X: d2ldrop.dropout_layer(X, 0.5))(tf.ones(3))
    assert [name.rpartition("/")[2] for name in callers] == ["registry.py"]  # and no file that was generated
    for drop in (d2l.dropout_layer, d2ldrop.dropout_layer):
        with pytest.raises(d2ldrop.ArgumentError, match=r"^Expected dropout to be a number in \[0, 1\]"):
            tf.function(lambda X, drop=drop: drop(X, 1.5))(tf.ones(3))
    for draw in (d2l.backend.real_floats, d2l.backend.normal_like):
        assert hasattr(draw, "autograph_info__")


# Draws of the seam


@pytest.mark.parametrize("axes", [(1,), (-1, 0), (0, 1, 2)], ids=str)
def test_axes_share_a_draw(d2l, axes):
    X = tf.ones((30, 40, 50))

    def drop(X):
        return d2l.dropout_layer(X, 0.5, axes=axes)

    unknown = tf.function(drop, input_signature=[tf.TensorSpec((None, 40, None))])
    no_rank = tf.function(drop, input_signature=[tf.TensorSpec(None)])
    for run in (drop, tf.function(drop), unknown, no_rank):
        Y = run(X).numpy()
        assert Y.shape == X.shape
        first = Y
        for axis in axes:
            first = np.take(first, [0], axis)
        np.testing.assert_array_equal(Y, np.broadcast_to(first, Y.shape))
        if first.size > 1:
            check(tf.constant(first))
    one = tf.function(drop, input_signature=[tf.TensorSpec((None, 1, None))]).get_concrete_function()
    assert one.structured_outputs.shape.as_list() == [None, 1, None]
    with pytest.raises(d2ldrop.ArgumentError, match=r"Expected axes of an array of 3 axes\. Received: 3"):
        d2l.dropout_layer(X, 0.5, axes=[3])


def test_no_axes_leave_the_bits_as_they_are(d2l):
    d2l.seed(1)
    plain = d2l.dropout_layer(tf.ones((9, 9)), 0.3)
    d2l.seed(1)
    np.testing.assert_array_equal(plain, d2l.dropout_layer(tf.ones((9, 9)), 0.3, axes=[]))


def test_keep_mask(d2l):
    keep_mask, X = d2l.backend.keep_mask, tf.ones((60, 70), tf.bfloat16)
    for p in (0.5, 0.25, 0.3):
        assert keep_mask(X, odds(p)).dtype == tf.bool
        check(tf.cast(keep_mask(X, odds(p)), tf.float32) / (1 - p), p=p)
    assert keep_mask(X, odds(0.3), axes=[1]).shape == (60, 1)
    assert keep_mask(X, odds(0)).numpy().all()
    assert not keep_mask(X, odds(1)).numpy().any()
    unknown = tf.function(lambda X, p: keep_mask(X, odds(p), axes=[1]))
    spec = tf.TensorSpec((None, None), tf.bfloat16)
    for p in (0, 0.3, 1):
        assert unknown.get_concrete_function(spec, p)(X).shape == (60, 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_normal_like(d2l, dtype):
    X, normal_like = tf.ones((200, 300), dtype), d2l.backend.normal_like
    drawn = [normal_like(X), normal_like(X), tf.function(normal_like)(X)]
    with sharing_masks(np.random.default_rng(0)):
        drawn.append(tf.function(normal_like, input_signature=[tf.TensorSpec((None, None), dtype)])(X))
    for Z in drawn:
        assert Z.dtype == dtype
        values = np.asarray(tf.cast(Z, tf.float64))
        assert values.shape == (200, 300)
        assert abs(values.mean()) < 5 / values.size**0.5
        assert abs(values.var() - 1) < 5 * (2 / values.size) ** 0.5
        assert abs((np.abs(values) < 1).mean() - 0.6827) < 5 * (0.25 / values.size) ** 0.5 + 0.004  # bfloat16 rounds
    assert len({np.asarray(Z).tobytes() for Z in drawn}) == len(drawn)
    again = []
    for _ in range(2):
        d2l.seed(3)
        again.append(np.asarray(normal_like(X)).tobytes())
    assert again[0] == again[1]


def test_where(d2l):
    X, mask = tf.constant([1.0, math.nan, 3.0], tf.float16), tf.constant([True, False, True])
    Y = d2l.backend.where(mask, X, -1.75)
    assert Y.dtype == tf.float16
    assert Y.numpy().tolist() == [1, -1.75, 3]


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


def test_axes_of_an_unknown_rank_are_checked_when_the_function_runs(d2l):
    signature = [tf.TensorSpec(None, tf.float32)]
    for axes in [(5,), (-7,)]:
        drop = tf.function(lambda X, axes=axes: d2l.dropout_layer(X, 0.5, axes=axes), input_signature=signature)
        with pytest.raises(tf.errors.InvalidArgumentError, match="Expected axes of the array"):
            drop(tf.ones((40, 6)))


def test_places_of_tensors_are_refused_with_our_own_errors(d2l):
    for layer in (d2ldrop.dropout_layer, d2ldrop.gaussian_dropout_layer):
        with pytest.raises(TypeError, match="Expected"):
            layer(tf.keras.Input((3,)), 0.5)

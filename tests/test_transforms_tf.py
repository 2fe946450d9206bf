"""Dropout under what TensorFlow does with functions and tensors."""

import math
import sys

import numpy as np
import pytest
from dropping_tf import KINDS, check, dropping, tf

import d2ldrop
from d2ldrop.randomness import odds, sharing_masks

pytestmark = [pytest.mark.only_tf, pytest.mark.filterwarnings("ignore:In the future `np.object`")]


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


# Places of tensors


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

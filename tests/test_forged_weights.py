"""Files of weights that were damaged or forged: each gives a model, or is refused with an error of our own."""

import contextlib
import json
import math
import tracemalloc

import numpy as np
import pytest
from helpers import built, predicted, put_together, taken_apart
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import d2ldrop
from d2ldrop import load_model, read_weights, save_weights
from d2ldrop.training.weights import DTYPES

MODELS = ["DropoutMLPScratch", "DropoutMLP"]


def forge(path, **changes):
    """Change the metadata of a file."""
    weights, about = read_weights(path)
    save_file(weights, path, {"d2ldrop": json.dumps({**about, **changes})})


def nested(depth):
    return "[" * depth + "]" * depth


HPARAMS = [
    {"num_hiddens_1": value} for value in (10**9, 10**4000, 2**63, 33, 0, -5, "8", 8.5, 32.0, True, None, [32], {})
]
HPARAMS += [{"num_outputs": value} for value in (10**9, 11, -1, "10")]
HPARAMS += [{"dropout_1": value} for value in (1.5, -0.1, math.nan, math.inf, "x", None, [0.5], True, 10**400)]
HPARAMS += [{"lr": value} for value in (math.nan, math.inf, "0.1", None, 10**400)]
HPARAMS += [{"parent": 1}, {"name": 2}, {"self": 1}, {"training": True}, {"path": 1}]


@pytest.mark.parametrize("change", HPARAMS, ids=lambda change: str(change)[:40])
def test_forged_hyperparameters_are_refused(d2l, saved, small, change, request):
    path, _ = saved
    forge(path, hparams={**small, **change})
    tracemalloc.start()
    request.addfinalizer(tracemalloc.stop)
    with pytest.raises(d2ldrop.WeightsError) as caught:
        load_model(path, d2l.name)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(path) in str(caught.value)


ABOUT = [{"hparams": value} for value in (None, [], [1], "x", 3, {}, {"lr": 0.1})]
ABOUT += [
    {"class": value}
    for value in (None, "Net", "Module", "__init__", ["DropoutMLP"], {}, 7, "x\ny", "SoftmaxRegression")
]
ABOUT += [{"backend": value} for value in (None, "numpi", ["numpy"], {}, 3, "os", "../numpy", "d2ldrop.numpy")]


@pytest.mark.parametrize("change", ABOUT, ids=str)
def test_forged_metadata_are_refused(saved, change):
    path, _ = saved
    forge(path, **change)
    with pytest.raises(d2ldrop.WeightsError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "3", "{", "", "\ud800", nested(100_000), '{"a":' * 100_000, '{"class": 1, "class": 1}', "9" * 5000],
)
def test_metadata_that_are_no_object_are_refused(saved, text):
    path, _ = saved
    header, arrays = taken_apart(path)
    header["__metadata__"] = {"d2ldrop": text}
    put_together(path, json.dumps(header), arrays)
    with pytest.raises(d2ldrop.WeightsError) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_arrays_that_are_missing_or_more_are_refused(d2l, saved):
    path, _ = saved
    weights, about = read_weights(path)
    for changed in (
        {},
        {"lin1.weight": weights["lin1.weight"]},
        {name: value for name, value in weights.items() if name != "lin1.weight"},
        {**weights, "lin4.weight": np.zeros((1, 1), np.float32)},
        {**weights, "lin1.weight": weights["lin1.weight"].ravel()},
        {**weights, "lin1.weight": np.array(3, np.float32)},
        {**weights, "lin1.weight": np.zeros((32, 0), np.float32)},
    ):
        save_file(changed, path, {"d2ldrop": json.dumps(about)})
        with pytest.raises(d2ldrop.WeightsError, match=r"w\.safetensors"):
            load_model(path, d2l.name)


def array_of(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


HEADERS = {
    "not JSON": "{",
    "not UTF-8": b'{"\xff": 1}',
    "UTF-16": "{}".encode("utf-16"),
    "a list": "[]",
    "deep": nested(100_000),
    "deep in an array": '{"a": {"dtype": "F32", "shape": ' + nested(100_000) + ', "data_offsets": [0, 8]}}',
    "long number": '{"a": ' + "9" * 5000 + "}",
    "twice the same": f'{{"a": {json.dumps(array_of())}, "a": {json.dumps(array_of())}}}',
    "no arrays": {},
    "null": {"a": None},
    "empty": {"a": {}},
    "type": {"a": array_of("F8_E4M3", (8,))},
    "type of another type": {"a": array_of(["F32"])},
    "no shape": {"a": array_of(shape=None)},
    "negative shape": {"a": array_of(shape=[-2])},
    "two negative": {"a": array_of(shape=[-1, -2])},
    "float shape": {"a": array_of(shape=[2.0])},
    "bool shape": {"a": array_of(shape=[2, True])},
    "shape too large": {"a": array_of(shape=[3])},
    "shape too small": {"a": array_of(shape=[1])},
    "huge shape": {"a": array_of(shape=[2**62, 4])},
    "huge shape of nothing": {"a": array_of(shape=[0, 2**62, 2**62], offsets=[0, 0]), "b": array_of()},
    "endless shape of nothing": {"a": array_of(shape=[0, 10**100], offsets=[0, 0]), "b": array_of()},
    "many axes": {"a": array_of(shape=[1] * 100 + [2])},
    "offsets outside": {"a": array_of(shape=[4], offsets=[0, 16])},
    "far outside": {"a": array_of(shape=[2], offsets=[2**62, 2**62 + 8])},
    "a terabyte": {"a": array_of(shape=[2**38], offsets=[0, 2**40])},
    "negative offsets": {"a": array_of(offsets=[-8, 0])},
    "backwards": {"a": array_of(offsets=[8, 0])},
    "three offsets": {"a": array_of(offsets=[0, 8, 16])},
    "gap": {"a": array_of(shape=[1], offsets=[4, 8])},
    "rest": {"a": array_of(shape=[1], offsets=[0, 4])},
    "the same bytes": {"a": array_of(), "b": array_of()},
    "overlap": {"a": array_of(), "b": array_of(shape=[1], offsets=[4, 8])},
    "unprintable name": {"a\nb": array_of()},
    "half a character": {"\ud800": array_of()},
    "long name": {"a" * 10_000: array_of()},
    "metadata of another type": {"a": array_of(), "__metadata__": []},
    "metadata that are no text": {"a": array_of(), "__metadata__": {"d2ldrop": {}}},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_forged_headers_are_refused(tmp_path, kind, request):
    header = HEADERS[kind]
    put_together(tmp_path / "w", json.dumps(header) if isinstance(header, dict) else header, bytes(8))
    tracemalloc.start()
    request.addfinalizer(tracemalloc.stop)
    with pytest.raises(d2ldrop.WeightsError, match=r"Expected .*w to be a safetensors file. Received") as caught:
        read_weights(tmp_path / "w")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_forged_headers_differ_from_a_right_one(tmp_path):
    header = {"a": array_of(), "b": array_of(shape=[0, 3], offsets=[8, 8]), "c": array_of("I64", [], [8, 16])}
    put_together(tmp_path / "w", json.dumps(header), bytes(8) + (7).to_bytes(8, "little"))
    weights, about = read_weights(tmp_path / "w")
    assert {name: (value.shape, value.dtype.name) for name, value in weights.items()} == {
        "a": ((2,), "float32"),
        "b": ((0, 3), "float32"),
        "c": ((), "int64"),
    }
    assert weights["c"] == 7
    assert about == {}
    assert all(value.flags.writeable for value in weights.values())


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 10**9, 2**63 - 1, 2**64 - 1])
def test_forged_lengths_of_headers_are_refused(tmp_path, length):
    put_together(tmp_path / "w", b"{}", b"", length)
    with pytest.raises(d2ldrop.WeightsError):
        read_weights(tmp_path / "w")
    with open(tmp_path / "w", "r+b") as file:
        file.truncate(10**10)  # the header fits then, and takes no room on the disk
    tracemalloc.start()
    with contextlib.closing(BoundedMemory()), pytest.raises(d2ldrop.WeightsError):
        read_weights(tmp_path / "w")


class BoundedMemory:
    """Stops tracing, and looks at how much memory was taken."""

    def close(self):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50e6


@pytest.mark.parametrize("size", range(0, 120, 7))
def test_files_that_end_early_are_refused(saved, size):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(d2ldrop.WeightsError):
        read_weights(path)


def loads_or_is_refused(path):
    """Return True if a file gives a model that predicts, or is refused with an error of our own; raise any other."""
    try:
        model = load_model(path, "numpy")
    except d2ldrop.D2LDropError:
        return True
    return len(predicted(d2ldrop.backend("numpy"), model)) == 5


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return the content of a small file, and a path for changed ones."""
    d2l = d2ldrop.backend("numpy")
    path = tmp_path_factory.mktemp("fuzz") / "w"
    save_weights(built(d2l, {"num_outputs": 3, "lr": 0.5}, "SoftmaxRegression"), path)
    return path.read_bytes(), path


@given(st.data())
@settings(max_examples=300)
def test_changed_files_raise_no_errors_but_our_own(good, data):
    content, path = good
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.one_of(st.integers(0, 400), st.integers(0, len(content))))
        stop = start + data.draw(st.integers(0, 8))
        content[start:stop] = data.draw(
            st.one_of(
                st.binary(max_size=8), st.sampled_from([*b'0123456789[]{},:-e"', *b"."]).map(lambda b: bytes([b]))
            )
        )
    path.write_bytes(content)
    assert loads_or_is_refused(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([*DTYPES]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    json_values,
    st.sampled_from(["class", "hparams", "backend", "lr", "num_outputs", "dtype", "shape", "data_offsets", "entry"]),
)
@settings(max_examples=300)
def test_changed_headers_raise_no_errors_but_our_own(good, value, where):
    content, path = good
    path.write_bytes(content)
    header, arrays = taken_apart(path)
    about = json.loads(header["__metadata__"]["d2ldrop"])
    if where in about:
        about[where] = value
    elif where in about["hparams"]:
        about["hparams"][where] = value
    elif where == "entry":
        header["lin1.bias"] = value
    else:
        header["lin1.bias"][where] = value
    header["__metadata__"]["d2ldrop"] = json.dumps(about)
    put_together(path, json.dumps(header), arrays)
    assert loads_or_is_refused(path)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=300)
def test_random_bytes_raise_no_errors_but_our_own(good, content, framed):
    path = good[1]
    path.write_bytes(len(content).to_bytes(8, "little") + content if framed else content)
    assert loads_or_is_refused(path)

"""The reader of IDX files: what it reads, and what it says of files that are damaged, too large or forged."""

import gzip
import os
import tracemalloc
import zlib

import numpy as np
import pytest
from helpers import idx_header
from hypothesis import given, settings
from hypothesis import strategies as st

import d2ldrop
from d2ldrop.data import read_idx


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzipped", "unpacked"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 28, 28), (3,), (1200, 1000)], ids=str)
def test_read_idx_reads_what_was_written(tmp_path, pack, shape):
    array = np.arange(np.prod(shape), dtype=np.uint32).astype(np.uint8).reshape(shape)
    (tmp_path / "file").write_bytes(pack(idx_header(*shape) + array.tobytes()))
    read = read_idx(tmp_path / "file", ndim=len(shape))
    np.testing.assert_array_equal(read, array)
    assert read.shape == shape


CUBE = idx_header(2, 2, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"no IDX at all", "begins with 6e 6f 20 49"),
        (gzip.compress(b"", mtime=0), "begins with nothing"),
        (gzip.compress(CUBE + bytes(8), mtime=0)[:-9], "end-of-stream"),
        (gzip.compress(CUBE + bytes(8), mtime=0)[:5], "end-of-stream"),
        (gzip.compress(CUBE + bytes(8), mtime=0) + b"more", "gzip"),
        (gzip.compress(CUBE + bytes(8), mtime=0)[:10] + b"\xff" * 20, "invalid block type"),  # zlib.error
        (bytes((0, 0, 13, 3)) + bytes(20), "begins with 00 00 0d 03"),
        (idx_header(2, 2) + bytes(12), "begins with 00 00 08 02"),
        (CUBE[:-1], "begins with 00 00 08 03"),
        (CUBE + bytes(7), "hold 8 elements.* Received: 7"),
        (CUBE + bytes(9), "hold 8 elements.* Received: more"),
        (idx_header(0, -28, 28), r"announced shape of \(0, -28, 28\)"),
        (idx_header(-1, -1, 8) + bytes(8), r"announced shape of \(-1, -1, 8\)"),
        (idx_header(2**31 - 1, 2**31 - 1, 2**31 - 1) + bytes(99), "hold at most"),
    ],
)
def test_read_idx_rejects_damaged_files(tmp_path, content, message):
    contents = [content] if content[:1] == b"\x1f" else [content, gzip.compress(content)]
    for each in contents:
        (tmp_path / "file").write_bytes(each)
        with pytest.raises(d2ldrop.DataError, match=message) as raised:
            read_idx(tmp_path / "file", ndim=3)
        assert str(tmp_path / "file") in str(raised.value)


def test_read_idx_names_a_missing_file(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file" / "below"):
        with pytest.raises(d2ldrop.DataNotFoundError, match=r"Expected .* to be a file"):
            read_idx(path, ndim=3)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(d2ldrop.DataError, match="to be a file"):
            read_idx(path, ndim=3)
    with pytest.raises(d2ldrop.DataError, match="null byte"):
        read_idx("null\0byte", ndim=3)


def bomb(header, megabytes):
    """Return a gzip file of a header and many zeros."""
    pack = zlib.compressobj(9, wbits=31)
    pieces = [pack.compress(header), *(pack.compress(bytes(2**20)) for _ in range(megabytes)), pack.flush()]
    return b"".join(pieces)


def assert_refused_before_memory_is_taken(path, limit=2**30):
    tracemalloc.start()
    try:
        with pytest.raises(d2ldrop.DataError, match="elements"):
            read_idx(path, ndim=3, limit=limit)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_read_idx_refuses_a_shape_beyond_the_file(tmp_path):
    (tmp_path / "file").write_bytes(idx_header(2**9, 2**10, 2**10) + bytes(1000))
    assert_refused_before_memory_is_taken(tmp_path / "file")


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 10), (2**15, 2**15, 2), (2**30, 1, 1), (2**7, 2**10, 2**10)],
    ids=["too short", "beyond the limit", "beyond what gzip can do", "honest, beyond the given limit"],
)
def test_read_idx_refuses_bombs_before_memory_is_taken(tmp_path, shape):
    (tmp_path / "bomb").write_bytes(bomb(idx_header(*shape), megabytes=128))
    assert_refused_before_memory_is_taken(tmp_path / "bomb", limit=2**30 if shape[0] != 2**7 else 2**26)


VALID = idx_header(2, 3, 4) + bytes(range(24))


@settings(max_examples=400)
@given(st.data())
def test_read_idx_raises_only_our_errors(tmp_path_factory, data):
    """Random bytes, and valid files of which some bytes are replaced, removed or added."""
    content = data.draw(st.sampled_from([VALID, gzip.compress(VALID, mtime=0), b""]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 8)))
        content = content[:start] + data.draw(st.binary(max_size=8)) + content[stop:]
    if data.draw(st.booleans()):
        content = gzip.compress(content, mtime=0)
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    try:
        array = read_idx(path, ndim=3)
    except d2ldrop.DataError:
        return
    assert array.ndim == 3
    assert array.dtype == np.uint8

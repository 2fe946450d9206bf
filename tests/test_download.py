"""Downloads, from a real server on loopback: what arrives, what is refused, and what is left on the disk."""

import http.client
import http.server
import multiprocessing
import os
import signal
import ssl
import stat
import threading
import time
import urllib.error

import pytest
from mirror import CONTENT, FILES, Mirror

import d2ldrop
from d2ldrop.data import FashionMNIST, download


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Wait for fractions of a second, and ask this machine without a proxy."""
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("D2LDROP_DATA", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)


@pytest.fixture
def mirror():
    """Return the address of a server that runs while the test does."""
    Mirror.asked, Mirror.contents, Mirror.over = [], CONTENT, threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Mirror.over.set()
        server.shutdown()
        thread.join()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fetch_downloads_once(mirror, tmp_path):
    folder = tmp_path / "below" / "folder"
    for _ in range(2):
        assert download.fetch(FILES, [f"{mirror}/good"], folder) == folder
    assert contents(folder) == CONTENT
    assert Mirror.asked == [("/good/a.gz", None), ("/good/b.gz", None)]


def test_files_have_the_mode_of_other_new_files(mirror, tmp_path):
    before = os.umask(0o027)
    try:
        download.fetch(FILES, [f"{mirror}/good"], tmp_path / "folder")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "folder").iterdir()} == {0o640}


# How a mirror behaves, what is told of it, whether it is asked again, and how much of the file is kept.
BAD = [
    ("nowhere", "HTTP Error 404", False, 0),
    ("wrong", "sent other content", False, 0),
    ("too_much", "sent more than the expected 100000 bytes", False, 0),
    ("too_much_announced", "announced 100001 bytes, expected 100000", False, 0),
    ("endless", "sent more than the expected 100000 bytes", False, 0),
    ("circle", "HTTP Error 302.*loop", False, 0),
    ("spiral", "HTTP Error 302.*loop", False, 0),
    ("moved_to_a_file", "HTTP Error 302.*not allowed", False, 0),
    ("gibberish", "BadStatusLine", True, 0),
    ("little_announced", "broke off after 100 of 100000 bytes", True, 100),
    ("much_announced", "broke off after 100 of 100000 bytes", True, 100),
    ("wrong_part", "sent bytes 0-9/10, expected bytes 100-", False, 100),
]


@pytest.mark.parametrize(("manner", "answer", "again", "kept"), BAD, ids=[bad[0] for bad in BAD])
def test_a_bad_mirror_is_told_and_skipped(mirror, tmp_path, manner, answer, again, kept):
    if manner == "wrong_part":
        (tmp_path / ".a.gz.part").write_bytes(CONTENT["a.gz"][:100])
    with pytest.raises(d2ldrop.DataNotFoundError, match=rf"Could not download a.gz[^$]*{manner}: [^\n]*{answer}"):
        download.fetch(FILES, [f"{mirror}/{manner}"], tmp_path)
    if manner in ("circle", "spiral"):
        assert len(Mirror.asked) <= 6
    else:
        assert len(Mirror.asked) == (download.ATTEMPTS if again else 1)
    assert contents(tmp_path) == ({".a.gz.part": CONTENT["a.gz"][:kept]} if kept else {})
    download.fetch(FILES, [f"{mirror}/{manner}", f"{mirror}/good"], tmp_path)
    assert contents(tmp_path) == CONTENT


@pytest.mark.parametrize("manner", ["silent", "stalling", "dripping_header", "dripping"])
def test_a_slow_mirror_is_left(mirror, tmp_path, monkeypatch, manner):
    if "dripping" in manner:
        monkeypatch.setattr(download, "TOTAL_TIMEOUT", 0.4)
        expected = "TimeoutError: not complete after"
    else:
        monkeypatch.setattr(download, "TIMEOUT", 0.2)
        expected = "TimeoutError: no answer for 0.2 s"
    with pytest.raises(d2ldrop.DataNotFoundError, match=expected):
        download.fetch(FILES, [f"{mirror}/{manner}"], tmp_path)
    assert len(Mirror.asked) == 1
    monkeypatch.setattr(download, "TOTAL_TIMEOUT", 3.0)  # of which the first mirror has half
    monkeypatch.setattr(download, "TIMEOUT", 1.0)
    download.fetch({"a.gz": FILES["a.gz"]}, [f"{mirror}/{manner}", f"{mirror}/good"], tmp_path)
    assert contents(tmp_path) == {"a.gz": CONTENT["a.gz"]}
    if manner in ("stalling", "dripping"):
        assert Mirror.asked[-1][1] is not None  # the good mirror goes on where the slow one was left


@pytest.mark.parametrize("manner", ["breaking", "forgetful"])
def test_a_download_that_broke_off_goes_on(mirror, tmp_path, manner):
    download.fetch(FILES, [f"{mirror}/{manner}"], tmp_path)
    assert contents(tmp_path) == CONTENT
    assert Mirror.asked == [
        (f"/{manner}/a.gz", None),
        (f"/{manner}/a.gz", "bytes=50000-"),
        (f"/{manner}/b.gz", None),
        (f"/{manner}/b.gz", "bytes=55000-"),
    ]


def test_a_busy_mirror_is_asked_again(mirror, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    download.fetch(FILES, [f"{mirror}/busy"], tmp_path)
    assert contents(tmp_path) == CONTENT
    assert pauses == [download.PAUSE, 2 * download.PAUSE]


def test_a_redirect_is_followed(mirror, tmp_path):
    download.fetch(FILES, [f"{mirror}/moved"], tmp_path)
    assert contents(tmp_path) == CONTENT


def test_the_body_of_a_redirect_is_not_read(mirror, tmp_path):
    download.fetch({"a.gz": FILES["a.gz"]}, [f"{mirror}/endless_redirect"], tmp_path)
    assert contents(tmp_path) == {"a.gz": CONTENT["a.gz"]}
    assert Mirror.asked == [("/endless_redirect/a.gz", None), ("/good/a.gz", None)]


@pytest.mark.parametrize(
    ("left", "requests"),
    [
        (CONTENT["a.gz"][:300], [("/good/a.gz", "bytes=300-")]),
        (CONTENT["a.gz"], []),  # it was killed before it gave the file its name
        (b"x" * 300, [("/good/a.gz", "bytes=300-"), ("/good/a.gz", None)]),
        (b"x" * 100_000, [("/good/a.gz", None)]),
        (b"x" * 100_001, [("/good/a.gz", None)]),
        (b"", [("/good/a.gz", None)]),
    ],
    ids=["part", "whole", "wrong part", "wrong", "too much", "empty"],
)
def test_what_a_killed_download_left_is_used_or_removed(mirror, tmp_path, left, requests):
    (tmp_path / ".a.gz.part").write_bytes(left)
    (tmp_path / ".download.lock").touch()
    download.fetch({"a.gz": FILES["a.gz"]}, [f"{mirror}/good"], tmp_path)
    assert contents(tmp_path) == {"a.gz": CONTENT["a.gz"]}
    assert Mirror.asked == requests


def test_fetch_keeps_files_that_are_there(mirror, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"somebody's")
    download.fetch(FILES, [f"{mirror}/good"], tmp_path)
    assert contents(tmp_path) == CONTENT | {"a.gz": b"somebody's"}


def test_fetch_reports_a_refused_connection(tmp_path):
    with pytest.raises(FileNotFoundError, match="ConnectionRefusedError"):
        download.fetch(FILES, ["http://127.0.0.1:9"], tmp_path / "below" / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ssl.SSLCertVerificationError("expired"), False),
        (TimeoutError(), False),
        (ValueError("Content-Length: x"), False),
        (ConnectionResetError(), True),
        (ssl.SSLError("bad record"), True),
        (http.client.IncompleteRead(b""), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_pass_is_asked_again(error, again):
    assert download._failure(error).again == again
    assert download._failure(urllib.error.URLError(error)).again == again


@pytest.mark.parametrize("address", ["http://example.org/x", "ftp://127.0.0.1", "file:///etc", "nothing"])
def test_fetch_wants_https(tmp_path, address):
    with pytest.raises(d2ldrop.DataNotFoundError, match="Expected an https address"):
        download.fetch(FILES, [address], tmp_path)


def test_a_redirect_from_https_leads_to_https():
    request = download.urllib.request.Request("https://example.org/a.gz")

    class Body:
        def close(self):
            """Do nothing."""

    follow = download._Redirects().redirect_request
    for address in ("http://example.org/b.gz", "ftp://example.org/b.gz"):
        with pytest.raises(download._Failure, match="not https"):
            follow(request, Body(), 302, "Found", {}, address)
    assert follow(request, Body(), 302, "Found", {}, "https://example.org/b.gz").full_url == "https://example.org/b.gz"


def test_fetch_reports_a_folder_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(d2ldrop.DataNotFoundError, match="Could not write to"):
        download.fetch(FILES, [f"{mirror}/good"], tmp_path / "file")
    (tmp_path / ".a.gz.part").mkdir()
    with pytest.raises(d2ldrop.DataNotFoundError, match="Could not write to"):
        download.fetch(FILES, [f"{mirror}/good"], tmp_path)


def _fetch(address, folder, start):
    start.wait()
    download.fetch(FILES, [address], folder)


def test_processes_that_ask_at_once_download_once(mirror, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(3)
    processes = [spawn.Process(target=_fetch, args=(f"{mirror}/good", tmp_path / "folder", start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert contents(tmp_path / "folder") == CONTENT
    assert sorted(path for path, _ in Mirror.asked) == ["/good/a.gz", "/good/b.gz"]


def test_a_killed_download_goes_on(mirror, tmp_path):
    """The lock of the process that was killed does not hold anybody up."""
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(1)
    process = spawn.Process(target=_fetch, args=(f"{mirror}/stalling", tmp_path, start))
    process.start()
    while not Mirror.asked and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {*contents(tmp_path)} == {".a.gz.part", ".download.lock"}
    download.fetch(FILES, [f"{mirror}/good"], tmp_path)
    assert contents(tmp_path) == CONTENT


def test_fetch_does_not_wait_for_another_process_for_ever(tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(download, "TOTAL_TIMEOUT", 0.1)
    with FileLock(tmp_path / ".download.lock"), pytest.raises(d2ldrop.DataNotFoundError, match="Another process"):
        download.fetch(FILES, [], tmp_path)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_in_a_terminal_only(mirror, tmp_path, monkeypatch, capsys, terminal):
    monkeypatch.setattr(download.sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    download.fetch(FILES, [f"{mirror}/good"], tmp_path)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "a.gz" in shown.err if terminal else shown.err == ""


def test_fashion_mnist_downloads_missing_files(mirror, tmp_path, monkeypatch, fashion_mnist):
    """The whole way on the real files: an empty machine, a mirror, the cache folder, and no second download."""
    monkeypatch.setattr(FashionMNIST, "MIRRORS", (f"{mirror}/good",))
    Mirror.contents = {name: (fashion_mnist / name).read_bytes() for name in FashionMNIST.FILES}
    for _ in range(2):
        data = FashionMNIST()
        assert len(data.split(train=True).y) == 60_000
    assert data.folder == tmp_path / "cache" / "d2ldrop"
    assert len(Mirror.asked) == 4


def test_fashion_mnist_downloads_into_root(mirror, tmp_path, monkeypatch, fashion_mnist):
    """And only what is missing there."""
    monkeypatch.setattr(FashionMNIST, "MIRRORS", (f"{mirror}/good",))
    monkeypatch.setenv("D2LDROP_DATA", str(fashion_mnist))
    Mirror.contents = {name: (fashion_mnist / name).read_bytes() for name in FashionMNIST.FILES}
    name = "train-images-idx3-ubyte.gz"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(Mirror.contents[name])
    data = FashionMNIST(root=tmp_path / "data")
    assert data.folder == tmp_path / "data"
    assert {path.name for path in data.folder.iterdir()} == {*FashionMNIST.FILES}
    assert {path for path, _ in Mirror.asked} == {f"/good/{each}" for each in FashionMNIST.FILES} - {f"/good/{name}"}


def test_mirrors_use_https():
    assert all(address.startswith("https://") for address in FashionMNIST.MIRRORS)
    assert len(FashionMNIST.MIRRORS) >= 2

"""Downloads, from a real server on loopback: what arrives, what is refused, and what is left on the disk."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

import d2ldrop
from d2ldrop.data import FashionMNIST, download

CONTENT = {"a.gz": b"first file" * 1000, "b.gz": b"second file" * 1000}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serve files below /good, wrong ones below /wrong, half of them below /short, and nothing elsewhere."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        folder, _, name = self.path.strip("/").partition("/")
        content = CONTENT.get(name, b"")
        sent = {"good": content, "wrong": b"x" + content[1:], "short": content[:100]}.get(folder)
        self.send_response(200 if sent is not None else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(sent or b"")

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def mirror():
    """Return the address of a server that runs while the test does."""
    Mirror.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_fetch_downloads_once(mirror, tmp_path):
    folder = tmp_path / "cache"
    for _ in range(2):
        assert download.fetch(SHA256, [f"{mirror}/good"], folder) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert Mirror.asked == ["/good/a.gz", "/good/b.gz"]


@pytest.mark.parametrize("bad", ["wrong", "short", "nowhere"])
def test_fetch_skips_a_bad_mirror(mirror, tmp_path, bad):
    download.fetch(SHA256, [f"{mirror}/{bad}", f"{mirror}/good"], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == CONTENT


@pytest.mark.parametrize("bad", ["wrong", "short", "nowhere"])
def test_fetch_leaves_no_partial_file(mirror, tmp_path, bad):
    with pytest.raises(d2ldrop.DataNotFoundError, match=r"Could not download a.gz.*root=") as raised:
        download.fetch(SHA256, [f"{mirror}/{bad}"], tmp_path)
    assert f"{mirror}/{bad}" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_fetch_replaces_a_damaged_file(mirror, tmp_path):
    (tmp_path / "a.gz").write_bytes(b"damaged")
    download.fetch(SHA256, [f"{mirror}/good"], tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == CONTENT["a.gz"]


def test_fetch_reports_a_refused_connection(tmp_path):
    with pytest.raises(FileNotFoundError, match="ConnectionError"):
        download.fetch(SHA256, ["http://127.0.0.1:9"], tmp_path)


def test_fetch_times_out(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(FileNotFoundError, match="Timeout"):
            download.fetch(SHA256, [address], tmp_path)


def test_fashion_mnist_downloads_missing_files(mirror, tmp_path, monkeypatch, fashion_mnist):
    """The whole way on the real files: an empty machine, a mirror, the cache folder, and no second download."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("D2LDROP_DATA", raising=False)
    monkeypatch.setattr(FashionMNIST, "MIRRORS", (f"{mirror}/good",))
    published = {name: (Path(fashion_mnist) / name).read_bytes() for name in FashionMNIST.SHA256}
    monkeypatch.setitem(globals(), "CONTENT", published)
    for _ in range(2):
        data = FashionMNIST()
        assert len(data.split(train=True).y) == 60_000
    assert data.folder == tmp_path / "d2ldrop"
    assert len(Mirror.asked) == 4


def test_mirrors_use_https():
    assert all(address.startswith("https://") for address in FashionMNIST.MIRRORS)
    assert len(FashionMNIST.MIRRORS) >= 2

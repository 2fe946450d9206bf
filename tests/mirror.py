"""A mirror on loopback that serves files, or behaves as badly as a test wants it to."""

import hashlib
import http.client
import http.server
import threading

from d2ldrop.data import download, local

CONTENT = {"a.gz": b"first file" * 10_000, "b.gz": b"second file" * 10_000}


def published(contents):
    return {name: local.Published(len(each), hashlib.sha256(each).hexdigest()) for name, each in contents.items()}


FILES = published(CONTENT)


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serve files, in the way that the first part of the address names."""

    asked: list[tuple[str, str | None]]
    contents: dict[str, bytes]
    over: threading.Event

    def do_GET(self):
        self.asked.append((self.path, self.headers["Range"]))
        manner, _, name = self.path.strip("/").partition("/")
        try:
            getattr(self, manner, self.nowhere)(self.contents.get(name, b""))
        except OSError:  # whom it sends to has gone
            self.close_connection = True

    def head(self, status=200, **fields):
        self.send_response(status)
        for key, value in fields.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()

    def nowhere(self, _):
        self.head(404, Content_Length=0)

    def whole(self, content):
        self.head(Content_Length=len(content))
        self.wfile.write(content)

    def good(self, content):
        if not self.headers["Range"]:
            return self.whole(content)
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.head(206, Content_Length=len(content) - start, Content_Range=f"bytes {start}-{len(content) - 1}/*")
        return self.wfile.write(content[start:])

    def wrong(self, content):
        self.whole(b"x" + content[1:])

    def wrong_part(self, content):
        self.head(206, Content_Length=len(content), Content_Range="bytes 0-9/10")
        self.wfile.write(content)

    def stalling(self, content):
        self.head(Content_Length=len(content))
        self.wfile.write(content[:100])
        self.over.wait()

    def silent(self, _):
        self.over.wait()

    def dripping(self, content):
        self.head(Content_Length=len(content))
        for i in range(200):
            self.wfile.write(content[i : i + 1])
            if self.over.wait(0.02):
                break

    def dripping_header(self, _):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        for _ in range(200):
            self.wfile.write(b"x")
            if self.over.wait(0.02):
                break

    def too_much(self, content):
        self.head()
        self.wfile.write(content + b"more")

    def too_much_announced(self, content):
        self.head(Content_Length=len(content) + 1)
        self.wfile.write(content + b"x")

    def endless(self, _):
        """Send more than any buffer between the two holds."""
        self.head()
        for _ in range(1000):
            self.wfile.write(bytes(2**16))
        self.asked.append(("all was read", None))

    def little_announced(self, content):
        self.head(Content_Length=100)
        self.wfile.write(content)

    def much_announced(self, content):
        """Announce all, send a little, and close."""
        self.head(Content_Length=len(content))
        self.wfile.write(content[:100])

    def breaking(self, content):
        """Break off in the middle once, and then go on from there."""
        if self.headers["Range"]:
            return self.good(content)
        self.head(Content_Length=len(content))
        return self.wfile.write(content[: len(content) // 2])

    def forgetful(self, content):
        """Break off in the middle once, and then send all of it."""
        if self.headers["Range"]:
            return self.whole(content)
        return self.breaking(content)

    def busy(self, content):
        """Refuse at first."""
        if len(self.asked) < download.ATTEMPTS:
            return self.head(503, Content_Length=0)
        return self.good(content)

    def circle(self, _):
        self.head(302, Location=self.path, Content_Length=0)

    def spiral(self, _):
        self.head(302, Location=f"/spiral/{len(self.asked)}", Content_Length=0)

    def endless_redirect(self, _):
        self.send_response(302)
        self.send_header("Location", "/good/a.gz")
        self.endless(_)

    def moved(self, _):
        self.head(302, Location=self.path.replace("moved", "good"), Content_Length=0)

    def moved_to_a_file(self, _):
        self.head(302, Location="file:///etc/hosts", Content_Length=0)

    def gibberish(self, _):
        self.wfile.write(b"\x00\xff gibberish\r\n\r\n")

    def log_message(self, *_):
        """Say nothing."""

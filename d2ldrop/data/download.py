"""Download the files of a data set: within limits of time and size, from where it broke off, with hashes checked."""

import hashlib
import http.client
import os
import queue
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from d2ldrop.data.local import Published
from d2ldrop.errors import DataNotFoundError

__all__ = ["ATTEMPTS", "CHUNK", "PAUSE", "TIMEOUT", "TOTAL_TIMEOUT", "fetch"]

TIMEOUT = 20.0
"""Seconds without an answer after which the next mirror is tried."""
TOTAL_TIMEOUT = 1800.0
"""Seconds after which a download is given up; what has arrived is kept, and the next call goes on from there."""
ATTEMPTS = 3
"""How often a mirror is asked for a file if the connection fails or breaks off."""
PAUSE = 0.5
"""Seconds before the second attempt; twice as many before each further one."""

CHUNK: Final = 2**16


class _Failure(Exception):
    """What went wrong with a mirror, in one line, and whether it may be better when asked again."""

    def __init__(self, text: str, again: bool = False):
        super().__init__(text)
        self.again = again


def fetch(
    files: Mapping[str, Published], mirrors: Sequence[str], folder: str | os.PathLike[str], looked: Sequence[str] = ()
) -> Path:
    """Download the files that `folder` lacks.

    Where several processes ask at once, one downloads and the others wait. In a terminal a bar shows the progress.

    Parameters
    ----------
    files
        Size and hash of each file, by name.
    mirrors
        Addresses of folders that have them, over https, tried one after the other for each file.
    folder
        Where they go. A file appears there once it is complete and its hash is right; until then what has arrived of
        it is in a hidden file, from which the next call goes on.
    looked
        What is lacking elsewhere on this machine, a line per folder, for the message.

    Returns
    -------
    pathlib.Path
        `folder`

    Raises
    ------
    DataNotFoundError
        If no mirror has a file, or the folder cannot be written; the message says what each mirror answered.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    answers: list[str] = []
    try:
        created = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".download.lock", timeout=TOTAL_TIMEOUT) as lock, ExitStack() as stack:
                stack.callback(_remove, Path(lock.lock_file))  # who waits for it notices, and makes a new one
                show = stack.enter_context(_progress(files))
                deadline = time.monotonic() + TOTAL_TIMEOUT
                for name, published in files.items():
                    if not (folder / name).exists() and not answers:
                        answers = _from_any(mirrors, folder / name, published, deadline, show)
        finally:
            with suppress(OSError):
                for each in created:
                    each.rmdir()  # unless something has arrived
    except Timeout:
        answers = [f"Another process has been downloading to {folder} for {TOTAL_TIMEOUT:.0f} s."]
    except (OSError, ValueError) as error:
        answers = [f"Could not write to {folder}: {_line(error)}"]
    if not answers:
        return folder
    if looked:
        answers = ["Expected the data in one of these folders. Received:", *(f"  {line}" for line in looked), *answers]
    hint = f"Put the files into {folder} by hand, or name the folder that has them by root= or $D2LDROP_DATA."
    raise DataNotFoundError("\n".join([*answers, hint]))


def _from_any(
    mirrors: Sequence[str], path: Path, published: Published, deadline: float, show: Callable[[str, int], None]
) -> list[str]:
    """Download a file from the first mirror that gives it, and return [], or else what each answered."""
    answers = []
    for tried, mirror in enumerate(mirrors):
        share = time.monotonic() + (deadline - time.monotonic()) / (len(mirrors) - tried)  # of the time that is left
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _receive(f"{mirror}/{path.name}", path, published, share, show)
                return []
            except _Failure as failure:
                answer = str(failure)
                pause = PAUSE * 2 ** (attempt - 1)
                if not failure.again or attempt == ATTEMPTS or time.monotonic() + pause > share:
                    break
                time.sleep(pause)
        answers.append(f"  {mirror}: {answer}")
    return [f"Could not download {path.name}. The mirrors answered:", *answers]


def _receive(url: str, path: Path, published: Published, deadline: float, show: Callable[[str, int], None]) -> None:
    """Download a file, from where an earlier attempt broke off, and give it its name once its hash is right."""
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("ab") as file:  # where each write goes to the end
            if file.tell() > published.size:
                file.truncate(0)
            start = received = os.fstat(file.fileno()).st_size
            if start < published.size:
                with closing(_chunks(url, start, published.size, deadline)) as chunks:
                    for position, chunk in chunks:
                        if position < received:  # the mirror sends the whole file, whatever it was asked for
                            file.truncate(position)
                        file.write(chunk)
                        received = position + len(chunk)
                        show(path.name, received)
            file.flush()
            os.fsync(file.fileno())
        if received > published.size:
            partial.unlink()
            raise _Failure(f"sent more than the expected {published.size} bytes")
        if received < published.size:
            raise _Failure(f"broke off after {received} of {published.size} bytes", again=True)
        with partial.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != published.sha256:
            partial.unlink()  # what an earlier attempt left may be at fault
            raise _Failure(f"sent other content: expected SHA-256 {published.sha256}, received {sha256}", start > 0)
        os.replace(partial, path)
    finally:
        if partial.exists() and not partial.stat().st_size:
            partial.unlink()


def _chunks(url: str, start: int, size: int, deadline: float) -> Generator[tuple[int, bytes], None, None]:
    """Yield what a mirror sends of a file of `size` bytes, with its position in the file.

    A thread waits for the mirror, as an address that is looked up, a header that drips or a redirect cannot be stopped
    at a given time; so it is left behind instead.
    """
    arrived: queue.SimpleQueue[tuple[int, bytes] | _Failure | None] = queue.SimpleQueue()
    given_up = threading.Event()

    def receive() -> None:
        try:
            with _open(url, start) as response:
                position = _position(response, start)
                announced = int(response.headers.get("Content-Length", 0))
                if position + announced > size:
                    raise _Failure(f"announced {position + announced} bytes, expected {size}")
                while not given_up.is_set() and position <= size and (chunk := response.read1(CHUNK)):
                    arrived.put((position, chunk))
                    position += len(chunk)
            arrived.put(None)
        except _Failure as failure:
            arrived.put(failure)
        except Exception as error:
            arrived.put(_failure(error))

    threading.Thread(target=receive, daemon=True).start()
    began = time.monotonic()
    try:
        while True:
            left = deadline - time.monotonic()
            try:
                item = arrived.get(timeout=max(0, min(left, TIMEOUT)))
            except queue.Empty:
                if left < TIMEOUT:
                    raise _Failure(f"TimeoutError: not complete after {time.monotonic() - began:.0f} s") from None
                raise _failure(TimeoutError()) from None
            if item is None:
                return
            if isinstance(item, _Failure):
                raise item
            yield item
    finally:
        given_up.set()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow a few redirects, to addresses as safe as the first."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request; the body of the redirect, which may never end, is not read."""
        fp.close()
        if req.type == "https" and not newurl.startswith("https:"):
            raise _Failure(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int) -> Any:
    """Return a mirror's answer to a request for a file from byte `start` on."""
    parts = urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1"):
        raise _Failure("Expected an https address.")
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)


def _position(response: Any, start: int) -> int:
    """Return from which byte on a mirror sends the file: 0 if it sends all of it."""
    if response.status != 206:
        return 0
    given = response.headers.get("Content-Range", "")
    if not given.startswith(f"bytes {start}-"):
        raise _Failure(f"sent {given or 'an unknown part'}, expected bytes {start}-")
    return start


def _failure(error: Exception) -> _Failure:
    """Return what an error of the network means: whether it pays to ask again."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return _Failure(_line(error), again=error.code in (408, 429) or error.code >= 500)
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _failure(error.reason)
    if isinstance(error, TimeoutError):
        return _Failure(f"TimeoutError: no answer for {TIMEOUT} s")
    transient = isinstance(error, (OSError, http.client.HTTPException))
    return _Failure(_line(error), again=transient and not isinstance(error, ssl.SSLCertVerificationError))


@contextmanager
def _progress(files: Mapping[str, Published]) -> Iterator[Callable[[str, int], None]]:
    """Yield a function that shows how much of a file has arrived, in a terminal."""
    if not files or sys.stderr is None or not sys.stderr.isatty():
        yield lambda name, received: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(20), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {name: bar.add_task(name, total=published.size) for name, published in files.items()}
        yield lambda name, received: bar.update(tasks[name], completed=received)


def _remove(path: Path) -> None:
    """Remove a lock file that is held; Windows does not, and keeps it."""
    with suppress(OSError):
        path.unlink()


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]

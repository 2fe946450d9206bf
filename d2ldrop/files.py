"""Write files so that nothing is lost: the old content stays until the new one is complete."""

import errno
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from d2ldrop.errors import ArgumentError

__all__ = ["MAX_TEXT", "STREAMS", "as_json", "check_writable", "is_stream", "replacing"]

MAX_TEXT = 1_000_000
"""The longest value, as JSON, that is written in full beside weights; of a longer one there is a description."""

STREAMS = ("/dev/fd/", "/dev/std", "/proc/")
"""Where names stand for what a process has open: it would go on writing to the old file if the name got another."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path with the ending of `path`; when the block ends well, its content is at `path`.

    The temporary file is beside `path`, and takes its name once the disk has the content. Symbolic links stay, and what
    they point to is replaced; so do the permissions of an older file. Into a pipe or a device (/dev/null, say) the
    content is copied. If the block fails (the disk is full, say), the temporary file is removed, and what was at `path`
    stays.

    Raises
    ------
    OSError
        If nothing can be written there; it names `path`.
    """
    with _naming(path):
        target, old = _look_up(path)
        temporary = _new_file(target, None if _is_stream(target, old) else target.parent)
    try:
        yield temporary
        with _naming(path):
            if _is_stream(target, old):
                with open(temporary, "rb") as source, open(_end_of(target), "wb") as stream:
                    shutil.copyfileobj(source, stream)
            else:
                _flush(temporary, os.O_RDWR)
                _give_attributes(temporary, old)
                os.replace(temporary, target)
                with suppress(OSError):  # not every system lets a folder be opened
                    _flush(target.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that `replacing` can write to `path`, by creating a file beside it; what is at `path` stays as it is.

    It is for calls that write after hours of work.

    Raises
    ------
    ArgumentError
        If the folder does not exist or cannot be written to, if the name is too long, or if there is a folder.
    """
    try:
        target, old = _look_up(path)
        if not _is_stream(target, old):
            _new_file(target, target.parent).unlink()
        elif not os.access(target, os.W_OK):
            raise _error(errno.EACCES)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ArgumentError(
            f"Expected the name of a file in a folder that can be written to. Received: {os.fspath(path)!r} ({reason})"
        ) from error


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Return True if there is a pipe or a device at `path`, into which `replacing` copies; its name has any ending."""
    try:
        return _is_stream(*_look_up(path))
    except (OSError, ValueError):
        return False


def _look_up(path: str | os.PathLike[str]) -> tuple[Path, os.stat_result | None]:
    """Return the path to write to, behind symbolic links, and what is there: a file, a pipe, a device or nothing."""
    path = Path(path)  # "" is the folder that one is in
    try:
        old = path.stat()
    except FileNotFoundError:
        return Path(os.path.realpath(path)), None
    if stat.S_ISDIR(old.st_mode):
        raise _error(errno.EISDIR)
    if not (stat.S_ISREG(old.st_mode) or stat.S_ISFIFO(old.st_mode) or stat.S_ISCHR(old.st_mode)):
        raise _error(errno.EINVAL)  # a disk, or a socket
    if _is_stream(path.absolute(), old):
        return path.absolute(), old  # the link to a pipe in /proc names no file
    return Path(os.path.realpath(path)), old


def _is_stream(path: Path, old: os.stat_result | None) -> bool:
    """Return True if `path` is to be written into, rather than replaced."""
    return old is not None and (not stat.S_ISREG(old.st_mode) or str(path).startswith(STREAMS))


def _end_of(path: Path) -> int:
    """Open what is to be written into, without shortening it, and return its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_APPEND)


def _new_file(target: Path, folder: Path | None) -> Path:
    """Create an empty file with the ending of `target`, and a name that is short even if that of `target` is not."""
    ending = target.suffix if len(target.suffix) <= 16 else ""
    handle, name = tempfile.mkstemp(prefix=f".{target.stem[:16]}-", suffix=ending, dir=folder)
    os.close(handle)
    return Path(name)


def _give_attributes(temporary: Path, old: os.stat_result | None) -> None:
    """Give a file the owner and the permissions of the one it replaces, or those of a new file."""
    if old is not None and hasattr(os, "chown"):
        with suppress(OSError):  # only root may give files away
            os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(0o666 & ~_umask() if old is None else stat.S_IMODE(old.st_mode))


def _flush(path: Path, flags: int) -> None:
    """Wait until the disk has what was written to a file, or which files are in a folder."""
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors of the system name the path that the caller knows, and not that of a temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _error(number: int) -> OSError:
    """Return the error of the system that has this number."""
    return OSError(number, os.strerror(number))


def _umask() -> int:
    """Return the permissions that new files of this process do not get."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON can hold them: None for numbers that are nan or infinite."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }

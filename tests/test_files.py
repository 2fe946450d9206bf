"""Writing files: the old content stays until the new one is complete, and what is no file is written into."""

import os
import stat
import subprocess
import sys
import threading

import pytest

import d2ldrop
from d2ldrop.files import check_writable, replacing

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, links and permissions as POSIX has them")


def write(path, text="new", error=None):
    """Write a text; with an error, fail after that."""
    with replacing(path) as temporary:
        temporary.write_text(text)
        if error is not None:
            raise error


def test_new_file_has_the_content_and_the_permissions_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write(tmp_path / "a.txt")
        assert os.umask(0o027) == 0o027  # reading it changed nothing
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").read_text() == "new"
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


@posix
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o444])
def test_permissions_of_an_old_file_stay(tmp_path, mode):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "a.txt").chmod(mode)
    write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


@posix
@pytest.mark.parametrize("exists", [True, False])
def test_symbolic_links_stay_and_their_target_is_written(tmp_path, exists):
    (tmp_path / "there").mkdir()
    target, link, chain = tmp_path / "there" / "w.txt", tmp_path / "link", tmp_path / "chain"
    if exists:
        target.write_text("old")
    link.symlink_to("there/w.txt")
    chain.symlink_to("link")
    check_writable(chain)
    write(chain)
    assert target.read_text() == "new"
    assert (link.is_symlink(), chain.is_symlink()) == (True, True)
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["w.txt"]


@posix
def test_a_named_pipe_gets_the_content_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    check_writable(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    write(tmp_path / "pipe", "x" * 100_000)
    reader.join(60)
    assert received == ["x" * 100_000]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]


@posix
def test_a_device_stays_a_device():
    before = os.stat("/dev/null")
    check_writable("/dev/null")
    write("/dev/null")
    after = os.stat("/dev/null")
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device, whose disk is always full")
def test_an_error_of_a_device_names_it():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write("/dev/full")


@posix
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_is_written_into(tmp_path, into):
    """A file that the shell opened for the output gets everything, and does not lose its name to a new one."""
    code = (
        "from d2ldrop.files import replacing, check_writable\n"
        "print('before', flush=True)\n"
        "check_writable('/dev/stdout')\n"
        "with replacing('/dev/stdout') as temporary: temporary.write_text('content\\n')\n"
    )
    with open(tmp_path / "out", "a+b") as out:
        result = subprocess.run(
            [sys.executable, "-c", code], stdout=out if into == "file" else subprocess.PIPE, check=True
        )
    printed = (tmp_path / "out").read_bytes() if into == "file" else result.stdout
    assert printed == b"before\ncontent\n"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_block_leaves_the_old_file_alone(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)):
        write(tmp_path / "a.txt", "half", error)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_alone(tmp_path, monkeypatch, function):
    (tmp_path / "a.txt").write_text("old")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match=r"Input/output error: '.*a\.txt'"):
        write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@posix
def test_file_and_folder_are_flushed_around_the_renaming(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def note_fsync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def note_replace(*paths):
        calls.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(tmp_path / "a.txt")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize("name", ["a" * 255, "b" * 240 + ".safetensors", "." + "c" * 254, "ü" * 127])
def test_the_longest_names_can_be_written(tmp_path, name):
    check_writable(tmp_path / name)
    write(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_the_temporary_path_has_the_ending_by_which_writers_choose_a_format(tmp_path):
    with replacing(tmp_path / "picture.png") as temporary:
        assert temporary.suffix == ".png"


def refused_paths(tmp_path):
    """Return paths to which nothing can be written."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    paths = {
        "missing folder": tmp_path / "no" / "a.txt",
        "file as folder": tmp_path / "file" / "a.txt",
        "folder": tmp_path / "folder",
        "long name": tmp_path / ("a" * 256),
        "null": f"{tmp_path}/a\0b",
        "empty": "",
    }
    if os.name == "posix":
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "to folder").symlink_to("folder")
        (tmp_path / "to missing").symlink_to("no/a.txt")
        paths |= {name: tmp_path / name for name in ("loop", "to folder", "to missing")}
        paths["proc"] = "/proc/self/no/a.txt"
    return paths


KINDS = ["missing folder", "file as folder", "folder", "long name", "null", "empty"]
KINDS += ["loop", "to folder", "to missing", "proc"] if os.name == "posix" else []


@pytest.mark.parametrize("kind", KINDS)
def test_check_writable_says_in_one_sentence_what_cannot_be_written(tmp_path, kind):
    path = refused_paths(tmp_path)[kind]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(d2ldrop.ArgumentError, match=r"in a folder that can be written to\. Received: ") as caught:
        check_writable(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "null"])
def test_replacing_names_the_path_that_cannot_be_written(tmp_path, kind):
    path = refused_paths(tmp_path)[kind]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="Errno") as caught:
        write(path)
    assert caught.value.filename == str(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "old"


def test_check_writable_leaves_everything_as_it_is(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    before = os.stat(tmp_path / "a.txt")
    check_writable(tmp_path / "a.txt")
    check_writable(tmp_path / "b.txt")
    after = os.stat(tmp_path / "a.txt")
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@posix
def test_check_writable_asks_for_permission(tmp_path, monkeypatch):
    """Simulated, because root may do everything."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(d2ldrop.ArgumentError, match="Permission denied"):
        check_writable(tmp_path / "pipe")

    def deny(**_):
        raise PermissionError(13, "Permission denied", "/x/.a-123.txt")

    monkeypatch.setattr("tempfile.mkstemp", deny)
    with pytest.raises(d2ldrop.ArgumentError, match=r"'.*a\.txt' \(Permission denied\)"):
        check_writable(tmp_path / "a.txt")
    with pytest.raises(PermissionError, match=r"/a\.txt'$"):
        write(tmp_path / "a.txt")

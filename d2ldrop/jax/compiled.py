"""What JAX compiles is kept in the user's cache folder, so that a second process need not compile the same again."""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

import jax

SIZE = 2**28
"""The bytes that are kept at most; then JAX removes what was not used for longest."""


def keep_compiled() -> None:
    """Let JAX keep what it compiles from now on, unless its folder was chosen by others, or `$D2LDROP_JAX_CACHE` is 0.

    The folder is `jax` below the cache folder of this library, or the one that `$D2LDROP_JAX_CACHE` names. It has a
    part for each kind of processor, whose code does not run on others. Where it cannot be written, nothing is kept.
    """
    named = os.environ.get("D2LDROP_JAX_CACHE", "")
    if named == "0" or getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    with suppress(OSError, RuntimeError):  # no home, or one that cannot be written
        folder = (Path(named).expanduser() if named else _cache_folder()).absolute() / _processor()  # chdir may follow
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_compilation_cache_max_size", SIZE)  # with it, files are locked as well
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cache_folder() -> Path:
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("d2ldrop")) / "jax"


def _processor() -> str:
    """Return a name for the kind of this processor."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.exists() else []
    kinds = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    kind = "\n".join(sorted(kinds or {platform.machine(), platform.processor()}))
    return hashlib.sha256(kind.encode()).hexdigest()[:16]

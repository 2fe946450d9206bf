"""Import TensorFlow without its log lines.

TF_CPP_MIN_LOG_LEVEL does not cover what TensorFlow's C++ code logs before its logging is initialised; it writes these
lines to the file descriptor of standard error.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


@contextmanager
def quietly(stderr: bool = True) -> Iterator[None]:
    """Ignore warnings inside the block and, with `stderr`, drop what is written to standard error, also by C++."""
    with warnings.catch_warnings(), _dropping_stderr() if stderr else nullcontext():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _dropping_stderr() -> Iterator[None]:
    """Redirect file descriptor 2 to nowhere inside the block."""
    try:
        saved = os.dup(2)
    except OSError:  # the process has no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)

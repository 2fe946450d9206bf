"""Import a framework without what it has to say about itself."""

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
    try:
        saved = os.dup(2)
    except OSError:  # there is none
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

"""What a command does with signals, and with output that cannot be written."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Report", "Stopped", "signals_raise", "signals_wait"]


class Report:
    """Prints lines for the user; where they cannot be written, once and for all it stops, and nothing else does."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.failed: OSError | None = None

    def __call__(self, line: str) -> None:
        """Print a line."""
        if self.quiet or self.failed:
            return
        try:
            print(line, flush=True)
        except OSError as error:  # a closed pipe, a full disk
            self.failed = OSError(error.errno, f"Standard output could not be written: {error.strerror}")
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - held until the process ends


class Stopped(KeyboardInterrupt):
    """A signal that ends the process; it is handled as an interrupt by the user is."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.signal = number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt the block as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    with _handled([name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)], stop):
        yield


@contextmanager
def signals_wait() -> Iterator[None]:
    """Do not let signals interrupt the block, which writes what was trained and is soon done."""
    with _handled([name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)], signal.SIG_IGN):
        yield


@contextmanager
def _handled(names: list[str], handler: Any) -> Iterator[None]:
    """Handle signals in the block, if this is the main thread, where alone Python allows it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # as under nohup
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

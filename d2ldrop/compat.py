"""Let notebooks that import the book's own package, `from d2l import torch as d2l`, run with this library."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

from d2ldrop.errors import UsageError
from d2ldrop.registry import backend, registered

PACKAGE = "d2l"
"""The book's package."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `d2l`, an empty package, and `d2l.torch`, `d2l.tensorflow`, ...: the adapters of this library."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how to load a module, if it is the package or one of the adapters."""
        package, _, name = fullname.partition(".")
        if package != PACKAGE or name not in ("", "tensorflow", *registered()):
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=not name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave it to Python to make a new module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put the adapter in the place of the new module, which stays empty."""
        _, _, name = module.__name__.partition(".")
        if name:
            sys.modules[module.__name__] = backend(name)


_finder = _Finder()


def install() -> None:
    """Let `from d2l import torch as d2l`, and likewise for the other frameworks, import this library in this process.

    The book's package, if it is installed, is left out of account. Call it again as often as you like.

    Raises
    ------
    UsageError
        If the book's package was imported before.

    Examples
    --------
    >>> install()
    >>> from d2l import numpy as d2l
    >>> d2l.backend.name
    'numpy'
    """
    present = sys.modules.get(PACKAGE)
    if present is not None and getattr(present.__spec__, "loader", None) is not _finder:
        raise UsageError(f"Expected install() before {PACKAGE!r} is imported. Received it imported: restart Python.")
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)

"""Let notebooks that import the book's own package, `from d2l import torch as d2l`, run with this library.

Those of MXNet import `mxnet` first, whose last release asks NumPy for what NumPy 1.24 removed: it is lent to it.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import patch

import numpy as np

from d2ldrop.errors import UsageError
from d2ldrop.registry import backend, registered

__all__ = ["PACKAGE", "install", "numpy_with_bool"]

PACKAGE = "d2l"
"""The book's package."""


@contextmanager
def numpy_with_bool() -> Iterator[None]:
    """Inside the block, NumPy has `numpy.bool`, Python's own, which MXNet reads while it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what has been deprecated since MXNet 1.9.1, its last release
        with patch.object(np, "bool", bool, create=True):
            yield


class _MXNetLoader(importlib.abc.Loader):
    """Loads `mxnet` as its own loader does, with `numpy.bool`."""

    def __init__(self, loader: importlib.abc.Loader):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Make the module as the package's own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the package's code."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader  # what reads the source later needs no detour
        with numpy_with_bool():
            self.loader.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `d2l`, an empty package, `d2l.torch`, `d2l.tensorflow`, ...: the adapters of this library, and MXNet."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how to load a module, if it is the package or one of the adapters."""
        if fullname == "mxnet":
            found = importlib.machinery.PathFinder.find_spec(fullname)
            if found is not None and found.loader is not None:
                found.loader = _MXNetLoader(found.loader)
            return found
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

    The book's package, if it is installed, is left out of account. `import mxnet` works after it, too, where NumPy has
    no `numpy.bool`. Call it again as often as you like.

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

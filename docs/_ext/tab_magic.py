"""`import tab_magic` in a notebook: then each `%%tab FRAMEWORK` has names of its own, as if it were another notebook.

So the chapter's page runs in one kernel, and the five frameworks cannot use each other's `d2l` or `model` by mistake.
"""

import sys
import types
from typing import Any

from IPython.core.getipython import get_ipython

MAGIC = "%%tab "
shell: Any = get_ipython()
modules: dict[str, types.ModuleType] = {"": shell.user_module}


def enter(lines: list[str]) -> list[str]:
    """Let a cell run among the names of the framework that its first line says, and drop this line."""
    name = lines[0].removeprefix(MAGIC).strip() if lines and lines[0].startswith(MAGIC) else ""
    if name not in modules:
        modules[name] = sys.modules[f"tab_{name}"] = types.ModuleType(f"tab_{name}")  # where dataclasses look
        modules[name].__dict__.update(get_ipython=get_ipython, display=shell.user_ns["display"])
    shell.user_module, shell.user_ns = modules[name], modules[name].__dict__
    return lines[1:] if name else lines


shell.input_transformers_cleanup.insert(0, enter)

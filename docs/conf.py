"""How Sphinx builds the documentation; `nox -s docs` does so in all languages."""

import inspect
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import d2ldrop  # noqa: E402

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "_ext"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

# The notebooks are read from a copy, as Sphinx reads only what is below this folder.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".*"))

project = "d2ldrop"
author = "d2ldrop contributors"
copyright = "d2ldrop contributors, MIT licence"
version = release = d2ldrop.__version__
language = "en"
locale_dirs = ["locale"]
gettext_compact = False

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "benchmark_tables",
    "framework_tabs",
    "mathml",
]
exclude_patterns = ["_build", "_ext", "locale"]

# Pages of Markdown, and their cells
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # so that all languages show the same outputs
nb_execution_cache_path = str(HERE / "_build" / "cells")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_render_markdown_format = "gfm"
nb_merge_streams = True
nb_output_stderr = "remove-warn"  # a page that warns its reader is an error

# The reference
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autosummary_generate = False
default_role = "py:obj"  # a name in `...` of a docstring is a link, if it is one of ours
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Looks
html_theme = "furo"
html_title = "d2ldrop"
pygments_dark_style = "github-dark"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/languages.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_context = {"languages": {"en": "English", "zh_CN": "简体中文", "ko": "한국어"}}
suppress_warnings = ["ref.python"]  # a name in a docstring that several classes have


def is_foreign(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out functions of a framework that our modules and classes hand on: their docstrings are the framework's."""
    if not callable(thing):
        return None
    try:
        source = inspect.getsourcefile(inspect.unwrap(thing)) or ""
    except TypeError:  # no Python
        return True
    return None if source.startswith(str(Path(d2ldrop.__file__).parent)) else True


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("autodoc-skip-member", is_foreign)

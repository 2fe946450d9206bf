"""Tabs of cells: neighbouring cells that begin with `%%tab FRAMEWORK` become one set of tabs, one for each framework.

MyST-NB executes cells only where they are not inside of a directive, so the tabs are put around them afterwards. The
browser remembers which framework was chosen, for all pages: sphinx-design does that for tabs with one `sync_group`.
"""

import itertools
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx_design.shared import create_component

LABELS = {"torch": "PyTorch", "tf": "TensorFlow", "jax": "JAX", "mxnet": "MXNet", "numpy": "NumPy"}
MAGIC = "%%tab "


def framework_of(node: nodes.Node) -> str:
    """Return the framework of a cell, or an empty text if it is for all, or no cell."""
    if not isinstance(node, nodes.container) or "cell" not in node["classes"]:
        return ""
    source = next(node.findall(nodes.literal_block), None)
    text = source.astext() if source is not None else ""
    return text.partition("\n")[0].removeprefix(MAGIC).strip() if text.startswith(MAGIC) else ""


def without_magic(cell: nodes.container) -> nodes.container:
    """Return the cell without its first line."""
    source = next(cell.findall(nodes.literal_block))
    code = source.astext().partition("\n")[2]
    source.rawsource, source.children = code, []
    source += nodes.Text(code)
    return cell


def tab_set(cells: list[nodes.container]) -> nodes.container:
    """Return a set of tabs, in the order of `LABELS`; cells of one framework share a tab."""
    by_framework: dict[str, list[nodes.container]] = {}
    for cell in cells:
        by_framework.setdefault(framework_of(cell), []).append(cell)
    items = []
    for name, label in LABELS.items():
        if name in by_framework:
            head = nodes.rubric(label, label, classes=["sd-tab-label"], sync_group="framework", sync_id=name)
            inside = [without_magic(cell) for cell in by_framework[name]]
            body = create_component("tab-content", classes=["sd-tab-content"], children=inside)
            items.append(create_component("tab-item", classes=["sd-tab-item"], selected=False, children=[head, body]))
    return create_component("tab-set", classes=["sd-tab-set"], children=items)


class FrameworkTabs(SphinxTransform):
    """Put neighbouring cells of frameworks into tabs."""

    default_priority = 300

    def apply(self, **kwargs: Any) -> None:
        """Change the document in place."""
        found = [node.parent for node in self.document.findall(nodes.container) if framework_of(node)]
        for parent in {id(parent): parent for parent in found}.values():
            groups = itertools.groupby(list(parent.children), lambda node: bool(framework_of(node)))
            parent.children = []
            for are_cells, group in groups:
                parent.extend([tab_set(list(group))] if are_cells else list(group))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(FrameworkTabs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

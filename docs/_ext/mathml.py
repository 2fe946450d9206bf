"""Formulas as MathML, which browsers draw by themselves: no script, no font and no network is needed to read them."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

COMMANDS = {r"\dots": r"\ldots", r"\lvert": "|", r"\rvert": "|"}  # which docutils does not know


def mathml(text: str, as_block: bool) -> str:
    """Return a formula of LaTeX as MathML."""
    for command, known in COMMANDS.items():
        text = text.replace(command, known)
    return tex2mathml(text, as_block=as_block)


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula inside of a line."""
    self.body.append(mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own; it scrolls where the page is narrow."""
    self.body.append(self.starttag(node, "div", CLASS="math-block"))
    self.body.append(mathml(node.astext(), as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer; `html_math_renderer = "mathml"` chooses it."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

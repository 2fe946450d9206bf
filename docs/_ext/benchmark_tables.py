"""The directive `{benchmark-tables} bench.json`: tables from what `d2ldrop bench --json` printed."""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from d2ldrop.benchmarks import bench

Row = dict[str, Any]


def table(what: str, rows: list[Row]) -> list[str]:
    """Return the lines of one table: a row for each contestant, a column for each backend."""
    backends, contestants = (list(dict.fromkeys(row[key] for row in rows)) for key in ("backend", "who"))
    cells = {(row["who"], row["backend"]): bench.cell(row).replace("\n", "<br>") for row in rows}
    return [
        f"**{what[0].upper()}{what[1:]}**, in {bench.unit_of(rows[0])[1]}: median (fastest to slowest)",
        "",
        "| | " + " | ".join(backends) + " |",
        "|---" * (len(backends) + 1) + "|",
        *(f"| {who} | " + " | ".join(cells.get((who, name), "") for name in backends) + " |" for who in contestants),
        "",
    ]


def ratios(rows: list[Row]) -> list[str]:
    """Return the lines of the table of ratios: what is how many times as fast as what, or as long as its floor."""
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        if "ratio" in row and not row["what"].endswith("forward"):
            title = f"{row['what']}: {row['who']}, as fast as {row['baseline']}"
            cells.setdefault(title, {})[row["backend"]] = f"{row['ratio']:.2f}"
    for row in rows:
        if row["part"] == "epochs" and "floor" in row:
            title = f"{row['what']}: {row['who']}, as long as the faster of two ways to compute its products alone"
            cells.setdefault(title, {})[row["backend"]] = f"{row['over_floor']:.2f}"
    lines = ["| how many times | " + " | ".join(backends) + " |", "|---" * (len(backends) + 1) + "|"]
    for title, found in cells.items():
        lines.append(f"| {title} | " + " | ".join(found.get(name, "") for name in backends) + " |")
    return [*lines, ""]


def page(rows: list[Row]) -> list[str]:
    """Return the lines of the page: first where the rows were measured."""
    lines = ["Measured on " + " and ".join(dict.fromkeys("{cores} cores of {processor}".format(**row) for row in rows))]
    for name in dict.fromkeys(row["backend"] for row in rows):
        row = next(row for row in rows if row["backend"] == name)
        settings = [f"{key}={value}" for key, value in row["settings"].items()]
        used = "; ".join(["on a {}".format(row["device"].upper()), *row["pools"], *settings])
        lines.append(f"- {name} {row['version']}, {used}")
    lines[0] += ":\n"
    lines += ["", *ratios(rows)]
    for what in dict.fromkeys(row["what"] for row in rows):
        lines += table(what, [row for row in rows if row["what"] == what])
    return lines


class BenchmarkTables(SphinxDirective):
    """Put the tables into the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return what the recorded numbers look like."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        if Path(path).exists():
            lines = page(json.loads(Path(path).read_text("utf-8")))
        else:
            lines = ["Nothing is recorded here yet; `d2ldrop bench` measures it on your machine."]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("benchmark-tables", BenchmarkTables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

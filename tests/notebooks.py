"""The notebooks, executed from top to bottom in a real kernel. Run it by name: `pytest tests/notebooks.py`."""

import itertools
import os
import re
from pathlib import Path

import matplotlib.font_manager  # writes its cache now: in a kernel, it might report that on stderr
import nbclient
import nbformat
import papermill
import pytest

import d2ldrop

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = {"EPOCHS": 1, "SEEDS": 2, "RESULTS": str(ROOT / "docs" / "exercises")}  # for those notebooks that have them
HERE = (name for name in d2ldrop.available() if name != "toy")  # which a notebook's kernel does not know
BACKENDS = os.environ.get("D2LDROP_BACKENDS", ",".join(HERE)).split(",")


def parameters_of(path):
    """Return the first code cell, where a notebook's parameters are."""
    return next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def runs():
    """Yield each notebook with the parameters to try: every backend, where the notebook takes one."""
    for path in NOTEBOOKS:
        source = parameters_of(path).source
        if "BACKENDS =" in source:
            yield pytest.param(path, {"BACKENDS": BACKENDS}, id=f"{path.stem}-all")
            yield pytest.param(path, {"BACKENDS": ["numpy"]}, id=f"{path.stem}-alone")
        elif "BACKEND =" in source:
            for name in dict.fromkeys(BACKENDS):
                yield pytest.param(path, {"BACKEND": name}, id=f"{path.stem}-{name}")
        else:
            yield pytest.param(path, {}, id=path.stem)


def execute(path, parameters, folder):
    """Run a notebook for one epoch, and return what its cells printed; errors and warnings fail the test."""
    source = parameters_of(path).source
    quick = {name: value for name, value in QUICK.items() if f"{name} =" in source}
    done = papermill.execute_notebook(
        str(path),
        str(folder / path.name),
        parameters={**quick, **parameters},
        kernel_name="python3",
        cwd=str(folder),
        progress_bar=False,
    )
    streams = [
        (cell.id, output.name, output.text)
        for cell in done.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
    assert [stream for stream in streams if stream[1] == "stderr"] == []
    return "".join(text for _, _, text in streams)


@pytest.mark.parametrize(("path", "parameters"), list(runs()))
def test_runs_from_top_to_bottom(path, parameters, tmp_path, request):
    if "FashionMNIST(" in (text := path.read_text(encoding="utf-8")) or "load_data_fashion_mnist(" in text:
        request.getfixturevalue("fashion_mnist")
    assert execute(path, parameters, tmp_path)


@pytest.mark.parametrize("stem", ["dropout", "function_edition"])
def test_uses_digits_without_data_and_network(stem, tmp_path, monkeypatch):
    for name, value in {
        "D2LDROP_DATA": str(tmp_path),
        "KERAS_HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # otherwise it would be in XDG_CACHE_HOME
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    path = next(path for path in NOTEBOOKS if path.stem == stem)
    assert "scikit-learn's digits instead" in execute(path, {"BACKEND": "numpy"}, tmp_path)


@pytest.mark.parametrize(
    "loop",
    [
        "board = ProgressBoard()\nfor x in range(1000): board.draw(x, 2 * x, 'a')",
        "animator = Animator()\nfor x in range(1000): animator.add(x, (x, 2 * x))",
    ],
    ids=["board", "animator"],
)
def test_drawing_in_a_loop_leaves_one_picture_with_all_points(loop, tmp_path):
    setup = (
        "from matplotlib import pyplot as plt; plt.rcParams['svg.fonttype'] = 'none'\n"
        "from d2ldrop.numpy import ProgressBoard, use_svg_display; use_svg_display()\n"
        "from d2ldrop.functional import Animator"
    )
    cells = [nbformat.v4.new_code_cell(source) for source in (setup, loop)]
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="python3").execute(cwd=str(tmp_path))
    assert cells[0].outputs == []
    (output,) = cells[1].outputs
    assert output.output_type == "display_data"
    assert ">2000<" in output.data["image/svg+xml"]  # a tick label; the first picture contains only the first point


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_outputs_and_with_named_cells(path):
    """Then a difference between two versions shows only what was written, and cells keep their ids."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert re.fullmatch("[a-z]+(-[a-z]+)*", cell.id), cell.id
        assert cell.cell_type != "code" or (cell.outputs, cell.execution_count) == ([], None), cell.id
    assert parameters_of(path).metadata.tags == ["parameters"]
    assert "EPOCHS = " in parameters_of(path).source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_can_be_read_in_a_narrow_window_and_as_a_page(path):
    """Code fits JupyterLab at 1280 pixels beside its list of files; there is one title, and no level is left out."""
    cells = nbformat.read(path, as_version=4).cells
    code = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert [line for line in code if len(line) > 105] == []
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    levels = [len(marks) for marks in re.findall("^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))

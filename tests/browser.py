"""The chapter's notebook in JupyterLab, in a real browser. Run it by name: `pytest tests/browser.py`.

Screenshots are kept in the folder $D2LDROP_ARTIFACTS, if it is set.
"""

import io
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import matplotlib as mpl
import nbformat
import psutil
import pytest
from PIL import Image

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "dropout.ipynb"
EPOCHS = 8
WINDOW = (1280, 900)
TIMEOUT = 240  # seconds, for each condition that is waited for
TRAINING = "scratch-fit"  # the cell whose board is watched
FIGURES = (
    "unbiased-plot", "network-masks", "data-load", TRAINING, "few-plot", "predict-first", "predict-confusion",
    "predict-mistakes", "uncertainty-plot",
)  # fmt: skip
SETTINGS = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}

# What the scripts below use: JupyterLab's notebook, and the widget of the cell with a given id.
PRELUDE = """
const [lab, name] = [window.jupyterapp, arguments[0]];
const panel = lab.shell.currentWidget;
const cell = panel?.content?.widgets?.find(widget => widget.model.id === name);
"""
WATCH = """
window.frames_seen = [];
function look(now) {
  const area = cell.outputArea.node;
  const picture = area.querySelector("img, svg");
  frames_seen.push({
    time: now,
    outputs: area.querySelectorAll(".jp-OutputArea-output").length,
    height: area.getBoundingClientRect().height,
    width: picture?.getBoundingClientRect().width,
    shown: picture !== null && picture.getBoundingClientRect().height > 0 && picture.complete !== false,
    picture: picture === null ? null : picture.src || picture.outerHTML,
  });
  window.watching = requestAnimationFrame(look);
}
requestAnimationFrame(look);
"""
FRAMES = """
cancelAnimationFrame(watching);
const kinds = [...new Set(frames_seen.map(frame => frame.picture))];  // their numbers are shorter than they are
return frames_seen.map(frame => ({...frame, picture: kinds.indexOf(frame.picture)}));
"""
PICTURE = """
const picture = cell.outputArea.node.querySelector("img");
picture?.scrollIntoView({block: "center"});
return picture;
"""
WIDTH = "return arguments[0].closest('.jp-OutputArea-output').clientWidth"
THEME = "return document.body.dataset.jpThemeName"
SCROLL = "return panel.content.scrollToItem(panel.content.widgets.indexOf(cell), 'start');"
RESPOND = "requestAnimationFrame(() => arguments[arguments.length - 1](true));"


def program(name):
    """Return the path of a program, or skip the test."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def wait_for(what, condition):
    """Wait until the condition returns something true, and return that."""
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.2)
    return result


@pytest.fixture
def lab(tmp_path, fashion_mnist):
    """Start JupyterLab on a copy of the notebook, with folders of its own, and return its address."""
    program("chromium")
    program("chromedriver")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = next(cell for cell in notebook.cells if cell.id == "parameters")
    parameters.source += f"\nEPOCHS, SEEDS = {EPOCHS}, 2"
    (tmp_path / "work").mkdir()
    nbformat.write(notebook, tmp_path / "work" / NOTEBOOK.name)
    settings = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(SETTINGS))

    folders = {
        "HOME": "home",
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    env = os.environ | {name: str(tmp_path / folder) for name, folder in folders.items()}
    env |= {"MPLCONFIGDIR": mpl.get_cachedir(), "D2LDROP_DATA": str(fashion_mnist)}
    env["OMP_NUM_THREADS"] = "1"  # so that training is slow enough to be watched
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, log = secrets.token_hex(), tmp_path / "jupyterlab.log"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": tmp_path / "work",
        "ServerApp.allow_root": True,
        "IdentityProvider.token": token,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",
        "LabApp.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", *(f"--{k}={v}" for k, v in options.items())]
    with log.open("w") as file:
        process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)

    def responds():
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=5):
                return True
        except urllib.error.URLError:
            return False

    try:
        wait_for("JupyterLab", responds)
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK.name}?token={token}"
    finally:
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(30)
        for left in psutil.wait_procs(kernels, 30)[1]:
            left.kill()


@pytest.fixture
def browser(tmp_path):
    """Start Chromium without a window, and stop it after the test."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", size):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(program("chromedriver")))
    driver.set_script_timeout(10)
    # JupyterLab works on the widget that has the focus, and a page without a window may never get it.
    driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    yield driver
    driver.quit()


def run(browser, script, name=""):
    """Run a script in the tab; `cell` in it is the cell with the id `name`."""
    return browser.execute_script(PRELUDE + script, name)


def test_the_board_animates_in_place(lab, browser, tmp_path):
    browser.get(lab)
    wait_for("the kernel", lambda: run(browser, "return panel?.sessionContext?.session?.kernel?.status === 'idle'"))
    run(browser, "window.done = false; lab.commands.execute('notebook:run-all-cells').then(() => { done = true; })")
    run(browser, SCROLL, TRAINING)
    run(browser, WATCH, TRAINING)

    def done():
        assert browser.execute_async_script(RESPOND)  # raises if the tab does not respond while training runs
        return browser.execute_script("return window.done")

    wait_for("the last cell", done)
    frames = browser.execute_script(FRAMES)
    drawn = list(itertools.dropwhile(lambda frame: frame["outputs"] == 0, frames))
    assert len(drawn) > 100
    assert {frame["outputs"] for frame in drawn} == {1}
    assert all(frame["shown"] for frame in drawn)
    assert len({frame["picture"] for frame in drawn}) >= 4
    assert len({(frame["width"], frame["height"]) for frame in drawn}) == 1
    assert max(after["time"] - before["time"] for before, after in itertools.pairwise(frames)) < 5000

    for cell in run(browser, "return panel.context.model.toJSON().cells"):
        if cell["cell_type"] == "code":
            assert cell["execution_count"], cell["id"]
            assert "error" not in {output["output_type"] for output in cell["outputs"]}, cell["outputs"]

    folder = Path(os.environ.get("D2LDROP_ARTIFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("Light", "Dark"):
        run(browser, f"return lab.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
        wait_for("the theme", lambda: browser.execute_script(THEME) == f"JupyterLab {theme}")  # noqa: B023
        for name in FIGURES:
            check_picture(browser, name, folder / f"{theme.lower()}-{name}.png")


def check_picture(browser, name, path):
    """Check that a cell's picture fits the page, and is on white in every theme, as its text is black."""

    def in_view():
        run(browser, SCROLL, name)  # once may not do: cells above it grow when they are drawn
        return run(browser, PICTURE, name)

    picture = wait_for(f"the picture of {name}", in_view)
    time.sleep(0.5)  # until the page has stopped scrolling
    browser.save_screenshot(str(path))
    assert picture.size["width"] <= browser.execute_script(WIDTH, picture), name
    image = Image.open(io.BytesIO(picture.screenshot_as_png)).convert("RGB")
    assert image.getpixel((2, 2)) == (255, 255, 255), name

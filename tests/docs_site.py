"""The built documentation in a real browser. `nox -s docs` builds it, and runs this by name.

Screenshots are kept in the folder $D2LDROP_ARTIFACTS, if it is set.
"""

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import pytest

import d2ldrop

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
inventory = pytest.importorskip("sphinx.util.inventory", reason="Sphinx is not installed")

SITE = Path(__file__).parents[1] / "docs" / "_build" / "html"
FRAMEWORKS = ("torch", "tf", "jax", "mxnet", "numpy")
LETTERS = {"zh_CN": "[\u4e00-\u9fff]", "ko": "[\uac00-\ud7a3]"}
PAGES = (
    "index", "chapter", "masks", "speed", "how-to/layers", "exercises/exercise1", "api/torch", "api/names",
    "notebooks/dropout", "zh_CN/index", "zh_CN/chapter", "ko/index", "ko/chapter",
)  # fmt: skip
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")

SHOWN = (
    "return [...document.querySelectorAll('.sd-tab-set > input:checked + label')].map(label => label.dataset.syncId)"
)
FORMULAS = "return [...document.querySelectorAll('math')].map(formula => formula.getBoundingClientRect().width)"
RESULTS = "return [...document.querySelectorAll('#search-results li a')].map(link => link.href)"
PARAGRAPHS = """
return [...document.querySelectorAll("article p, article li, article h1, article h2")]
  .filter(text => !text.closest(".cell, .sd-tab-set, .toctree-wrapper"))
  .map(text => text.innerText);
"""
SIZES = "return [document.documentElement.scrollWidth, window.innerWidth, document.body.scrollHeight]"
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"
FOREIGN = """
return performance.getEntriesByType("resource")
  .map(entry => entry.name).filter(name => !name.startsWith(location.origin));
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    """Serve the built site, and return its address."""
    if not (SITE / "index.html").exists():
        pytest.fail(f"Expected the built documentation in {SITE}. Run `nox -s docs`.")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Start Chromium without a window, and without any other machine to talk to."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    rules = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", rules):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    driver.implicitly_wait(20)
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver):
    """Return the browser with a window of the usual size, and nothing remembered."""
    resize(driver, 1280)
    yield driver
    driver.execute_script("localStorage.clear()")


def resize(driver, width, scheme="light", height=900):
    """Let the page have a width in pixels, as on a phone if it is narrow, and a preferred colour scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def test_tabs_switch_together_and_are_remembered(site, browser):
    browser.get(f"{site}/chapter.html")
    before = browser.execute_script(SHOWN)
    assert len(before) > 5
    assert set(before) == {"torch"}
    for framework in FRAMEWORKS:
        browser.find_element("css selector", f"[data-sync-id={framework}]").click()
        assert browser.execute_script(SHOWN) == [framework] * len(before)
    browser.refresh()
    assert set(browser.execute_script(SHOWN)) == {"numpy"}
    browser.get(f"{site}/ko/chapter.html")
    assert browser.execute_script(SHOWN) == ["numpy"] * len(before)
    for page in ("how-to/layers", "masks"):
        browser.get(f"{site}/{page}.html")
        assert "numpy" in browser.execute_script(SHOWN)


def test_each_tab_has_code_and_what_it_printed(site, browser):
    browser.get(f"{site}/chapter.html")
    assert "%%tab" not in browser.page_source
    for framework in FRAMEWORKS:
        browser.find_element("css selector", f"[data-sync-id={framework}]").click()
        text = browser.find_element("css selector", "article").text
        assert "def dropout_layer(X, p" in text
        assert "p = 0.5: 50." in text or "p = 0.5: 49." in text
        assert len(re.findall(r"validation loss \d", text)) == 1


def test_search_finds_the_function(site, browser):
    browser.get(f"{site}/search.html?q=dropout_layer")
    assert browser.find_element("css selector", "#search-results li a")  # waits for it
    found = browser.execute_script(RESULTS)
    assert any("api/dropout.html" in address for address in found), found


@pytest.mark.parametrize("page", ["chapter", "zh_CN/chapter", "ko/chapter", "masks", "notebooks/by_hand"])
def test_formulas_are_drawn(page, site, browser):
    browser.get(f"{site}/{page}.html")
    widths = browser.execute_script(FORMULAS)
    assert len(widths) > 5
    assert min(widths) > 3
    assert "<merror" not in browser.page_source


@pytest.mark.parametrize("page", PAGES)
def test_nothing_overflows_and_nothing_is_fetched_from_elsewhere(page, site, browser):
    brightness = {}
    for scheme in SCHEMES:
        for width in WIDTHS:
            resize(browser, width, scheme)
            browser.get(f"{site}/{page}.html")
            content, window, height = browser.execute_script(SIZES)
            assert (content, window) == (width, width)
            assert browser.execute_script(FOREIGN) == []
            brightness[scheme] = sum(map(int, re.findall(r"\d+", browser.execute_script(BACKGROUND))[:3]))
            if folder := os.environ.get("D2LDROP_ARTIFACTS"):
                Path(folder).mkdir(parents=True, exist_ok=True)
                resize(browser, width, scheme, min(height, 8000))
                browser.save_screenshot(str(Path(folder, f"{page.replace('/', '-')}-{width}-{scheme}.png")))
    assert brightness["dark"] < 200 < 600 < brightness["light"]


@pytest.mark.parametrize("language", LETTERS)
@pytest.mark.parametrize("page", ["index", "chapter"])
def test_pages_are_translated(page, language, site, browser):
    browser.get(f"{site}/{language}/{page}.html")
    texts = browser.execute_script(PARAGRAPHS)
    assert len(texts) > 10
    assert [text for text in texts if not re.search(LETTERS[language], text)] == []
    links = {link.text: link.get_attribute("href") for link in browser.find_elements("css selector", ".languages a")}
    assert links == {
        "English": f"{site}/{page}.html",
        "简体中文": f"{site}/zh_CN/{page}.html",
        "한국어": f"{site}/ko/{page}.html",
    }


def test_all_languages_show_the_same_outputs(site, browser):
    outputs = []
    for folder in ("", "zh_CN/", "ko/"):
        browser.get(f"{site}/{folder}chapter.html")
        script = "return [...document.querySelectorAll('.cell_output')].map(output => output.textContent)"
        outputs.append(browser.execute_script(script))
    assert len(outputs[0]) > 20
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_reference_has_all_public_names():
    found = inventory.InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="")
    documented = {name for kind in found.data.values() for name in kind}
    for name in d2ldrop.__all__:
        thing = getattr(d2ldrop, name)
        assert documented & {f"d2ldrop.{name}", f"{thing.__module__}.{thing.__qualname__}"}, name

"""The report in headless Chromium, from file://, with the network watched; skipped without a browser."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from bie_jax.training.writers.composites import composite
from tests.unit.evaluation.conftest import HOSTILE

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers have a small /dev/shm, and the atlas is large
)

# Data URIs decode after the document has loaded; the page's observers of its own size report within two frames.
ALL_DECODED = (
    "const done = arguments[0];"
    "Promise.allSettled([...document.images].map((image) => image.decode()))"
    ".then(() => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()),
        reason="no browser: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def load(browser, path):
    """The page as it is first seen, and nothing in the logs of what was before."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.resolve().as_uri())
    browser.execute_async_script(ALL_DECODED)


@pytest.fixture
def page(browser, finished):
    workdir, _ = finished
    load(browser, workdir / "report" / "index.html")
    return browser


def point_at(page, index):
    """Move the pointer onto a point of the map."""
    canvas = page.find_element(By.ID, "scatter")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    x, y = page.execute_script(f"return window.bieReport.pointPosition({index})")
    size = canvas.size
    # Selenium counts from the middle of an element.
    ActionChains(page).move_to_element_with_offset(
        canvas, round(x - size["width"] / 2), round(y - size["height"] / 2)
    ).perform()
    tip = page.find_element(By.ID, "tip")
    assert tip.is_displayed()
    return tip


def asked_by_page(browser, path):
    """URLs that a page, and the frames in it, asked for since it was loaded.

    The browser's own start page goes on asking for its parts until it is gone, and is another document.
    """
    asked, frames, loads = [], set(), set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        sent = message["params"]
        if message["method"] == "Page.frameAttached" and sent["parentFrameId"] in frames:
            frames.add(sent["frameId"])
        elif message["method"] == "Network.requestWillBeSent":
            if sent["request"]["url"] == path.resolve().as_uri() and sent["requestId"] == sent["loaderId"]:
                frames, loads = {sent["frameId"]}, {sent["loaderId"]}
            elif sent["loaderId"] in loads or sent.get("frameId") in frames:
                asked.append(sent["request"]["url"])
    assert loads, "the page itself was not asked for"
    return asked


def outside(urls):
    return [url[:80] for url in urls if not url.startswith(("data:", "blob:"))]


def test_nothing_is_asked_of_the_network(page, finished):
    workdir, _ = finished
    assert outside(asked_by_page(page, workdir / "report" / "index.html")) == []


def test_what_a_page_asks_of_the_network_is_seen(browser, finished, tmp_path):
    """Of the same page with a picture, a frame and a script that fetches, at a port where nobody listens."""
    workdir, _ = finished
    page = (workdir / "report" / "index.html").read_text()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{held.getsockname()[1]}"
        asking = f"<img src='{place}/a'><iframe src='{place}/b'></iframe><script>fetch('{place}/c')</script>"
        (tmp_path / "index.html").write_text(page.replace("</body>", f"{asking}</body>"))
        load(browser, tmp_path / "index.html")
        asked = outside(asked_by_page(browser, tmp_path / "index.html"))
    assert {f"{place}/{name}" for name in "abc"} <= set(asked)


def test_no_errors_and_every_image_loads(page):
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    widths = page.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert len(widths) >= 7
    assert min(widths) > 0
    text = page.find_element(By.TAG_NAME, "body").text
    assert "SIMULATED DATA" in text
    assert "undefined" not in text
    assert "NaN" not in text


def test_hostile_strings_are_text(page, finished):
    workdir, _ = finished
    assert "owned" not in page.title
    assert workdir.name in page.title
    assert HOSTILE in page.find_element(By.CSS_SELECTOR, "details.plain p").get_attribute("textContent")
    assert page.find_elements(By.CSS_SELECTOR, "#legend b, h1 i") == []
    assert "<b>TOP2A</b>" in page.find_element(By.ID, "legend").text


def test_the_map_has_a_point_for_each_image(page, image_set):
    canvas = page.find_element(By.ID, "scatter")
    assert int(canvas.get_attribute("data-points")) == len(image_set)
    # Drawn, not only counted: a canvas with points holds more than the few greys of its axes.
    colors = page.execute_script(
        "const c = document.getElementById('scatter');"
        "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const seen = new Set(); for (let i = 0; i < p.length; i += 4) seen.add(`${p[i]},${p[i+1]},${p[i+2]}`);"
        "return seen.size"
    )
    assert colors > 100


@pytest.mark.parametrize("index", [0, 41, 107])
def test_pointing_shows_that_image_and_its_metadata(page, image_set, index):
    tip = point_at(page, index)
    shown = int(tip.get_attribute("data-index"))
    assert shown == index
    names = [node.text for node in tip.find_elements(By.TAG_NAME, "dt")]
    values = [node.text for node in tip.find_elements(By.TAG_NAME, "dd")]
    row = image_set.metadata.iloc[index]
    stated = dict(zip(names, values))
    for name in ("plate", "well", "site", "label"):
        assert stated[name] == str(row[name])

    # The picture is nearer to this image's composite than to that of any other image.
    pixels = page.execute_script(
        "const c = document.createElement('canvas'); c.width = c.height = 48; const p = c.getContext('2d');"
        "p.drawImage(document.getElementById('tip-image'), 0, 0, 48, 48);"
        "return [...p.getImageData(0, 0, 48, 48).data]"
    )
    seen = np.array(pixels, float).reshape(48, 48, 4)[..., :3]
    overall = image_set.statistics["overall"]
    low, high = (np.array(overall["percentiles"][q]) for q in ("1", "99.9"))
    expected = composite(image_set.array, low, high).astype(float)
    distance = ((expected - seen) ** 2).mean(axis=(1, 2, 3))
    assert distance.argmin() == index
    assert distance[index] < 0.25 * np.delete(distance, index).min()


def test_color_by_changes_the_legend(page, image_set):
    legend = page.find_element(By.ID, "legend")
    by_label = [button.text.split("\n")[0] for button in legend.find_elements(By.TAG_NAME, "button")]
    assert sorted(by_label) == sorted(image_set.metadata["label"].unique())
    Select(page.find_element(By.ID, "color-by")).select_by_visible_text("plate")
    by_plate = [button.text.split("\n")[0] for button in legend.find_elements(By.TAG_NAME, "button")]
    assert by_plate == sorted(image_set.metadata["plate"].unique())
    assert "colored by plate" in page.find_element(By.ID, "map-title").text


def test_a_class_can_be_hidden(page, image_set):
    first = page.find_element(By.CSS_SELECTOR, "#legend button")
    name = first.text.split("\n")[0]
    first.click()
    hidden = int((image_set.metadata["label"] == name).sum())
    assert hidden > 0
    left = int(page.find_element(By.ID, "scatter").get_attribute("data-points"))
    assert left == len(image_set) - hidden


def test_the_other_map_moves_the_points(page):
    before = page.execute_script("return [0, 1, 2].map(window.bieReport.pointPosition)")
    menu = Select(page.find_element(By.ID, "projection"))
    titles = [option.text for option in menu.options]
    assert titles[0].startswith("UMAP")
    assert any(title.startswith("PCA of the trained") for title in titles)
    menu.select_by_index(1)
    after = page.execute_script("return [0, 1, 2].map(window.bieReport.pointPosition)")
    assert np.abs(np.array(before) - np.array(after)).max() > 5  # px
    assert page.find_element(By.ID, "map-title").text.startswith(titles[1])


def test_the_keyboard_moves_from_point_to_point(page):
    canvas = page.find_element(By.ID, "scatter")
    page.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    tip = page.find_element(By.ID, "tip")
    assert tip.get_attribute("data-index") == "1"
    canvas.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


def test_the_confusion_is_the_one_that_was_chosen(page, finished):
    _, scores = finished

    def cells():
        rows = page.find_elements(By.CSS_SELECTOR, "#confusion tbody tr")
        return [[int(cell.text) for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]

    def choose(element, text):
        Select(page.find_element(By.ID, element)).select_by_visible_text(text)

    trained = scores["feature_sets"]["trained_encoder"]["classifiers"]
    assert cells() == trained["logistic_regression"]["leave_plate_out"]["confusion"]
    for end in ("raw", "per plate"):
        choose("cm-features", f"Intensity, {end}")
        choose("cm-result", "random forest, stratified k-fold")
        entry = scores["feature_sets"]["intensity" if end == "raw" else "intensity_per_plate"]
        chosen = entry["classifiers"]["random_forest"]["stratified_k_fold"]
        assert cells() == chosen["confusion"]
        assert f"Intensity, {end}, random forest, stratified k-fold" in page.find_element(By.ID, "cm-title").text
        assert f"{chosen['macro_f1']:.3f}" in page.find_element(By.ID, "per-class").text
    assert page.find_element(By.ID, "cm-draws").text == ""
    choose("cm-features", "Random encoder, raw")
    assert page.find_element(By.ID, "cm-draws").text == ", counted once for each of 3 seeds"
    assert sum(map(sum, cells())) == 3 * 108
    choose("cm-features", "Majority class")
    assert len(cells()) == 4


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_never_wider_than_the_window(page, width):
    # A window cannot be made narrower than 500; the device under it can.
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    content = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert content <= width

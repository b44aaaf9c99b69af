"""The report as text, and as a browser sees it: opened from disk, without a network, pointed at and clicked."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation import figures, report
from tests.evaluation.conftest import CHANNELS, HOSTILE, LABELS

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver (apt-get install chromium-driver)"
)


@pytest.fixture(scope="module")
def page(finished):
    return (finished[0] / "report/index.html").read_text()


@pytest.fixture(scope="module")
def page_data(page):
    return json.loads(re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.S)[1])


def test_page_asks_for_nothing_outside_itself(page):
    for match in re.finditer(r'(?:src|href)\s*=\s*["\']([^"\']*)', page):
        assert match[1].startswith(("data:", "#")), match[0][:80]
    assert "@import" not in page
    assert not re.search(r"url\(\s*['\"]?(?!data:)", page)
    assert len(page) < 6_000_000


def test_hostile_strings_stay_text(page, page_data):
    assert "<script>document.title" not in page
    assert "<b>TOP2A</b>" not in page
    assert "demo <i>run" not in page
    assert "demo &lt;i&gt;run" in page
    assert "nascent &lt;RNA&gt;" in page
    label = page_data["columns"][0]
    assert label["categories"] == sorted(LABELS)


def test_page_says_what_was_done(finished, page):
    _, scores = finished
    assert "SIMULATED DATA" in page
    assert "on images that" not in page
    assert scores["transductive"][:60] in page
    assert "108 images of 3 plates and 36 wells; 48 × 48 px (24 × 24 µm), 3 channels" in page
    trained = scores["feature_sets"]["trained_encoder"]["classifiers"]["logistic_regression"]["leave_plate_out"]
    assert f"<b>{trained['macro_f1']:.3f}</b>" in page
    for entry in scores["feature_sets"].values():
        assert entry["title"] in page
    assert "latent_dim" in page
    assert "optimizer" in page


def test_points_carry_their_metadata(page_data, image_set):
    assert page_data["count"] == 108
    columns = {column["name"]: column for column in page_data["columns"]}
    assert list(columns) == ["label", "plate", "well", "site", "split"]  # one source and a float: no colours
    for name in ("label", "plate", "well", "site"):
        column = columns[name]
        shown = [column["categories"][code] for code in column["codes"]]
        assert shown == image_set.metadata[name].astype(str).tolist()
    assert columns["label"]["categories"][columns["label"]["neutral"]] == "control"
    assert columns["plate"]["neutral"] == -1
    for projection in page_data["projections"]:
        assert np.isfinite(np.array(projection["xy"])).all()
        assert np.array(projection["xy"]).shape == (108, 2)


def test_colour_columns_keep_numbers_in_order_and_gaps_named():
    metadata = pd.DataFrame(
        {
            "label": ["x", "y", "x"],
            "plate": ["p"] * 3,
            "site": [10, 9, 10],
            "batch": ["u", None, "v"],
            "dose": [0.5, 1, 2],
        }
    )
    columns = {column["name"]: column for column in report.colour_columns(metadata, "label", "")}
    assert columns["site"]["categories"] == ["9", "10"]
    assert columns["batch"]["categories"] == ["", "u", "v"]
    assert columns["batch"]["codes"] == [1, 0, 2]
    assert columns["label"]["neutral"] == -1
    assert "dose" not in columns


def test_codebook_statistics_in_closed_form():
    assert report.codebook_statistics(np.full((1, 8), 5)) == (8, 8, pytest.approx(8))
    assert report.codebook_statistics(np.array([[0, 0, 9, 0]])) == (1, 4, pytest.approx(1))
    shares = np.array([0.5, 0.25, 0.25])
    used, there, perplexity = report.codebook_statistics(np.array([[2, 1, 1], [4, 4, 0]]))
    assert (used, there) == (5, 6)
    np.testing.assert_allclose(perplexity, (2 ** -(shares * np.log2(shares)).sum() + 2) / 2)


def test_metrics_of_a_killed_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert report.read_metrics(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert report.read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"ste\n{"step": 2}\n')
    with pytest.raises(json.JSONDecodeError):
        report.read_metrics(path)


def test_pictures_that_do_not_belong_together_are_refused(finished, tmp_path):
    _, scores = finished
    projection = report.Projection("a", "b", "c", np.zeros((3, 2)), "d")
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        report.write_report(
            tmp_path, config={}, scores=scores, metadata=pd.DataFrame({"label": ["a", "b"]}),
            projections=[projection], tiles=[None, None], control="",
        )  # fmt: skip


def test_figures_are_the_same_twice_and_take_any_number_of_terms():
    records = [
        {"step": 1, "epoch": 0.5, "train/loss": 1.0, "train/kl_<x>": -1.0},
        {"step": 2, "epoch": 1.0, "val/loss": 2.0},
    ]
    svg = figures.loss_curves(records)
    assert svg == figures.loss_curves(records)
    assert "Total loss" in svg
    assert "training" in svg
    assert "validation" in svg
    assert figures.loss_curves([]) is None
    many = figures.codebook_use(np.random.default_rng(0).integers(0, 9, (4, 32)))
    assert "group" in many


@pytest.mark.parametrize(
    ("width", "pixel", "label"), [(128, 0.65, "20 µm"), (48, 0.5, "5 µm"), (1000, 1.0, "200 µm"), (64, None, "10 px")]
)
def test_scale_bar_is_round_and_short(width, pixel, label):
    length_px, text = figures._scale_bar(width, pixel)
    assert text == label
    assert 0.1 * width <= length_px <= 0.3 * width
    np.testing.assert_allclose(length_px * (pixel or 1), float(text.split()[0]))


# ---- In a browser ----


@pytest.fixture(scope="module")
def browser(finished, tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1400,1000",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get((finished[0] / "report/index.html").as_uri())
    yield driver
    driver.quit()


def centre_of(browser, index):
    """Offset of a point from the middle of the canvas, which is what the mouse is moved by."""
    return browser.execute_script(
        "const c = document.getElementById('scatter').getBoundingClientRect();"
        "const [x, y] = bieReport.pointPosition(arguments[0]); return [x - c.width / 2, y - c.height / 2]",
        index,
    )


def hover(browser, index):
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = browser.find_element("id", "scatter")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    x, y = centre_of(browser, index)
    ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).perform()


def choose(browser, element, text):
    from selenium.webdriver.support.select import Select

    Select(browser.find_element("id", element)).select_by_visible_text(text)


@needs_browser
def test_browser_loads_everything_and_asks_for_nothing(browser, finished):
    assert browser.title.startswith("demo <i>run ·")  # and not what the hostile string would make of it
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # The browser opens with a page of its own.
    urls = [request["request"]["url"] for request in requests if not request["documentURL"].startswith("chrome:")]
    assert len(urls) > 5
    own = (finished[0] / "report/index.html").as_uri()
    assert [url[:200] for url in urls if url != own and not url.startswith("data:")] == []
    sizes = browser.execute_script("return [...document.images].map((i) => [i.complete, i.naturalWidth])")
    assert len(sizes) >= 7
    assert all(complete and width > 0 for complete, width in sizes)
    text = browser.find_element("tag name", "body").text
    assert "SIMULATED DATA" in text
    assert "undefined" not in text
    assert "NaN" not in text


@needs_browser
@pytest.mark.parametrize("index", [0, 50, 107])
def test_browser_shows_the_image_under_the_pointer(browser, finished, image_set, index):
    from bie_jax.evaluation import thumbnails

    hover(browser, index)
    tip = browser.find_element("id", "tip")
    assert tip.is_displayed()
    assert int(tip.get_attribute("data-index")) == index
    names = [node.text for node in tip.find_elements("tag name", "dt")]
    values = [node.text for node in tip.find_elements("tag name", "dd")]
    row = image_set.metadata.iloc[index]
    shown = dict(zip(names, values))
    assert {name: shown[name] for name in ("label", "plate", "well", "site")} == {
        name: str(row[name]) for name in ("label", "plate", "well", "site")
    }
    overall = image_set.statistics["overall"]["percentiles"]
    expected = thumbnails.composite(image_set.array[[index]], np.array(overall["1"]), np.array(overall["99.9"]))[0]
    means = browser.execute_script(
        "const c = document.getElementById('tip-image');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const s = [[0, 0, 0], [0, 0, 0]]; for (let i = 0; i < d.length; i += 4) { const h = i < d.length / 2 ? 0 : 1;"
        "for (let k = 0; k < 3; k++) s[h][k] += d[i + k] / (d.length / 8); } return s"
    )
    halves = [expected[:24].mean(axis=(0, 1)), expected[24:].mean(axis=(0, 1))]
    np.testing.assert_allclose(means, halves, atol=6)  # WebP is lossy


@needs_browser
def test_browser_draws_every_point_and_colours_by_what_was_chosen(browser):
    canvas = browser.find_element("id", "scatter")

    def state():
        legend = browser.find_elements("css selector", "#legend button")
        colours = [node.get_attribute("fill") for node in browser.find_elements("css selector", "#legend path")]
        return (
            [button.text.split("\n")[0] for button in legend],
            colours,
            browser.execute_script("return arguments[0].toDataURL()", canvas),
        )

    choose(browser, "colour-by", "plate")  # takes away what an earlier test points at
    choose(browser, "colour-by", "label")
    assert canvas.get_attribute("data-points") == "108"
    names, colours, drawn = state()
    assert names == sorted(LABELS)
    assert len(set(colours)) == len(colours)
    choose(browser, "colour-by", "plate")
    plate_names, _, plate_drawn = state()
    assert plate_names == ["P1", "P2", "P3"]
    assert plate_drawn != drawn
    assert "coloured by plate" in browser.find_element("id", "map-title").text
    browser.find_elements("css selector", "#legend button")[1].click()
    assert canvas.get_attribute("data-points") == "72"
    choose(browser, "projection", "PCA of the trained embeddings")
    assert "PCA of the trained embeddings" in browser.find_element("id", "map-title").text
    assert canvas.get_attribute("data-points") == "72"
    choose(browser, "projection", "UMAP of the trained embeddings")
    choose(browser, "colour-by", "label")
    assert state()[2] == drawn
    # Reading pixels back, as these tests do, is something the browser has an opinion on.
    assert [entry for entry in browser.get_log("browser") if "getImageData" not in entry["message"]] == []


@needs_browser
def test_browser_moves_from_point_to_point_with_the_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    canvas = browser.find_element("id", "scatter")
    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ESCAPE)
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    tip = browser.find_element("id", "tip")
    assert tip.get_attribute("data-index") == "1"
    canvas.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()


@needs_browser
def test_browser_shows_the_confusion_of_what_was_chosen(browser, finished):
    _, scores = finished

    def cells():
        rows = browser.find_elements("css selector", "#confusion tbody tr")
        return [[int(cell.text) for cell in row.find_elements("tag name", "td")] for row in rows]

    trained = scores["feature_sets"]["trained_encoder"]["classifiers"]
    assert cells() == trained["logistic_regression"]["leave_plate_out"]["confusion"]
    choose(browser, "cm-features", "Intensity")
    choose(browser, "cm-result", "random forest, stratified k-fold")
    chosen = scores["feature_sets"]["intensity"]["classifiers"]["random_forest"]["stratified_k_fold"]
    assert cells() == chosen["confusion"]
    assert "Intensity, random forest, stratified k-fold" in browser.find_element("id", "cm-title").text
    table = browser.find_element("id", "per-class").text
    assert f"{chosen['macro_f1']:.3f}" in table
    choose(browser, "cm-features", "Majority class")
    assert len(cells()) == 4


@needs_browser
def test_browser_fits_a_narrow_window(browser):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_string_is_in_the_fixture(finished):
    assert HOSTILE in (finished[0] / "config.json").read_text()
    assert "<RNA>" in CHANNELS[1]

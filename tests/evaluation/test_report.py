import base64
import html.parser
import json
import re

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation import figures, report
from tests.evaluation.conftest import CHANNELS, HOSTILE, LABELS


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of each <script>, as a browser would parse them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data


@pytest.fixture(scope="module")
def page(finished):
    workdir, _ = finished
    return Page((workdir / "report" / "index.html").read_text())


def test_nothing_is_loaded_from_outside(page):
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "data", "action", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, name, value[:80])
    assert "link" not in {tag for tag, attributes in page.tags if attributes.get("rel") != "icon"}
    style = (report.TEMPLATE / "report.css").read_text()
    assert not re.search(r"@import|url\(", style)
    assert not re.search(
        r"fetch\(|XMLHttpRequest|WebSocket|import\(|https?:(?!//www\.w3\.org/2000/svg)", page.scripts[1]
    )


def test_figures_inside_load_nothing_either(page):
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    drawings = [base64.b64decode(s.split(",", 1)[1]).decode() for s in sources if s.startswith("data:image/svg")]
    assert len(drawings) >= 4
    for drawing in drawings:
        targets = re.findall(r'(?:xlink:href|href)="([^"]*)"', drawing)
        assert all(target.startswith(("#", "data:")) for target in targets)
        assert "<script" not in drawing


def test_hostile_strings_stay_text(page):
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 2  # the data and the program; none out of a label, a source or a description
    assert "i" not in [tag for tag, attributes in page.tags if not attributes.get("style")]
    assert HOSTILE in page.text
    assert "demo <i>run</i>" in page.text
    data = json.loads(page.scripts[0])
    label = next(column for column in data["columns"] if column["name"] == "label")
    assert label["categories"] == sorted(LABELS)


def test_page_holds_each_image_and_its_metadata(page, image_set):
    data = json.loads(page.scripts[0])
    assert data["count"] == len(image_set)
    for column in data["columns"]:
        decoded = [column["categories"][code] for code in column["codes"]]
        if column["name"] in image_set.metadata:
            assert decoded == image_set.metadata[column["name"]].astype(str).tolist()
    titles = [projection["title"] for projection in data["projections"]]
    assert titles[0].startswith("UMAP")
    assert all(len(projection["xy"]) == len(image_set) for projection in data["projections"])


def test_simulated_data_are_called_that(page):
    assert "SIMULATED DATA" in page.text


def test_table_holds_the_scores_to_three_digits(page, finished):
    _, scores = finished
    for entry in scores["feature_sets"].values():
        assert entry["title"] in page.text
        for splits in entry["classifiers"].values():
            for result in splits.values():
                assert f"{result['macro_f1']:.3f}" in page.text


def test_best_baseline_is_named_with_its_side_of_the_trained_encoder(finished):
    _, scores = finished
    key = "leave_plate_out"

    def with_baseline(value):
        changed = json.loads(json.dumps(scores))
        for name, entry in changed["feature_sets"].items():
            if name not in ("trained_encoder", "majority"):
                entry["classifiers"]["logistic_regression"][key]["macro_f1"] = value
        return report._cards(changed, None)

    assert "ahead of the trained encoder" in with_baseline(1.1)
    assert "behind the trained encoder" in with_baseline(-0.1)


def test_codebook_statistics_against_loops():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, size=(3, 7))
    perplexity = []
    for group in counts:
        total, entropy = sum(group), 0.0
        for count in group:
            if count:
                entropy -= count / total * np.log2(count / total)
        perplexity.append(2**entropy)
    used, there, mean = report.codebook_statistics(counts)
    assert used == sum(int(count > 0) for group in counts for count in group)
    assert there == 21
    assert mean == pytest.approx(sum(perplexity) / 3, rel=1e-12)
    assert report.codebook_statistics(np.full((1, 16), 9))[2] == pytest.approx(16)
    assert report.codebook_statistics(np.eye(1, 16, dtype=int))[2] == pytest.approx(1)


def test_an_unfinished_last_line_of_metrics_is_dropped_and_no_other(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert report.read_metrics(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert report.read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"ste\n{"step": 2}\n')
    with pytest.raises(json.JSONDecodeError):
        report.read_metrics(path)


def test_colour_columns_leave_out_what_has_too_many_values():
    count = 150
    table = pd.DataFrame(
        {
            "plate": ["A", "B"] * 75,
            "label": ["x", "", None] * 50,
            "source": [f"s{i}" for i in range(count)],
            "dose": np.linspace(0, 1, count),
            "batch": [1, 2, 10] * 50,
            "same": "one",
        }
    )
    columns = {column["name"]: column for column in report.colour_columns(table, "label", "x")}
    assert list(columns) == ["label", "plate", "batch"]
    assert columns["batch"]["categories"] == ["1", "2", "10"]  # as numbers, not as text
    assert columns["label"]["categories"] == ["", "x"]
    assert columns["label"]["neutral"] == 1
    assert columns["label"]["codes"][:3] == [1, 0, 0]


@pytest.mark.parametrize(
    ("width", "um", "label", "px"),
    [(128, 0.65, "20 µm", 20 / 0.65), (68, None, "20 px", 20), (48, 0.5, "5 µm", 10), (1000, 0.1, "20 µm", 200)],
)
def test_scale_bar_is_a_round_length(width, um, label, px):
    length, text = figures._scale_bar(width, um)
    assert (text, length) == (label, pytest.approx(px))
    assert length <= 0.3 * width


def test_reconstruction_figure_says_pixels_where_their_size_is_unknown():
    image = np.random.default_rng(0).normal(size=(32, 48, 3))
    limits, ends = np.array([[-1.0, 2.0]] * 3), np.ones(3)
    assert "5 µm" in figures.reconstruction(image, image, CHANNELS, 0.5, limits, ends)
    unknown = figures.reconstruction(image, image, CHANNELS, None, limits, ends)
    assert "10 px" in unknown
    assert "µm" not in unknown


def test_lengths_that_differ_are_refused(finished):
    workdir, scores = finished
    short = report.Projection("t", "x", "y", np.zeros((3, 2)), "")
    with pytest.raises(ValueError, match="same images"):
        report.write_report(
            workdir,
            config={},
            scores=scores,
            metadata=pd.DataFrame({"plate": ["a"]}),
            projections=[short],
            tiles=[],
            control="",
        )

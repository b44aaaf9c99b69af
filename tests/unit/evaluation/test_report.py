"""The report as text and data; what a browser makes of it is in test_report_browser.py."""

import copy
import json
import re

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.report import figures, report
from tests.unit.evaluation.conftest import CHANNELS, HOSTILE, LABELS


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


def test_the_best_baseline_is_the_best_of_all(finished):
    """Under any normalization and by either classifier, as the trained encoder's own best is chosen."""
    scores = copy.deepcopy(finished[1])
    assert report.best_row(scores, trained=False)["feature_set"] != "trained_encoder"
    for row in scores["rows"]:
        if row["metric"] == "macro_f1" and row["split"] == "leave_plate_out":
            named = (row["feature_set"], row["normalization"], row["classifier"])
            row["value"] = {
                ("intensity", "per_plate", "random_forest"): 0.9,
                ("trained_encoder", "per_plate", "logistic_regression"): 0.8,
            }.get(named, 0.5)
        elif row["feature_set"] == "pixel_pca":
            row["value"] = 1.0  # another split or metric
    cards = report._cards(scores, None)
    assert "<b>0.800</b><span>macro F1, leave-plate-out</span>" in cards
    assert "Trained encoder (vqvae), per plate, logistic regression" in cards
    assert "<b>0.900</b><span>best baseline</span>" in cards
    assert "Intensity, per plate, random forest: 0.100 ahead of the trained encoder" in cards
    trained = scores["feature_sets"]["trained_encoder_per_plate"]
    assert f"<b>{trained['knn']['accuracy']:.3f}</b><span>1-NN accuracy</span>" in cards
    assert f"<b>{trained['plate_identity']['macro_f1']:.3f}</b><span>plate identity</span>" in cards


def test_tables_hold_every_set_under_every_normalization(finished):
    _, scores = finished
    for table, count in ((report.score_table(scores), 13), (report.plate_table(scores), 12)):
        rows = re.findall(r"<tr.*?</tr>", table.split("<tbody>")[1], re.S)
        assert len(rows) == count
        assert sum('scope="row">raw' in row for row in rows) == 6
        assert sum('scope="row">per plate' in row for row in rows) == 6
    for entry in scores["feature_sets"].values():
        for splits in entry["classifiers"].values():
            for score in splits.values():
                assert f"<b>{score['macro_f1']:.3f}</b>" in report.score_table(scores)
    first, *baselines = report.grouped(scores)
    assert first[0]["feature_set"] == "trained_encoder"
    best = [
        max(of["leave_plate_out"]["macro_f1"] for entry in entries for of in entry["classifiers"].values())
        for entries in baselines
    ]
    assert best == sorted(best, reverse=True)


def test_a_set_of_one_plate_names_no_normalization(finished):
    scores = copy.deepcopy(finished[1])
    scores["normalizations"] = {"raw": "Features as they are."}
    scores["feature_sets"] = {k: e for k, e in scores["feature_sets"].items() if e["normalization"] == "raw"}
    scores["rows"] = [row for row in scores["rows"] if row["normalization"] == "raw"]
    page = report.score_table(scores) + report.plate_table(scores) + report._cards(scores, None)
    assert "normalized" not in page
    assert "raw" not in page
    assert report.normalization_note(scores) == ""


def test_points_carry_their_metadata(page_data, image_set):
    assert page_data["count"] == 108
    columns = {column["name"]: column for column in page_data["columns"]}
    assert list(columns) == ["label", "plate", "well", "site", "split"]  # one source and a float: no colors
    for name in ("label", "plate", "well", "site"):
        column = columns[name]
        shown = [column["categories"][code] for code in column["codes"]]
        assert shown == image_set.metadata[name].astype(str).tolist()
    assert columns["label"]["categories"][columns["label"]["neutral"]] == "control"
    assert columns["plate"]["neutral"] == -1
    for projection in page_data["projections"]:
        assert np.isfinite(np.array(projection["xy"])).all()
        assert np.array(projection["xy"]).shape == (108, 2)


def test_color_columns_keep_numbers_in_order_and_gaps_named():
    metadata = pd.DataFrame(
        {
            "label": ["x", "y", "x"],
            "plate": ["p"] * 3,
            "site": [10, 9, 10],
            "batch": ["u", None, "v"],
            "dose": [0.5, 1, 2],
        }
    )
    columns = {column["name"]: column for column in report.color_columns(metadata, "label", "")}
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
            projections=[projection], tiles=[None, None], pictures=[], control="",
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


def test_hostile_string_is_in_the_fixture(finished):
    assert HOSTILE in (finished[0] / "config.json").read_text()
    assert "<RNA>" in CHANNELS[1]

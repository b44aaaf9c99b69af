"""The page as text and data; what a browser makes of it is in test_report_browser.py."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.stored import load_config
from bie_jax.evaluation.report.content import Content
from bie_jax.evaluation.report.map import Projection
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


def test_points_carry_their_metadata(page_data, image_set, finished):
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
    trained = pd.read_parquet(finished[0] / "embeddings.parquet")[["vqvae_0000", "vqvae_0001"]].to_numpy()
    assert page_data["projections"][0]["title"] == "UMAP of the trained embeddings"
    np.testing.assert_allclose(page_data["projections"][0]["xy"], trained, atol=6e-4)  # as the fixture maps them


def test_pictures_that_do_not_belong_together_are_refused(finished, tmp_path):
    workdir, scores = finished
    projection = Projection("a", "b", "c", np.zeros((3, 2)), "d")
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        Content(
            tmp_path,
            load_config(workdir),
            scores,
            pd.DataFrame({"label": ["a", "b"]}),
            [projection],
            [None, None],
            [],
            None,
        )


def test_hostile_string_is_in_the_fixture(finished):
    assert HOSTILE in (finished[0] / "config.json").read_text()
    assert "<RNA>" in CHANNELS[1]

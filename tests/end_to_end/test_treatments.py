"""The evaluation of a run whose configuration names its treatments: files, rows, page; pycytominer reads the files."""

import json
import re

import anndata
import numpy as np
import pandas as pd
import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.files import integrity
from tests.once import made_once
from tests.unit.evaluation.conftest import HOSTILE, LABELS, write_workdir

PROFILE = {"treatment": ("label",), "mechanism": "truth_name", "steps": ("normalize",), "null_size": 50}
QUICK = {"classical_baseline": False, "bootstrap": 2, "trees": 1, "folds": 2, "cell_count_channel": "DNA"}


def prepared(folder, image_set, **profile):
    """A run with a column of mechanisms: two labels are of one, which is called as nobody should."""
    import copy

    named = copy.copy(image_set)
    mechanisms = dict(zip(LABELS, ("", HOSTILE, HOSTILE, "other"), strict=True))
    named.metadata = image_set.metadata.assign(truth_name=image_set.metadata["label"].map(mechanisms))
    return write_workdir(folder / "run", named, profile=PROFILE | profile, **QUICK), named


@pytest.fixture(scope="module")
def scored(tmp_path_factory, image_set, evaluate_fake):
    def make(folder):
        workdir, named = prepared(folder, image_set)
        return evaluate_fake(workdir, named)

    folder, scores = made_once(tmp_path_factory, "treatments", make)
    return folder / "run", scores


def test_pycytominer_reads_what_is_written_and_gives_the_same_numbers(scored):
    pycytominer = pytest.importorskip("pycytominer")
    workdir, _ = scored
    images = pd.read_parquet(workdir / "embeddings.parquet")
    features = [name for name in images if name.startswith("vqvae_")]
    place = ["Metadata_Plate", "Metadata_Well"]
    wells = pycytominer.aggregate(images, [*place, "Metadata_label"], features, operation="mean")
    corrected = pd.concat(
        pycytominer.normalize(
            plate, features, [*place, "Metadata_label"], samples="Metadata_label == 'control'", method="standardize"
        )
        for _, plate in wells.groupby("Metadata_Plate")
    )
    ours = pd.read_parquet(workdir / "profiles_wells.parquet")
    expected = corrected.sort_values(place).reset_index(drop=True)
    np.testing.assert_array_equal(ours[place], expected[place])
    np.testing.assert_allclose(ours[features], expected[features], atol=1e-5)
    np.testing.assert_array_equal(ours["Metadata_control"], expected["Metadata_label"] == "control")

    treated = ours[~ours["Metadata_control"]]
    consensus = pycytominer.consensus(treated, ["Metadata_label"], operation="median", features=features)
    treatments = pd.read_parquet(workdir / "profiles_treatments.parquet")
    np.testing.assert_array_equal(treatments["Metadata_label"], consensus["Metadata_label"])
    np.testing.assert_allclose(treatments[features], consensus[features], atol=1e-5)
    # Ours go on through its other functions.
    selected = pycytominer.feature_select(ours, features, operation=["variance_threshold", "correlation_threshold"])
    assert set(selected) <= set(ours)
    for name, table in (("wells", ours), ("treatments", treatments)):
        data = anndata.read_h5ad(workdir / f"profiles_{name}.h5ad")
        np.testing.assert_array_equal(data.to_df()[features], table[features])
        integrity.verify(workdir / f"profiles_{name}.h5ad", "")


def test_every_set_of_features_is_scored_behind_every_step(scored):
    workdir, scores = scored
    rows = pd.read_parquet(workdir / "scores.parquet")
    assert set(rows["level"]) == {"image", "well", "treatment"}
    of_wells = rows[rows["split"] == "activity"]
    assert set(of_wells["feature_set"]) == set(rows["feature_set"]) - {"majority"} >= {"cell_count", "random_encoder"}
    assert set(of_wells["normalization"]) == {"wells", "wells+normalize"}
    assert set(of_wells["metric"]) == {
        f"{metric}{end}" for metric in ("mean_average_precision", "share_significant") for end in ("", "_chance")
    }
    random = of_wells[of_wells["feature_set"] == "random_encoder"]
    assert (random["draws"] == 3).all()
    # The embeddings hold the label: every well of a label is nearer to its like than to the controls.
    ours = of_wells[(of_wells["feature_set"] == "trained_encoder") & (of_wells["metric"] == "mean_average_precision")]
    assert (ours["value"] > 0.9).all()
    assert scores["treatments"]["wells"] == 36
    assert "How far plates can be told is not scored" in " ".join(scores["treatments"]["notes"])


def test_the_page_ranks_treatments_and_gives_the_numbers_behind_each_picture(scored):
    workdir, _ = scored
    page = (workdir / "report" / "index.html").read_text()
    section = page[page.index('<section id="treatments">') : page.index('<section id="plates">')]
    assert HOSTILE not in section
    assert "&lt;script&gt;" in section
    names = re.findall(r'download="(\w+)\.csv"', section)
    assert names == ["treatments", "similarity", "wells_before_and_after", "treatment_scores"]
    assert section.count("<tr><td>") == 3  # the ranked treatments
    assert section.count('alt="control of the plate of well') == 9


def test_a_run_without_treatments_says_how_to_name_them(finished):
    workdir, scores = finished
    assert scores["treatments"] is None
    assert "config.eval.profile.treatment" in (workdir / "report" / "index.html").read_text()
    assert not (workdir / "profiles_wells.parquet").exists()


def test_a_column_that_is_not_there_is_refused_before_anything_is_computed(tmp_path, image_set, evaluate_fake):
    workdir, named = prepared(tmp_path, image_set, treatment=("compound",))
    with pytest.raises(ConfigError, match=r"config.eval.profile.treatment='compound' is not a column"):
        evaluate_fake(workdir, named)
    assert not (workdir / "scores.json").exists()


def test_of_a_large_set_a_sample_is_compared_and_profiles_are_of_all(tmp_path, image_set, evaluate_fake):
    workdir, named = prepared(tmp_path, image_set)
    stored = json.loads((workdir / "config.json").read_text())
    stored["eval"]["most_images"] = 100
    integrity.write_json(workdir / "config.json", stored)
    scores = evaluate_fake(workdir, named)
    compared = {row["n"] for row in scores["rows"] if row["split"] == "stratified_k_fold"}
    assert len(compared) == 1
    assert max(compared) < 108
    assert scores["notes"][0].startswith("All sets of features are compared on ")
    results = pd.DataFrame(scores["treatments"]["results"])
    on_all = results[results["feature_set"] == "trained_encoder_all"]
    assert set(on_all["title"]) == {"Trained encoder (vqvae), all images"}
    assert len(pd.read_parquet(workdir / "profiles_wells.parquet")) == 36
    assert scores["set"]["images"] == 108
    page = (workdir / "report" / "index.html").read_text()
    assert "of 108 images, drawn without looking at features" in page


def test_of_too_many_labels_the_nearest_mean_is_asked(tmp_path, image_set, evaluate_fake, monkeypatch):
    for module in ("scores.plan", "compared"):
        monkeypatch.setattr(f"bie_jax.evaluation.{module}.MOST_CLASSES", 3)
    workdir, named = prepared(tmp_path, image_set, treatment=(), mechanism="")
    scores = evaluate_fake(workdir, named)
    rows = pd.DataFrame(scores["rows"])
    assert {"nearest_centroid", "1_nearest_neighbors"} <= set(rows["classifier"])
    assert not set(rows["classifier"]) & {"random_forest", "majority"}
    of_split = rows[(rows["split"] == "leave_plate_out") & (rows["feature_set"] == "trained_encoder")]
    raw = of_split[of_split["normalization"] == "raw"].set_index("metric")["value"]
    assert raw["accuracy"] > raw["accuracy_chance"] == 0.25
    assert "no classifier is fitted to more than 3" in " ".join(scores["notes"])
    page = (workdir / "report" / "index.html").read_text()
    assert "nearest mean" in page
    best = of_split[of_split["metric"] == "accuracy"]["value"].max()  # over both normalizations
    assert f"<b>{best:.3f}</b><span>accuracy, leave-plate-out" in page

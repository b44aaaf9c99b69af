import json

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.baselines.image_features import classical_features
from bie_jax.evaluation.scores.neighbors import not_same_well_knn
from bie_jax.evaluation.scores.normalization import standardize_per_plate
from bie_jax.files import integrity
from tests.unit.evaluation.conftest import CHANNELS, LABELS, write_workdir

# Where nothing is said of the scores themselves.
QUICK = {"classical_baseline": False, "bootstrap": 2, "trees": 1, "folds": 2}


def test_scores_file_is_what_was_returned(finished):
    workdir, scores = finished
    assert json.loads((workdir / "scores.json").read_text()) == scores
    assert not list(workdir.glob("*.tmp"))
    assert scores["set"]["simulated"] is True
    assert scores["set"]["channels"] == list(CHANNELS)
    assert scores["classes"] == dict.fromkeys(sorted(LABELS), 27)
    assert scores["splits"]["leave_plate_out"]["held_out"] == ["P1", "P2", "P3"]
    assert scores["splits"]["stratified_k_fold"]["folds"] == 3


def test_the_table_holds_the_rows_of_the_scores_file(finished):
    workdir, scores = finished
    integrity.verify(workdir / "scores.parquet", "", scores["made_from"])
    table = pd.read_parquet(workdir / "scores.parquet")
    columns = "feature_set normalization draws level split classifier metric value low high n"
    assert list(table.columns) == columns.split()
    assert set(table["level"]) == {"image"}
    expected = pd.DataFrame(scores["rows"])
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, check_exact=True)
    assert table["low"].isna().any()


def test_a_run_without_a_decoder_is_scored_and_says_so(tmp_path, image_set, evaluate_fake, monkeypatch):
    for module in ("embedding.write", "report.reconstructions"):
        monkeypatch.setattr(f"bie_jax.evaluation.{module}.has_decoder", lambda config: False)
    workdir = write_workdir(tmp_path / "run", image_set, **QUICK)
    (workdir / "reconstructions.npz").unlink()
    evaluate_fake(workdir, image_set)
    assert "This method has no decoder." in (workdir / "report" / "index.html").read_text()


def test_every_feature_set_has_every_score(finished):
    workdir, scores = finished
    held_out = (pd.read_parquet(workdir / "embeddings.parquet")["Metadata_split"] == "val").sum()
    sets = scores["feature_sets"]
    assert scores["interval_over"] == "wells"
    scored = ["trained_encoder", "random_encoder", "random_encoder_pooled", "pixel_pca", "intensity"]
    scored.append("intensity_texture_regions")
    assert list(sets) == [f"{key}{end}" for key in scored for end in ("", "_per_plate")] + ["majority"]
    assert list(scores["normalizations"]) == ["raw", "per_plate"]
    for key, entry in sets.items():
        expected = {"majority"} if key == "majority" else {"logistic_regression", "random_forest"}
        assert set(entry["classifiers"]) == expected
        for splits in entry["classifiers"].values():
            assert set(splits) == {"stratified_k_fold", "leave_plate_out", "unseen_by_encoder"}
            for split, score in splits.items():
                low, high = score["macro_f1_interval_95"]
                assert 0 <= low <= score["macro_f1"] <= high <= 1
                count = held_out if split == "unseen_by_encoder" else 108
                assert np.sum(score["confusion"]) == count * entry["draws"]
                assert len(score["macro_f1_of_draws"]) == entry["draws"] == (3 if key.startswith("random") else 1)
                np.testing.assert_allclose(np.mean(score["macro_f1_of_draws"]), score["macro_f1"])
    assert sets["pixel_pca"]["dim"] == 64
    assert sets["intensity"]["dim"] == 36
    trained = sets["trained_encoder"]["classifiers"]["logistic_regression"]["leave_plate_out"]["macro_f1"]
    random = sets["random_encoder"]["classifiers"]["logistic_regression"]["leave_plate_out"]["macro_f1"]
    assert trained > random + 0.2  # the fixture's embeddings hold the label
    # Four classes of one size: the majority guess is right for a quarter, and its F1 is 0.4 for one class.
    np.testing.assert_allclose(sets["majority"]["classifiers"]["majority"]["leave_plate_out"]["macro_f1"], 0.1)
    assert sets["intensity"]["plate_identity"]["macro_f1"] > 0.9  # the fixture's plates differ in brightness


def test_all_are_compared_alike(finished):
    """On the same images by the same splits and classifiers, under the same normalizations."""
    _, scores = finished
    rows = pd.DataFrame(scores["rows"])
    of_sets = rows[rows["feature_set"] != "majority"]
    for (split, metric), part in of_sets.groupby(["split", "metric"]):
        assert part["n"].nunique() == 1, split
        table = part.pivot(index="feature_set", columns=["normalization", "classifier"], values="value")
        assert table.shape == (6, 2 * part["classifier"].nunique())
        assert table.notna().all(axis=None), (split, metric)
    assert set(of_sets["split"]) == {*scores["splits"], "not_same_well", "plate_identity"}
    for row in scores["rows"]:
        if row["metric"] == "macro_f1" and row["split"] in scores["splits"]:
            end = "" if row["normalization"] == "raw" else "_per_plate"
            entry = scores["feature_sets"][row["feature_set"] + end]
            score = entry["classifiers"][row["classifier"]][row["split"]]
            assert [row["value"], row["low"], row["high"]] == [score["macro_f1"], *score["macro_f1_interval_95"]]


def test_neighbors_see_as_many_components_of_the_pixels_as_classifiers(finished, image_set):
    _, scores = finished
    overall, labels = image_set.statistics["overall"], image_set.metadata["label"].to_numpy().astype("U")
    wells = (image_set.metadata["plate"] + image_set.metadata["well"]).to_numpy().astype("U")
    pixels = classical_features(image_set, CHANNELS, 0.5, overall, np.arange(1), False).pixels
    for end, values in (("", pixels), ("_per_plate", standardize_per_plate(pixels, image_set.metadata["plate"]))):
        expected = not_same_well_knn(values, labels, wells, components=64)
        found = scores["feature_sets"][f"pixel_pca{end}"]["knn"]
        np.testing.assert_allclose(found["accuracy"], expected["accuracy"], atol=0.03)  # by another PCA


def test_a_set_without_labels_still_gets_a_report(tmp_path, image_set, evaluate_fake):
    import copy

    unlabeled = copy.copy(image_set)
    unlabeled.metadata = image_set.metadata.assign(label="control")
    workdir = tmp_path / "run"
    write_workdir(workdir, image_set, **QUICK)
    table = pd.read_parquet(workdir / "embeddings.parquet")
    integrity.write_file(workdir / "embeddings.parquet", table.assign(Metadata_label="control").to_parquet, 0)
    (workdir / "metrics.jsonl").unlink()
    scores = evaluate_fake(workdir, unlabeled)
    assert any("a single label (control): nothing to classify" in note for note in scores["notes"])
    assert scores["feature_sets"]["trained_encoder"]["classifiers"] == {}
    assert scores["feature_sets"]["intensity"]["plate_identity"]["macro_f1"] > 0.9
    page = (workdir / "report/index.html").read_text()
    assert "No metrics were logged." in page


def test_scores_are_kept_whatever_comes_after_them(tmp_path, image_set, evaluate_fake, monkeypatch):
    """Stopped while the map is made: the scores are in their file, and they are those of the whole run."""
    workdir = write_workdir(tmp_path / "run", image_set, umap=True, **QUICK)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bie_jax.evaluation.report.map.umap_projection", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate_fake(workdir, image_set)
    kept = json.loads((workdir / "scores.json").read_text())
    assert not (workdir / "report" / "index.html").exists()
    assert kept["feature_sets"]["trained_encoder"]["classifiers"]["random_forest"].keys() == kept["splits"].keys()

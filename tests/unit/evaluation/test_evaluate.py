import json

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.evaluation import evaluate
from bie_jax.evaluation.baselines import image_features
from bie_jax.evaluation.scores import probe
from bie_jax.evaluation.scores.normalization import standardise_per_plate
from bie_jax.files import integrity
from tests.unit.evaluation.conftest import CHANNELS, LABELS, write_workdir


@pytest.fixture
def settings(tiny_config):
    tiny_config.eval.update({"label": "label", "group": "plate", "probe_control": "a", "folds": 3, "bootstrap": 50})
    return check_config(tiny_config).eval


def layout(plates=3, wells=6, images=3):
    """Metadata with two labels in every plate, three wells each, and features that hold the label."""
    rows = [(f"P{p}", f"B{w:02d}", i, "ab"[w % 2]) for p in range(plates) for w in range(wells) for i in range(images)]
    metadata = pd.DataFrame(rows, columns=["plate", "well", "site", "label"])
    metadata["split"] = np.where(metadata["site"] == 0, "val", "train")
    noise = np.random.default_rng(0).normal(size=(len(rows), 3))
    features = noise + 5 * (metadata["label"] == "a").to_numpy()[:, None]
    return metadata, features


def feature_set(features, key=evaluate.TRAINED):
    return evaluate.FeatureSet(key, key, "", features)


def test_scores_file_is_what_was_returned(finished):
    workdir, scores = finished
    assert json.loads((workdir / "scores.json").read_text()) == scores
    assert not list(workdir.glob("*.tmp"))
    assert scores["set"]["simulated"] is True
    assert scores["set"]["channels"] == list(CHANNELS)
    assert scores["classes"] == dict.fromkeys(sorted(LABELS), 27)
    assert scores["splits"]["leave_plate_out"]["held_out"] == ["P1", "P2", "P3"]
    assert scores["splits"]["stratified_k_fold"]["folds"] == 3


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
    pixels = image_features.classical_features(image_set, CHANNELS, 0.5, overall, np.arange(1)).pixels
    for end, values in (("", pixels), ("_per_plate", standardise_per_plate(pixels, image_set.metadata["plate"]))):
        expected = probe.not_same_well_knn(values, labels, wells, components=64)
        found = scores["feature_sets"][f"pixel_pca{end}"]["knn"]
        np.testing.assert_allclose(found["accuracy"], expected["accuracy"], atol=0.03)  # by another PCA


def test_what_plates_do_to_raw_counts_is_no_merit_of_a_network(settings):
    """The same features, once with every plate's own offset and gain: standardized per plate they are one again."""
    metadata, features = layout()
    plates = metadata["plate"].to_numpy()
    counts = features * np.select([plates == "P0", plates == "P1"], [1.0, 4.0], 2.0)[:, None]
    counts += np.select([plates == "P0", plates == "P1"], [0.0, 90.0], -90.0)[:, None]
    sets = [feature_set(features), feature_set(counts, "counts")]
    entries = evaluate.score_features(sets, metadata, settings)["feature_sets"]

    def of(name):
        return entries[name]["classifiers"]["logistic_regression"]["leave_plate_out"]

    assert of("counts")["macro_f1"] < 0.6
    assert of("counts_per_plate")["macro_f1"] > 0.9
    assert of("counts_per_plate")["confusion"] == of("trained_encoder_per_plate")["confusion"]
    assert entries["counts"]["plate_identity"]["macro_f1"] > 0.9
    assert entries["counts_per_plate"]["knn"]["accuracy"] > entries["counts"]["knn"]["accuracy"]


def test_controls_that_are_tested_do_not_center_their_plate(settings):
    """Noise tells no plate. Were the tested controls in the means that center them, plates would be guessed wrong."""
    rows = [(f"P{p}", f"B{w:02d}", i, "ab"[w % 2]) for p in range(3) for w in range(12) for i in range(8)]
    metadata = pd.DataFrame(rows, columns=["plate", "well", "site", "label"]).assign(split="train")
    plates, wells = metadata["plate"].to_numpy().astype("U"), metadata["well"].to_numpy().astype("U")
    controls = np.flatnonzero(metadata["label"] == "a")
    settings = settings.model_copy(update={"folds": 3, "trees": 1})
    honest, leaking = [], []
    for seed in range(4):
        noise = np.random.default_rng(seed).normal(size=(len(metadata), 60))
        entries = evaluate.score_features([feature_set(noise)], metadata, settings)["feature_sets"]
        honest.append(entries["trained_encoder_per_plate"]["plate_identity"]["macro_f1"])
        centerd = standardise_per_plate(noise, plates)[controls]
        leaking.append(
            probe.plate_identity(centerd, plates[controls], wells[controls], num_folds=3, seed=settings.seed)[
                "macro_f1"
            ]
        )
    assert abs(np.mean(honest) - 1 / 3) < 0.05
    assert np.mean(leaking) < 1 / 3 - 0.1


def test_a_plate_of_controls_alone_has_no_identity_once_it_is_centerd_on_them(settings):
    metadata, features = layout()
    keep = ~((metadata["plate"] == "P1") & (metadata["label"] == "b")).to_numpy()
    scores = evaluate.score_features([feature_set(features[keep])], metadata[keep].reset_index(drop=True), settings)
    assert scores["feature_sets"]["trained_encoder"]["plate_identity"] is not None
    assert scores["feature_sets"]["trained_encoder_per_plate"]["plate_identity"] is None
    assert any("per plate, plate identity is not scored: P1 holds controls alone" in note for note in scores["notes"])


def test_random_weights_count_by_the_mean_of_their_draws(settings):
    """One draw of three holds the label: alone it would be the best of all."""
    metadata, features = layout()
    noise = np.random.default_rng(1).normal(size=(2, *features.shape))
    together = feature_set(np.concatenate([features[None], noise]))
    entry = evaluate.score_features([together], metadata, settings)["feature_sets"]["trained_encoder"]
    alone = [
        evaluate.score_features([feature_set(draw)], metadata, settings)["feature_sets"]["trained_encoder"]
        for draw in together.draws
    ]
    for classifier, splits in entry["classifiers"].items():
        for split, score in splits.items():
            of_each = [one["classifiers"][classifier][split] for one in alone]
            np.testing.assert_allclose(score["macro_f1"], np.mean([one["macro_f1"] for one in of_each]))
            assert score["macro_f1_of_draws"] == [one["macro_f1"] for one in of_each]
            assert score["per_class"]["a"]["support"] == of_each[0]["per_class"]["a"]["support"]
            np.testing.assert_array_equal(score["confusion"], np.sum([one["confusion"] for one in of_each], axis=0))
    for key, metric in (("knn", "accuracy"), ("plate_identity", "macro_f1")):
        np.testing.assert_allclose(entry[key][metric], np.mean([one[key][metric] for one in alone]))


def test_appended_columns_stand_alone_and_beside_what_was_made_by_hand():
    hand_made = feature_set(np.zeros((4, 3)), "classical")
    alone, beside = evaluate._appended([hand_made], np.arange(8.0).reshape(4, 2), ("area_px", "dose"))
    np.testing.assert_array_equal(alone.features, np.arange(8).reshape(4, 2))
    np.testing.assert_array_equal(beside.features, np.c_[np.zeros((4, 3)), alone.features])
    assert "area_px, dose" in alone.description
    assert evaluate._appended([hand_made], np.zeros((4, 0)), ()) == []
    assert [one.key for one in evaluate._appended([], np.zeros((4, 1)), ("dose",))] == ["appended"]


def test_the_transductive_note_counts_the_training_images(finished):
    workdir, scores = finished
    table = pd.read_parquet(workdir / "embeddings.parquet")
    train = int((table["Metadata_split"] == "train").sum())
    assert f"on {train} of these 108 images" in scores["transductive"]
    assert "transductive" in scores["transductive"]
    assert "trained without labels" in scores["transductive"]


def test_scores_of_unseen_images_are_explained_where_there_are_some(tiny_config):
    config = check_config(tiny_config).objective.contrastive
    metadata, _ = layout()
    for splits, there in (([evaluate.UNSEEN], True), (["leave_plate_out"], False)):
        note = evaluate.transductive_note(metadata, config, splits)
        assert ("unseen by the encoder are not" in note) == there


def test_an_encoder_that_was_taught_with_a_column_says_so(tiny_config):
    config = check_config(tiny_config).objective.contrastive
    metadata, _ = layout()
    for weight, form, taught in ((0.1, "replicates", True), (0.0, "replicates", False), (0.1, "channels", False)):
        changed = config.model_copy(update={"weight": weight, "form": form, "treatment": "gene"})
        note = evaluate.transductive_note(metadata, changed, [])
        assert ("trained with the column gene" in note) == taught
        assert ("without labels on" in note) != taught


def test_scores_repeat_to_the_digit(settings):
    metadata, features = layout()
    assert evaluate.score_features([feature_set(features)], metadata, settings) == evaluate.score_features(
        [feature_set(features)], metadata, settings
    )


def test_images_without_a_label_take_no_part(settings):
    metadata, features = layout()
    scores = evaluate.score_features([feature_set(features)], metadata, settings)
    more = pd.concat([metadata, metadata.iloc[:5].assign(label=["", None, "", None, ""])], ignore_index=True)
    noisy = np.concatenate([features, 100 * np.ones((5, 3))])
    got = evaluate.score_features([feature_set(noisy)], more, settings)
    assert "5 images without a label take no part in the scores." in got["notes"]
    for name in ("classes", "splits"):
        assert got[name] == scores[name]
    for name in ("trained_encoder", "majority"):
        assert got["feature_sets"][name] == scores["feature_sets"][name]
    # They are images of their plates like others, and count in the plates' means.
    per_plate = standardise_per_plate(noisy, more["plate"].to_numpy())[: len(features)]
    expected = evaluate.score_features([feature_set(per_plate)], metadata, settings)["feature_sets"]["trained_encoder"]
    assert got["feature_sets"]["trained_encoder_per_plate"]["classifiers"] == expected["classifiers"]


def test_what_the_encoder_never_saw_is_classified_by_what_it_saw(settings):
    metadata, features = layout()
    held_out = (metadata["split"] == "val").to_numpy()
    # In the validation images the features say the opposite: whoever learns from one of them would be nearly right.
    features[held_out] = 5 - features[held_out]
    entries = evaluate.score_features([feature_set(features)], metadata, settings)["feature_sets"]
    entry, majority = entries["trained_encoder"], entries["majority"]
    for splits in entry["classifiers"].values():
        score = splits[evaluate.UNSEEN]
        assert np.sum(score["confusion"]) == held_out.sum()
        assert score["accuracy"] < 0.05
    np.testing.assert_allclose(majority["classifiers"]["majority"][evaluate.UNSEEN]["accuracy"], 0.5)
    one_sided = metadata.assign(split=np.where(metadata["label"] == "a", "val", "train"))
    scores = evaluate.score_features([feature_set(features)], one_sided, settings)
    assert evaluate.UNSEEN not in scores["splits"]
    assert any("What the encoder never saw is not scored: fewer than two" in note for note in scores["notes"])


def test_a_set_without_labels_still_gets_a_report(tmp_path, image_set, evaluate_fake):
    import copy

    unlabeled = copy.copy(image_set)
    unlabeled.metadata = image_set.metadata.assign(label="control")
    workdir = tmp_path / "run"
    write_workdir(workdir, image_set, classical_baseline=False)
    table = pd.read_parquet(workdir / "embeddings.parquet")
    integrity.write_file(workdir / "embeddings.parquet", table.assign(Metadata_label="control").to_parquet, 0)
    (workdir / "metrics.jsonl").unlink()
    scores = evaluate_fake(workdir, unlabeled)
    assert any("a single label (control): nothing to classify" in note for note in scores["notes"])
    assert scores["feature_sets"]["trained_encoder"]["classifiers"] == {}
    assert scores["feature_sets"]["intensity"]["plate_identity"]["macro_f1"] > 0.9
    page = (workdir / "report/index.html").read_text()
    assert "No metrics were logged." in page


def test_images_without_wells_are_resampled_one_by_one(settings):
    """Every image in one well made an interval of no width."""
    metadata, features = layout(plates=1)
    features = features + 3 * np.random.default_rng(0).normal(size=features.shape)
    scores = evaluate.score_features([feature_set(features)], metadata.assign(well=""), settings)
    assert scores["interval_over"] == "images"
    (entry, _) = scores["feature_sets"].values()
    score = entry["classifiers"]["logistic_regression"]["stratified_k_fold"]
    low, high = score["macro_f1_interval_95"]
    assert low < score["macro_f1"] < high
    assert any("resample single images" in note for note in scores["notes"])


def test_one_plate_and_wells_as_groups(settings):
    metadata, features = layout(plates=1)
    scores = evaluate.score_features([feature_set(features)], metadata, settings)
    assert list(scores["splits"]) == ["stratified_k_fold", evaluate.UNSEEN]
    assert list(scores["feature_sets"]) == ["trained_encoder", "majority"]  # one plate has no second normalization
    assert list(scores["normalizations"]) == ["raw"]
    assert any("leaving one plate out is impossible" in note for note in scores["notes"])
    assert any("Plate identity is not scored" in note for note in scores["notes"])
    metadata, features = layout(plates=2)
    by_well = evaluate.score_features([feature_set(features)], metadata, settings.model_copy(update={"group": "well"}))
    assert by_well["splits"]["leave_well_out"]["folds"] == 12  # B02 of two plates is two wells


def test_too_few_controls_on_a_plate_cost_that_plate_alone(settings):
    metadata, features = layout()
    lone = (metadata["plate"] == "P2") & (metadata["label"] == "a") & (metadata["well"] != "B00")
    metadata, features = metadata[~lone].reset_index(drop=True), features[~lone.to_numpy()]
    settings = settings.model_copy(update={"folds": 4})
    scores = evaluate.score_features([feature_set(features)], metadata, settings)
    assert scores["feature_sets"]["trained_encoder"]["plate_identity"]["plates"] == 2
    assert any("Plate identity leaves out plates" in note and "P2 (3) images" in note for note in scores["notes"])
    assert (
        scores["feature_sets"]["trained_encoder"]["classifiers"]["random_forest"]["leave_plate_out"]["macro_f1"] > 0.9
    )


def test_a_class_that_a_score_cannot_hold_changes_no_other_class(settings):
    """Two images of a third class: the scores of the others are to the digit those of the set without them."""
    metadata, features = layout()
    rare = metadata["well"].eq("B00") & metadata["plate"].eq("P1") & metadata["site"].ne(2)
    labels = metadata["label"].mask(rare, "rare")
    with_rare = evaluate.score_features([feature_set(features)], metadata.assign(label=labels), settings)
    without = evaluate.score_features([feature_set(features)], metadata.assign(label=labels.mask(rare, "")), settings)
    for name in ("stratified_k_fold", "leave_plate_out"):
        assert with_rare["splits"][name] == without["splits"][name] | {"left_out": {"rare": 2}}
        for key in ("logistic_regression", "random_forest"):
            one, other = (s["feature_sets"]["trained_encoder"]["classifiers"][key][name] for s in (with_rare, without))
            assert one == other
            assert one["classes"] == ["a", "b"]
    assert with_rare["classes"] == without["classes"] | {"rare": 2}
    assert (
        "Stratified 3-fold leaves out rare (2 images): a class needs 3 images, one for each fold (config.eval.folds)."
        in with_rare["notes"]
    )
    assert "Leave-plate-out leaves out rare (2 images): a class needs images of two plates." in with_rare["notes"]


def test_what_cannot_be_scored_is_named(settings):
    metadata, features = layout()
    sets = [feature_set(features)]
    with pytest.raises(ConfigError, match=r"eval.label='moa'.*plate, well, site, label"):
        evaluate.score_features(sets, metadata, settings.model_copy(update={"label": "moa"}))
    few = evaluate.score_features(sets, metadata.assign(label=np.where(metadata["well"] < "B02", "x", "y")), settings)
    assert not any("Fewer than three wells" in note for note in few["notes"])
    corner = (metadata["well"] == "B00") & (metadata["plate"] != "P2")
    few = evaluate.score_features(sets, metadata.assign(label=np.where(corner, "x", "y")), settings)
    assert any("Fewer than three wells of x" in note for note in few["notes"])


def test_embeddings_of_other_images_are_refused(tmp_path, image_set, evaluate_fake):
    workdir = write_workdir(tmp_path / "run", image_set)
    table = pd.read_parquet(workdir / "embeddings.parquet")
    order = np.r_[1, 0, 2 : len(table)]
    integrity.write_file(workdir / "embeddings.parquet", table.iloc[order].to_parquet, 0)
    with pytest.raises(evaluate.EvaluationError, match=r"row 0 of embeddings.parquet has site '1'"):
        evaluate_fake(workdir, image_set)
    integrity.write_file(workdir / "embeddings.parquet", table.iloc[:-1].to_parquet, 0)
    with pytest.raises(evaluate.EvaluationError, match=r"107 rows .* 108 images"):
        evaluate_fake(workdir, image_set)
    (workdir / "embeddings.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="--stage=embed"):
        evaluate_fake(workdir, image_set)
    assert not (workdir / "scores.json").exists()


def test_shown_images_are_a_seeded_sample():
    np.testing.assert_array_equal(evaluate.sample_points(5, 5, 0), np.arange(5))
    some = evaluate.sample_points(100, 10, 0)
    assert len(set(some)) == 10
    assert (np.diff(some) > 0).all()
    np.testing.assert_array_equal(some, evaluate.sample_points(100, 10, 0))


def test_classical_features_do_not_depend_on_the_batches(image_set, monkeypatch):
    shown = np.array([0, 7, 70])
    arguments = (image_set, CHANNELS, 0.5, image_set.statistics["overall"], shown)
    whole = image_features.classical_features(*arguments)
    monkeypatch.setattr(image_features, "BATCH", 10)
    parts = image_features.classical_features(*arguments)
    np.testing.assert_allclose(whole.intensity, parts.intensity)
    np.testing.assert_allclose(whole.texture_and_regions, parts.texture_and_regions)
    np.testing.assert_allclose(whole.pixels, parts.pixels)
    assert len(whole.tiles) == len(parts.tiles) == 3
    for one, other in zip(whole.tiles, parts.tiles):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_scores_are_kept_whatever_comes_after_them(tmp_path, image_set, evaluate_fake, monkeypatch):
    """Stopped while the map is made: the scores are in their file, and they are those of the whole run."""
    workdir = write_workdir(tmp_path / "run", image_set, umap=True, classical_baseline=False, bootstrap=5)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluate.project, "umap_projection", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate_fake(workdir, image_set)
    kept = json.loads((workdir / "scores.json").read_text())
    assert not (workdir / "report" / "index.html").exists()
    assert kept["feature_sets"]["trained_encoder"]["classifiers"]["random_forest"].keys() == kept["splits"].keys()


def test_hand_made_features_that_are_no_numbers_cost_no_other_score():
    whole = feature_set(np.zeros((3, 2)), "whole")
    broken = feature_set(np.array([[0, 1], [np.nan, 1], [0, np.inf]]), "broken")
    kept, notes = evaluate.without_broken([whole, broken])
    assert [one.key for one in kept] == ["whole"]
    assert notes == ["broken is not scored: 2 of 3 rows hold NaN or infinity, the first is row 1."]


def test_embeddings_that_are_no_numbers_are_refused(tmp_path, image_set):
    workdir = write_workdir(tmp_path / "run", image_set)
    table = pd.read_parquet(workdir / "embeddings.parquet")
    table.loc[5, "vqvae_0002"] = np.nan
    integrity.write_file(workdir / "embeddings.parquet", table.to_parquet, 0)
    with pytest.raises(FloatingPointError, match=r"embeddings.parquet: 1 of 108 rows hold NaN or infinity, rows 5; "):
        evaluate.read_embeddings(workdir / "embeddings.parquet")

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.scores.keys import UNSEEN
from bie_jax.evaluation.scores.normalization import standardize_per_plate
from bie_jax.evaluation.scores.plan import plan_scores
from bie_jax.evaluation.scores.plate_identity import plate_identity
from bie_jax.evaluation.scores.score import score_features
from tests.unit.evaluation.layouts import feature_set, layout

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tiny_config):
    tiny_config.eval.update(
        {"label": "label", "group": "plate", "probe_control": "a", "folds": 3, "bootstrap": 10, "trees": 3}
    )
    return check_config(tiny_config).eval


def score_all(feature_sets, metadata, settings):
    return score_features(feature_sets, plan_scores(metadata, metadata["split"].to_numpy(), settings), settings)


def test_what_plates_do_to_raw_counts_is_no_merit_of_a_network(settings):
    """The same features, once with every plate's own offset and gain: standardized per plate they are one again."""
    metadata, features = layout()
    plates = metadata["plate"].to_numpy()
    counts = features * np.select([plates == "P0", plates == "P1"], [1.0, 4.0], 2.0)[:, None]
    counts += np.select([plates == "P0", plates == "P1"], [0.0, 90.0], -90.0)[:, None]
    sets = [feature_set(features), feature_set(counts, "counts")]
    entries = score_all(sets, metadata, settings)["feature_sets"]

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
        entries = score_all([feature_set(noise)], metadata, settings)["feature_sets"]
        honest.append(entries["trained_encoder_per_plate"]["plate_identity"]["macro_f1"])
        centered = standardize_per_plate(noise, plates)[controls]
        leaking.append(
            plate_identity(centered, plates[controls], wells[controls], num_folds=3, seed=settings.seed)["macro_f1"]
        )
    assert abs(np.mean(honest) - 1 / 3) < 0.05
    assert np.mean(leaking) < 1 / 3 - 0.1


def test_a_plate_of_controls_alone_has_no_identity_once_it_is_centered_on_them(settings):
    metadata, features = layout()
    keep = ~((metadata["plate"] == "P1") & (metadata["label"] == "b")).to_numpy()
    scores = score_all([feature_set(features[keep])], metadata[keep].reset_index(drop=True), settings)
    assert scores["feature_sets"]["trained_encoder"]["plate_identity"] is not None
    assert scores["feature_sets"]["trained_encoder_per_plate"]["plate_identity"] is None
    assert any("per plate, plate identity is not scored: P1 holds controls alone" in note for note in scores["notes"])


def test_random_weights_count_by_the_mean_of_their_draws(settings):
    """One draw of three holds the label: alone it would be the best of all."""
    metadata, features = layout()
    noise = np.random.default_rng(1).normal(size=(2, *features.shape))
    together = feature_set(np.concatenate([features[None], noise]))
    entry = score_all([together], metadata, settings)["feature_sets"]["trained_encoder"]
    alone = [
        score_all([feature_set(draw)], metadata, settings)["feature_sets"]["trained_encoder"] for draw in together.draws
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


def test_scores_repeat_to_the_digit(settings):
    metadata, features = layout()
    first, second = (score_all([feature_set(features)], metadata, settings) for _ in range(2))
    assert first == second


def test_images_without_a_label_take_no_part(settings):
    metadata, features = layout()
    scores = score_all([feature_set(features)], metadata, settings)
    more = pd.concat([metadata, metadata.iloc[:5].assign(label=["", None, "", None, ""])], ignore_index=True)
    noisy = np.concatenate([features, 100 * np.ones((5, 3))])
    got = score_all([feature_set(noisy)], more, settings)
    assert "5 images without a label take no part in the scores." in got["notes"]
    for name in ("classes", "splits"):
        assert got[name] == scores[name]
    for name in ("trained_encoder", "majority"):
        assert got["feature_sets"][name] == scores["feature_sets"][name]
    # They are images of their plates like others, and count in the plates' means.
    per_plate = standardize_per_plate(noisy, more["plate"].to_numpy())[: len(features)]
    expected = score_all([feature_set(per_plate)], metadata, settings)["feature_sets"]["trained_encoder"]
    assert got["feature_sets"]["trained_encoder_per_plate"]["classifiers"] == expected["classifiers"]


def test_what_the_encoder_never_saw_is_classified_by_what_it_saw(settings):
    metadata, features = layout()
    held_out = (metadata["split"] == "val").to_numpy()
    # In the validation images the features say the opposite: whoever learns from one of them would be nearly right.
    features[held_out] = 5 - features[held_out]
    entries = score_all([feature_set(features)], metadata, settings)["feature_sets"]
    entry, majority = entries["trained_encoder"], entries["majority"]
    for splits in entry["classifiers"].values():
        score = splits[UNSEEN]
        assert np.sum(score["confusion"]) == held_out.sum()
        assert score["accuracy"] < 0.05
    np.testing.assert_allclose(majority["classifiers"]["majority"][UNSEEN]["accuracy"], 0.5)
    one_sided = metadata.assign(split=np.where(metadata["label"] == "a", "val", "train"))
    scores = score_all([feature_set(features)], one_sided, settings)
    assert UNSEEN not in scores["splits"]
    assert any("What the encoder never saw is not scored: fewer than two" in note for note in scores["notes"])


def test_images_without_wells_are_resampled_one_by_one(settings):
    """Every image in one well made an interval of no width."""
    metadata, features = layout(plates=1)
    features = features + 3 * np.random.default_rng(0).normal(size=features.shape)
    scores = score_all([feature_set(features)], metadata.assign(well=""), settings)
    assert scores["interval_over"] == "images"
    (entry, _) = scores["feature_sets"].values()
    score = entry["classifiers"]["logistic_regression"]["stratified_k_fold"]
    low, high = score["macro_f1_interval_95"]
    assert low < score["macro_f1"] < high
    assert any("resample single images" in note for note in scores["notes"])


def test_one_plate_and_wells_as_groups(settings):
    metadata, features = layout(plates=1)
    scores = score_all([feature_set(features)], metadata, settings)
    assert list(scores["splits"]) == ["stratified_k_fold", UNSEEN]
    assert list(scores["feature_sets"]) == ["trained_encoder", "majority"]  # one plate has no second normalization
    assert list(scores["normalizations"]) == ["raw"]
    assert any("leaving one plate out is impossible" in note for note in scores["notes"])
    assert any("Plate identity is not scored" in note for note in scores["notes"])
    metadata, features = layout(plates=2)
    by_well = score_all([feature_set(features)], metadata, settings.model_copy(update={"group": "well"}))
    assert by_well["splits"]["leave_well_out"]["folds"] == 12  # B02 of two plates is two wells


def test_too_few_controls_on_a_plate_cost_that_plate_alone(settings):
    metadata, features = layout()
    lone = (metadata["plate"] == "P2") & (metadata["label"] == "a") & (metadata["well"] != "B00")
    metadata, features = metadata[~lone].reset_index(drop=True), features[~lone.to_numpy()]
    settings = settings.model_copy(update={"folds": 4})
    scores = score_all([feature_set(features)], metadata, settings)
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
    with_rare = score_all([feature_set(features)], metadata.assign(label=labels), settings)
    without = score_all([feature_set(features)], metadata.assign(label=labels.mask(rare, "")), settings)
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
        score_all(sets, metadata, settings.model_copy(update={"label": "moa"}))
    few = score_all(sets, metadata.assign(label=np.where(metadata["well"] < "B02", "x", "y")), settings)
    assert not any("Fewer than three wells" in note for note in few["notes"])
    corner = (metadata["well"] == "B00") & (metadata["plate"] != "P2")
    few = score_all(sets, metadata.assign(label=np.where(corner, "x", "y")), settings)
    assert any("Fewer than three wells of x" in note for note in few["notes"])

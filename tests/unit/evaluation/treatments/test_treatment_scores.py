"""Scores of treatments: the plain functions on the wells that the steps leave, for every set of features."""

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.feature_set import Block, FeatureSet
from bie_jax.evaluation.profiles.activity import activity_average_precision
from bie_jax.evaluation.profiles.consistency import consistency_average_precision
from bie_jax.evaluation.profiles.mean_average_precision import mean_average_precision
from bie_jax.evaluation.profiles.nearest_mechanism import nearest_mechanism
from bie_jax.evaluation.profiles.random_order import draw_random_orders
from bie_jax.evaluation.profiles.replicating import percent_replicating
from bie_jax.evaluation.profiles.separability import batch_separability
from bie_jax.evaluation.scores.keys import (
    ACTIVITY,
    BATCH_SEPARABILITY,
    CONSISTENCY,
    MEAN_AVERAGE_PRECISION,
    NOT_SAME_COMPOUND,
    NOT_SAME_COMPOUND_OR_BATCH,
    PLATE_SEPARABILITY,
    REPLICATING,
    SHARE_SIGNIFICANT,
    TRAINED,
)
from bie_jax.evaluation.treatments.exemplars import exemplars
from bie_jax.evaluation.treatments.interval import interval_of_mean
from bie_jax.evaluation.treatments.measure import drawn_queries
from bie_jax.evaluation.treatments.plan import plan_treatments
from bie_jax.evaluation.treatments.score import score_treatments, treatment_rows, well_features
from tests.unit.evaluation.treatments.plates import screen, settings


def scored(features, metadata, more=(), **changes):
    chosen = settings(**changes)
    plan = plan_treatments(metadata, metadata["split"].to_numpy(), chosen)
    assert plan is not None
    return score_treatments([FeatureSet(TRAINED, "Trained", "", features), *more], plan, chosen)


def value(scores, score, steps="wells+normalize+select", metric=None, feature_set=TRAINED):
    (found,) = [
        result
        for result in scores["results"]
        if result["score"] == score
        and result["steps"] == steps
        and result["feature_set"] == feature_set
        and (metric is None or result["metric"] == metric)
    ]
    return found


def by_hand(features, metadata):
    """Wells by pandas, standardized on the controls of their plates; none of the features is a copy of another."""
    table = metadata[["plate", "well", "label", "compound", "dose"]].join(pd.DataFrame(features).add_prefix("f"))
    wells = table.groupby(["plate", "well"]).agg(
        {name: "first" if name in metadata else "mean" for name in table.columns[2:]}
    )
    wells = wells.reset_index()
    columns = [name for name in wells if str(name).startswith("f")]
    for _, rows in wells.groupby("plate").groups.items():
        controls = wells.loc[rows][wells.loc[rows, "label"] == "dmso"]
        wells.loc[rows, columns] = (wells.loc[rows, columns] - controls[columns].mean()) / controls[columns].std(ddof=0)
    return wells, columns


def test_scores_are_the_plain_functions_of_wells_made_by_hand():
    features, metadata = screen(effect=0.5)  # so little that who is compared with whom makes a difference
    scores = scored(features, metadata).scores
    wells, columns = by_hand(features, metadata)
    values, controls = wells[columns].to_numpy(), (wells["label"] == "dmso").to_numpy()
    of_wells = activity_average_precision(values, wells, ("compound", "dose"), controls, ("plate",), ())
    expected = of_wells["average_precision"].groupby([wells["compound"], wells["dose"]]).mean().mean()
    found = value(scores, ACTIVITY, metric=MEAN_AVERAGE_PRECISION)
    np.testing.assert_allclose(found["value"], expected)
    np.testing.assert_allclose(found["chance"], of_wells["expected_average_precision"].mean())
    assert (found["n"], found["level"]) == (12, "well")
    null = draw_random_orders(of_wells, 200, 0, "choose")
    q = mean_average_precision(of_wells, wells, ("compound", "dose"), null, count_ties=True)["corrected_p_value"]
    np.testing.assert_allclose(value(scores, ACTIVITY, metric=SHARE_SIGNIFICANT)["value"], (q < 0.05).mean())
    assert found["low"] < found["value"] < found["high"]

    treated = wells[~controls].reset_index(drop=True)
    names = ["compound", "dose", "label"]
    treatments = treated.groupby(names)[columns].median().reset_index()
    medians = treatments[columns].to_numpy()
    of_treatments = consistency_average_precision(medians, treatments, "label", ("compound",))
    expected = of_treatments["average_precision"].groupby(treatments["label"]).mean().mean()
    found = value(scores, CONSISTENCY, metric=MEAN_AVERAGE_PRECISION)
    np.testing.assert_allclose([found["value"], found["n"]], [expected, 3])
    nsc = nearest_mechanism(medians, treatments, "label", ("compound",))
    found = value(scores, NOT_SAME_COMPOUND)
    np.testing.assert_allclose([found["value"], found["chance"]], [nsc.accuracy, nsc.chance])
    of_plates = treated.groupby([*names, "plate"])[columns].median().reset_index()
    nscb = nearest_mechanism(of_plates[columns].to_numpy(), of_plates, "label", ("compound", "plate"))
    found = value(scores, NOT_SAME_COMPOUND_OR_BATCH)
    np.testing.assert_allclose([found["value"], found["chance"]], [nscb.accuracy, nscb.chance])
    share = percent_replicating(treated[columns].to_numpy(), treated, ("compound", "dose"), 0.95, 200, 0)
    found = value(scores, REPLICATING)
    np.testing.assert_allclose(found["value"], share.share)
    assert found["low"] <= found["value"] <= found["high"]


def test_a_plate_effect_is_seen_before_the_steps_and_gone_behind_them():
    features, metadata = screen(plates=4, controls=15)
    shift = np.random.default_rng(1).normal(size=(4, 6)) * 8
    features = features + shift[[int(plate[1]) for plate in metadata["plate"]]]
    scores = scored(features, metadata).scores
    before, after = value(scores, PLATE_SEPARABILITY, "wells"), value(scores, PLATE_SEPARABILITY)
    assert before["value"] > 0.9
    assert after["value"] < 0.5
    # Of 15 controls a plate 7 are asked in one half, and 8 in the other.
    chance = (28 * 6 / 27 + 32 * 7 / 31) / 60
    np.testing.assert_allclose([before["chance"], before["n"]], [chance, 60])
    active = [value(scores, ACTIVITY, steps, MEAN_AVERAGE_PRECISION)["value"] for steps in scores["steps"]]
    assert active[0] < active[-1]
    assert scores["steps"] == ["wells", "wells+normalize", "wells+normalize+select"]


def test_plates_are_told_by_controls_that_no_step_was_fitted_to():
    """Of controls that a plate was centered on the others point away; half of them are asked, and not centered on."""
    shares, fitted = [], []
    for seed in range(12):
        features, metadata = screen(plates=3, compounds=1, doses=(1.0,), controls=40, images=1, seed=seed)
        result = scored(features, metadata, profile__steps=("normalize",), profile__null_size=20, bootstrap=2)
        shares.append(value(result.scores, PLATE_SEPARABILITY, "wells+normalize")["value"])
        wells, plan = result.corrected.tables[-1].features, result.plan
        fitted.append(batch_separability(wells, plan.wells, ("plate",), plan.controls).accuracy)
    assert abs(np.mean(shares) - 19 / 59) < 4 * np.std(shares) / np.sqrt(12) + 0.02
    assert np.mean(fitted) < np.mean(shares)


def test_a_batch_of_several_plates_has_its_own_separability():
    features, metadata = screen(plates=4)
    metadata["week"] = metadata["plate"].isin(["P0", "P1"]).map({True: "w1", False: "w2"})
    features = features + 20 * (metadata["week"] == "w1").to_numpy()[:, None]
    scores = scored(features, metadata, profile__batch=("week",)).scores
    found = value(scores, BATCH_SEPARABILITY, "wells")
    assert found["value"] > 0.9
    assert found["chance"] == pytest.approx(5 / 11)


def test_random_weights_are_the_mean_of_their_seeds_and_wide_features_become_components():
    features, metadata = screen(effect=0.5)
    rng = np.random.default_rng(0)
    draws = np.stack([features @ rng.normal(size=(6, 5)) for _ in range(3)])
    wide = features @ rng.normal(size=(6, 300))
    more = [FeatureSet("random", "Random", "", draws), FeatureSet("pixels", "Pixels", "", wide, 4)]
    result = scored(features, metadata, more, profile__steps=())
    found = value(result.scores, NOT_SAME_COMPOUND, "wells", feature_set="random")
    assert len(found["of_draws"]) == 3
    np.testing.assert_allclose(np.mean(found["of_draws"]), found["value"])
    assert len(set(found["of_draws"])) > 1
    alone = [scored(draw, metadata, profile__steps=()).scores for draw in draws]
    np.testing.assert_allclose(found["of_draws"], [value(each, NOT_SAME_COMPOUND, "wells")["value"] for each in alone])
    assert value(result.scores, ACTIVITY, "wells", MEAN_AVERAGE_PRECISION, "pixels")["dim"] == 4
    block = well_features(wide, (Block(300, 2, standardized=True),), result.plan, settings())
    assert block.shape == (len(result.plan.wells), 2)


def test_a_single_feature_is_compared_by_its_value():
    """Cells are killed by the high dose, half of them by the low one: both differ from controls, and by sign alike."""
    _, metadata = screen(compounds=3)
    well = metadata["plate"] + metadata["well"]
    noise = well.map(dict(zip(well.unique(), np.random.default_rng(0).normal(size=well.nunique())))).to_numpy()
    counts = metadata["dose"].map({"": 50, "1.0": 25, "10.0": 5}).to_numpy() + noise
    result = scored(counts[:, None], metadata, profile__mechanism="dose", profile__compound="")
    activity = result.corrected.tables[1].measured.activity
    assert activity is not None
    assert (activity["mean_average_precision"] == 1).all()
    assert value(result.scores, NOT_SAME_COMPOUND, "wells+normalize")["value"] == 1
    assert not any(found["score"] == REPLICATING for found in result.scores["results"])


def test_what_cannot_be_scored_is_a_note_and_costs_nothing_else():
    features, metadata = screen()
    features[:, 0] = 0
    collapsed = FeatureSet("collapsed", "Collapsed", "", np.zeros((len(metadata), 3)))
    scores = scored(features, metadata, [collapsed]).scores
    assert value(scores, ACTIVITY, metric=MEAN_AVERAGE_PRECISION)["value"] > 0.5
    assert not [result for result in scores["results"] if result["feature_set"] == "collapsed"]
    assert any(
        note.startswith("Collapsed, activity: ") and "are 0 in every feature" in note for note in scores["notes"]
    )
    assert any(note.startswith("Collapsed, step 'select': none of 3 feature columns") for note in scores["notes"])


def test_shuffled_treatments_score_no_better_than_chance():
    """Over 20 shuffles of all wells. Behind the steps activity is a little below chance, for the controls of a plate
    sum to 0 there; before them it is neither above nor below."""
    lifts: dict[str, list[dict[str, float]]] = {"wells": [], "wells+normalize": []}
    for seed in range(20):
        features, metadata = screen(images=1, seed=seed)
        order = np.random.default_rng(seed).permutation(len(metadata))
        changes = {"profile__null_size": 20, "bootstrap": 2, "profile__steps": ("normalize",)}
        scores = scored(features[order], metadata, **changes).scores
        for steps, found in lifts.items():
            of_steps = [result for result in scores["results"] if result["steps"] == steps]
            found.append({r["score"]: r["value"] - r["chance"] for r in of_steps if r["metric"] != SHARE_SIGNIFICANT})
    before, after = (pd.DataFrame(found) for found in lifts.values())
    compared = [ACTIVITY, CONSISTENCY, NOT_SAME_COMPOUND, NOT_SAME_COMPOUND_OR_BATCH, REPLICATING]
    assert set(before) == set(after) == {*compared, PLATE_SEPARABILITY}
    assert (before.mean().abs() < 4 * before.std() / np.sqrt(20)).all(), before.mean()
    assert (after[compared].mean() < 4 * after[compared].std() / np.sqrt(20)).all(), after.mean()


def test_images_that_have_no_part_shift_no_others():
    features, metadata = screen()
    alone = scored(features[5:], metadata.iloc[5:].reset_index(drop=True))
    held_out = metadata.assign(split=np.where(np.arange(len(metadata)) < 5, "held_out", "train"))
    np.testing.assert_array_equal(
        scored(features, held_out).corrected.treatments.features, alone.corrected.treatments.features
    )


def test_plates_without_controls_have_no_activity_and_cost_the_others_nothing():
    features, metadata = screen()
    bare = metadata[~((metadata["plate"] == "P1") & (metadata["label"] == "dmso"))]
    result = scored(features[bare.index], bare.reset_index(drop=True), profile__normalize__rows="all")
    activity = result.corrected.tables[-1].measured.activity
    assert activity is not None
    assert (activity["profiles"] == 2).all()


def test_which_feature_a_column_was_is_known_behind_all_steps():
    features, metadata = screen(controls=30)
    features[:, 2] = 1.0
    tables = scored(features, metadata, profile__steps=("normalize", "select", "sphere")).corrected.tables
    columns = [None if table.columns is None else table.columns.tolist() for table in tables]
    assert columns == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 3, 4, 5], [0, 1, 3, 4, 5]]


def test_of_many_treatments_whole_mechanisms_are_asked():
    table = pd.DataFrame({"moa": np.repeat([f"m{i}" for i in range(50)], 4), "compound": np.arange(200).astype(str)})
    chosen = settings(most_queries=100)
    asked = drawn_queries(table, "moa", chosen)
    assert asked.sum() == 100
    assert set(table["moa"][asked].value_counts()) == {4}
    assert drawn_queries(table.iloc[:100], "moa", chosen).all()
    assert (drawn_queries(table, "moa", settings(most_queries=100, seed=1)) != asked).any()


def test_rows_stand_beside_their_chance():
    features, metadata = screen()
    scores = scored(features, metadata).scores
    rows = pd.DataFrame(treatment_rows(scores))
    assert set(rows["level"]) == {"well", "treatment"}
    assert set(rows["normalization"]) == set(scores["steps"])
    found = value(scores, NOT_SAME_COMPOUND)
    part = rows[(rows["split"] == NOT_SAME_COMPOUND) & (rows["normalization"] == found["steps"])].set_index("metric")
    assert part["value"].to_dict() == {"accuracy": found["value"], "accuracy_chance": found["chance"]}
    assert len(rows) == 2 * len(scores["results"])


def test_exemplars_are_the_wells_nearest_to_the_profile():
    features, metadata = screen()
    result = scored(features, metadata)
    plan, wells = result.plan, result.corrected.tables[-1].features
    treated = (plan.wells["compound"] == "c1").to_numpy() & (plan.wells["dose"] == 10).to_numpy()
    row = plan.treatments.index[(plan.treatments["compound"] == "c1") & (plan.treatments["dose"] == 10)][0]
    profile = result.corrected.treatments.features[row]
    np.testing.assert_allclose(profile, np.median(wells[treated], axis=0))
    found = exemplars(wells, profile, treated, plan, 2)
    cosine = {
        w: wells[w] @ profile / np.linalg.norm(wells[w]) / np.linalg.norm(profile) for w in np.flatnonzero(treated)
    }
    expected = sorted(cosine, key=lambda w: -cosine[w])[:2]
    for pair, well in zip(found, expected, strict=True):
        image = metadata.loc[pair.treated]
        assert (image["plate"], image["well"]) == (plan.wells.loc[well, "plate"], plan.wells.loc[well, "well"])
        assert pair.treated == min(
            np.flatnonzero(metadata["plate"].eq(image["plate"]) & metadata["well"].eq(image["well"]))
        )
        assert metadata.loc[pair.control, "label"] == "dmso"
        middle = np.median(wells[plan.controls], axis=0)
        beside = np.flatnonzero(plan.controls & (plan.wells["plate"] == image["plate"]).to_numpy())
        nearest = beside[np.linalg.norm(wells[beside] - middle, axis=1).argmin()]
        assert metadata.loc[pair.control, "well"] == plan.wells.loc[nearest, "well"]
        assert metadata.loc[pair.control, "plate"] == image["plate"]


def test_interval_of_a_mean_has_the_width_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    low, high = interval_of_mean(values, 4000, 0)
    np.testing.assert_allclose([low, high], values.mean() + np.array([-1.96, 1.96]) * values.std() / 20, atol=0.02)
    assert interval_of_mean(np.ones(3), 5, 0) == (1, 1)


def test_where_no_mechanism_is_known_the_note_names_its_key():
    features, metadata = screen(plates=2, compounds=3)
    metadata["label"] = metadata["label"].where(metadata["label"] == "dmso", "")
    scores = scored(features, metadata, profile__steps=()).scores
    of_mechanism = [note for note in scores["notes"] if "no treatment has a value of label" in note]
    assert len(of_mechanism) == 3
    assert value(scores, ACTIVITY, "wells", MEAN_AVERAGE_PRECISION)["n"] == 6


def test_a_treatment_whose_mechanism_is_an_empty_number_has_none():
    features, metadata = screen(plates=2)
    lost = (metadata["dose"] == "1.0") & metadata["compound"].isin(["c0", "c1"])
    metadata["drug"] = metadata["compound"] + "/" + metadata["dose"].where(metadata["compound"] != "", "")
    metadata["drug"] = metadata["drug"].where(metadata["compound"] != "", "")
    metadata.loc[lost, "dose"] = ""
    changes = {"profile__treatment": ("drug",), "profile__mechanism": "dose", "profile__steps": ()}
    scores = scored(features, metadata, **changes).scores
    assert value(scores, NOT_SAME_COMPOUND, "wells")["n"] == 10
    assert value(scores, CONSISTENCY, "wells", MEAN_AVERAGE_PRECISION)["n"] == 2
    assert not scores["notes"]


def test_replicates_that_must_differ_in_a_column_and_do_not_are_told_its_name():
    features, metadata = screen(plates=1)
    scores = scored(features, metadata, profile__replicates_differ_in=("plate",), profile__steps=()).scores
    assert any("differ in (column plate)" in note for note in scores["notes"])

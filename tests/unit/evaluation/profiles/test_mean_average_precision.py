import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.profiles.activity import activity_average_precision
from bie_jax.evaluation.profiles.consistency import consistency_average_precision
from bie_jax.evaluation.profiles.mean_average_precision import mean_average_precision
from bie_jax.evaluation.profiles.random_order import RandomOrder, draw_random_orders
from tests.unit.evaluation.profiles.conftest import make_plates


def test_means_p_values_and_q_values_against_loops(plates):
    features, metadata, controls = plates
    # One plate lacks a control and one a treatment, so that replicates differ in their numbers of pairs.
    of_p1 = (metadata["plate"] == "p1").to_numpy()
    c0_of_p0 = ((metadata["plate"] == "p0") & (metadata["compound"] == "c0")).to_numpy()
    left = np.delete(np.arange(42), [np.flatnonzero(of_p1 & controls)[0], np.flatnonzero(c0_of_p0)[0]])
    features, metadata, controls = features[left], metadata.iloc[left], controls[left]
    scores = activity_average_precision(features, metadata, ["compound"], controls, ["plate"], [])
    null = draw_random_orders(scores, 300, 1, "permute")
    np.testing.assert_array_equal(null.configurations, [[1, 6], [1, 7], [2, 7], [2, 8]])
    for count_ties in (False, True):
        found = mean_average_precision(scores, metadata, ["compound"], null, count_ties)
        assert list(found["compound"]) == [f"c{t}" for t in range(8)]
        for row in found.itertuples():
            of = scores[(metadata["compound"] == row.compound).to_numpy()]
            assert row.profiles == len(of) == (2 if row.compound == "c0" else 3)
            np.testing.assert_allclose(row.mean_average_precision, of["average_precision"].mean())
            np.testing.assert_allclose(row.expected_average_precision, of["expected_average_precision"].mean())
            draws = np.zeros(300)
            for pair in of[["n_pos_pairs", "n_total_pairs"]].to_numpy().tolist():
                draws += null.values[null.configurations.tolist().index(pair)] / len(of)
            close = np.isclose(draws, row.mean_average_precision, rtol=1e-9)
            above = (draws > row.mean_average_precision) & ~close
            np.testing.assert_allclose(row.p_value, (above.sum() + count_ties * close.sum() + 1) / 301)
        p = found["p_value"].to_numpy()
        order = np.argsort(p)
        q = [min(p[order[j]] * 8 / (j + 1) for j in range(i, 8)) for i in range(8)]
        np.testing.assert_allclose(found["corrected_p_value"].to_numpy()[order], np.minimum(q, 1))


def test_a_perfect_score_of_few_pairs_is_no_wonder_where_ties_count():
    """One positive among four pairs is first in a quarter of all orders."""
    table = pd.DataFrame({"average_precision": [1.0, 1.0], "n_pos_pairs": 1, "n_total_pairs": 4})
    table["expected_average_precision"] = table["normalized_average_precision"] = 0.5
    metadata = pd.DataFrame({"treatment": ["a", "a"]})
    null = draw_random_orders(table, 4000, 0, "choose")
    assert mean_average_precision(table, metadata, ["treatment"], null, False)["p_value"][0] == 1 / 4001
    p_value = mean_average_precision(table, metadata, ["treatment"], null, True)["p_value"][0]
    np.testing.assert_allclose(p_value, 0.25, atol=0.03)


def test_planted_treatments_are_active_and_others_are_not():
    features, metadata, controls = make_plates(plates=4, treatments=40, controls=16, dim=16, effect=0.0, seed=3)
    rng = np.random.default_rng(0)
    active = [f"c{t}" for t in range(10)]
    for compound in active:
        features[(metadata["compound"] == compound).to_numpy()] += 1.5 * rng.normal(size=16)
    scores = activity_average_precision(features, metadata, ["compound"], controls, ["plate"], ["plate"])
    null = draw_random_orders(scores, 2000, 0, "permute")
    found = mean_average_precision(scores, metadata, ["compound"], null, True).set_index("compound")
    assert (found.loc[active, "corrected_p_value"] < 0.05).all()
    others = found.drop(active)
    assert (others["corrected_p_value"] < 0.05).sum() <= 1
    np.testing.assert_allclose(
        others["mean_average_precision"].mean(), others["expected_average_precision"].mean(), atol=0.05
    )


def test_replicates_are_held_against_controls_of_their_plate(plates):
    features, metadata, controls = plates
    scores = activity_average_precision(features, metadata, ["compound"], controls, ["plate"], [])
    assert scores.loc[controls, "average_precision"].isna().all()
    np.testing.assert_array_equal(scores.loc[~controls, "n_pos_pairs"], 2)
    np.testing.assert_array_equal(scores.loc[~controls, "n_total_pairs"], 2 + 6)
    everywhere = activity_average_precision(features, metadata, ["compound"], controls, [], [])
    np.testing.assert_array_equal(everywhere.loc[~controls, "n_total_pairs"], 2 + 18)
    # Replicates of one plate do not count where they have to differ in it.
    metadata["place"] = np.where(metadata["plate"] == "p2", "p1", metadata["plate"])
    apart = activity_average_precision(features, metadata, ["compound"], controls, ["plate"], ["place"])
    np.testing.assert_array_equal(
        apart.loc[~controls, "n_pos_pairs"], np.where(metadata["place"] == "p1", 1, 2)[~controls]
    )
    # A control has no concentration; that is no gap.
    metadata["dose"] = np.where(controls, np.nan, 1.0)
    dosed = activity_average_precision(features, metadata, ["compound", "dose"], controls, ["plate"], [])
    pd.testing.assert_frame_equal(dosed, scores)


def test_compounds_of_a_mechanism_are_its_witnesses(plates):
    features, metadata, controls = plates
    treated = np.flatnonzero(~controls)
    features, metadata = features[treated], metadata.iloc[treated]
    per_mechanism = metadata["mechanism"].map({"m0": 9, "m1": 9, "m2": 6}).to_numpy()
    scores = consistency_average_precision(features, metadata, "mechanism", ["compound"])
    np.testing.assert_array_equal(scores["n_pos_pairs"], per_mechanism - 3)
    np.testing.assert_array_equal(scores["n_total_pairs"], 24 - 3)
    scores = consistency_average_precision(features, metadata, "mechanism", [])
    np.testing.assert_array_equal(scores["n_pos_pairs"], per_mechanism - 1)


def test_what_has_no_controls_is_told(plates):
    features, metadata, controls = plates
    first = controls & (metadata["plate"] != "p1").to_numpy()
    left = np.flatnonzero(first | ~controls)
    with pytest.raises(ValueError, match=r"plate p1 has no control \(1 of 3 have none\)"):
        activity_average_precision(features[left], metadata.iloc[left], ["compound"], controls[left], ["plate"], [])
    with pytest.raises(ValueError, match="0 of 42 rows are controls"):
        activity_average_precision(features, metadata, ["compound"], controls & False, ["plate"], [])
    with pytest.raises(ValueError, match="no two profiles are a positive pair"):
        activity_average_precision(features, metadata, ["well"], controls, ["plate"], [])


def test_a_null_may_hold_more_than_is_asked_for(plates):
    features, metadata, controls = plates
    scores = activity_average_precision(features, metadata, ["compound"], controls, ["plate"], [])
    null = draw_random_orders(scores, 100, 0, "permute")
    more = RandomOrder(
        np.concatenate([[[1, 3]], null.configurations]), np.concatenate([np.zeros((1, 100)), null.values])
    )
    pd.testing.assert_frame_equal(
        mean_average_precision(scores, metadata, ["compound"], more, True),
        mean_average_precision(scores, metadata, ["compound"], null, True),
    )


def test_a_null_of_other_numbers_is_told(plates):
    features, metadata, controls = plates
    scores = activity_average_precision(features, metadata, ["compound"], controls, ["plate"], [])
    other = RandomOrder(np.array([[2, 9]]), np.ones((1, 5)))
    with pytest.raises(ValueError, match="no draws for 2 positives of 8 pairs"):
        mean_average_precision(scores, metadata, ["compound"], other, True)
    with pytest.raises(ValueError, match="42 scores and 41 rows"):
        mean_average_precision(scores, metadata[1:], ["compound"], other, True)
    scores["average_precision"] = np.nan
    with pytest.raises(ValueError, match="no profile has an average precision"):
        mean_average_precision(scores, metadata, ["compound"], other, True)


@pytest.mark.parametrize("effect", [0.3, 0.6])
def test_p_values_and_q_values_are_those_of_copairs(tmp_path, effect):
    """Activity with the pairs of its tutorial, consistency with those of its example: 4 plates, 16 controls each."""
    copairs = pytest.importorskip("copairs.map")
    features, metadata, controls = make_plates(plates=4, treatments=20, controls=16, dim=12, effect=effect, seed=5)
    metadata["reference"] = np.where(controls, np.arange(len(metadata)), -1)

    theirs = copairs.average_precision(
        metadata,
        features,
        pos_sameby=["compound", "reference"],
        pos_diffby=[],
        neg_sameby=["plate"],
        neg_diffby=["compound", "reference"],
        progress_bar=False,
    )
    theirs = theirs[theirs["reference"] == -1]
    scores = activity_average_precision(features, metadata, ["compound"], controls, ["plate"], [])
    np.testing.assert_allclose(scores.loc[~controls, "average_precision"], theirs["average_precision"], atol=1e-6)
    same_as_copairs(scores, metadata, theirs, ["compound"], tmp_path / "activity")

    treated = np.flatnonzero(~controls)
    features, metadata = features[treated], metadata.iloc[treated].reset_index(drop=True)
    theirs = copairs.average_precision(
        metadata,
        features,
        pos_sameby=["mechanism"],
        pos_diffby=["compound"],
        neg_sameby=[],
        neg_diffby=["mechanism"],
        progress_bar=False,
    )
    scores = consistency_average_precision(features, metadata, "mechanism", ["compound"])
    np.testing.assert_allclose(scores["average_precision"], theirs["average_precision"], atol=1e-6)
    same_as_copairs(scores, metadata, theirs, ["mechanism"], tmp_path / "consistency")


def same_as_copairs(scores, metadata, theirs, by, cache):
    from copairs.map import mean_average_precision as reference

    table = reference(
        theirs, by, null_size=1000, threshold=0.05, seed=0, progress_bar=False, cache_dir=cache, max_workers=1
    )
    null = draw_random_orders(scores, 1000, 0, "permute")
    found = mean_average_precision(scores, metadata, by, null, False)
    table = table.sort_values(by).reset_index(drop=True)
    assert list(found[by[0]]) == list(table[by[0]])
    for column in (
        "mean_average_precision",
        "mean_normalized_average_precision",
        "p_value",
        "corrected_p_value",
    ):
        np.testing.assert_allclose(found[column], table[column], atol=1e-6, err_msg=column)

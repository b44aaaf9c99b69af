import itertools

import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.profiles import average_precision as module
from bie_jax.evaluation.profiles.average_precision import PairRule, average_precision, expected_average_precision

POSITIVE, NEGATIVE = PairRule(("compound",), ("plate",)), PairRule(("plate",), ("compound", "mechanism"))


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def loop(features, metadata, positive, negative):
    """AP as its definition says it, pair by pair."""
    rows = metadata.to_dict("records")

    def partners(i, rule):
        return [
            j
            for j in range(len(rows))
            if j != i
            and all(rows[i][c] == rows[j][c] for c in rule.same)
            and all(rows[i][c] != rows[j][c] for c in rule.different)
        ]

    scores = []
    for i in range(len(rows)):
        good, bad = partners(i, positive), partners(i, negative)
        ranked = sorted([(-cosine(features[i], features[j]), j in good) for j in good + bad])
        hits, precisions = 0, []
        for rank, (_, is_good) in enumerate(ranked, start=1):
            hits += is_good
            if is_good:
                precisions.append(hits / rank)
        scores.append((np.mean(precisions) if good and bad else np.nan, len(good), len(good) + len(bad)))
    return np.array(scores)


@pytest.mark.parametrize("rules", [(POSITIVE, NEGATIVE), (PairRule(("mechanism",), ()), PairRule((), ("mechanism",)))])
@pytest.mark.parametrize("held", [2**22, 100])
def test_average_precision_against_its_definition(plates, rules, held, monkeypatch):
    """In one block and in many; the index of the metadata says nothing about its order."""
    monkeypatch.setattr(module, "SIMILARITIES_HELD", held)
    features, metadata, _ = plates
    metadata.index = pd.Index(np.arange(len(metadata))[::-1])
    # One plate has a treatment of its own: it has negatives and no positive pair.
    metadata.iloc[3, metadata.columns.get_loc("compound")] = "lone"
    found = average_precision(features, metadata, *rules)
    expected = loop(features, metadata, *rules)
    np.testing.assert_allclose(found["average_precision"], expected[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(found[["n_pos_pairs", "n_total_pairs"]], expected[:, 1:])
    assert (found.index == metadata.index).all()
    if rules[0] == POSITIVE:
        assert np.isnan(found["average_precision"].iloc[3])
    lift = found["average_precision"] - found["expected_average_precision"]
    np.testing.assert_allclose(
        found["normalized_average_precision"], (lift / (1 - found["expected_average_precision"])).clip(-1), rtol=1e-12
    )


def test_a_collapsed_encoder_finds_nothing(plates):
    """All similarities tie: every negative stands before every positive, up to rounding of the norm."""
    _, metadata, _ = plates
    features = np.full((len(metadata), 7), 0.1) * np.random.default_rng(0).uniform(1, 2, size=(len(metadata), 1))
    found = average_precision(features, metadata, POSITIVE, NEGATIVE)
    for row in found.dropna().itertuples():
        negatives = row.n_total_pairs - row.n_pos_pairs
        worst = np.mean([k / (negatives + k) for k in range(1, row.n_pos_pairs + 1)])
        np.testing.assert_allclose(row.average_precision, worst)


def test_without_negatives_there_is_no_score():
    """One mechanism has a plate to itself."""
    metadata = pd.DataFrame({"compound": list("aabbcc"), "plate": list("ppppqq")})
    features = np.random.default_rng(0).normal(size=(6, 3))
    found = average_precision(features, metadata, PairRule(("compound",), ()), PairRule(("plate",), ("compound",)))
    np.testing.assert_array_equal(found["average_precision"].isna(), [False] * 4 + [True] * 2)
    np.testing.assert_array_equal(found["n_total_pairs"], [3, 3, 3, 3, 1, 1])


@pytest.mark.parametrize(("positives", "total"), [(1, 5), (2, 6), (3, 7), (4, 4), (1, 1)])
def test_expected_average_precision_is_the_mean_over_all_orders(positives, total):
    every = [
        np.mean([(k + 1) / (place + 1) for k, place in enumerate(places)])
        for places in itertools.combinations(range(total), positives)
    ]
    np.testing.assert_allclose(expected_average_precision(np.array(positives), np.array(total)), np.mean(every))


def test_what_has_no_pairs_is_told(plates):
    features, metadata, _ = plates
    with pytest.raises(ValueError, match=r"no two profiles are a positive pair: none agree in \(well\) and differ in"):
        average_precision(features, metadata, PairRule(("well",), ()), NEGATIVE)
    with pytest.raises(ValueError, match="no two profiles are a negative pair"):
        average_precision(features, metadata, POSITIVE, PairRule(("plate",), ("plate",)))
    features[8] = 0
    with pytest.raises(ValueError, match="1 profiles are 0 in every feature, the first is row 8"):
        average_precision(features, metadata, POSITIVE, NEGATIVE)
    features[8] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite, the first in row 8"):
        average_precision(features, metadata, POSITIVE, NEGATIVE)


@pytest.mark.parametrize("rules", [(POSITIVE, NEGATIVE), (PairRule(("mechanism",), ()), PairRule((), ("mechanism",)))])
def test_scores_are_those_of_copairs(plates, rules):
    copairs = pytest.importorskip("copairs.map")
    features, metadata, _ = plates
    positive, negative = rules
    theirs = copairs.average_precision(
        metadata,
        features,
        pos_sameby=list(positive.same),
        pos_diffby=list(positive.different),
        neg_sameby=list(negative.same),
        neg_diffby=list(negative.different),
        progress_bar=False,
    )
    found = average_precision(features, metadata, *rules)
    for column in ("average_precision", "normalized_average_precision", "n_pos_pairs", "n_total_pairs"):
        np.testing.assert_allclose(found[column], theirs[column], atol=1e-6, err_msg=column)


@pytest.mark.parametrize("held", [2**22, 100])
def test_those_that_are_asked_have_the_scores_that_they_have_among_all(plates, held, monkeypatch):
    monkeypatch.setattr(module, "SIMILARITIES_HELD", held)
    features, metadata, _ = plates
    asked = np.arange(len(metadata)) % 3 == 1
    every = average_precision(features, metadata, POSITIVE, NEGATIVE)
    some = average_precision(features, metadata, POSITIVE, NEGATIVE, asked)
    pd.testing.assert_frame_equal(some[asked], every[asked])
    assert some.loc[~asked, "average_precision"].isna().all()
    with pytest.raises(ValueError, match=r"asked must be \[42\] bool"):
        average_precision(features, metadata, POSITIVE, NEGATIVE, asked[:-1])

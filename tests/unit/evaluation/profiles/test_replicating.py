import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from bie_jax.evaluation.profiles.replicating import percent_replicating
from tests.unit.evaluation.profiles.conftest import make_plates


def test_medians_thresholds_and_p_values_against_loops():
    features, metadata, controls = make_plates(plates=4, treatments=20, dim=8, effect=0.7)
    # Treatments differ in their number of replicates, and one has none.
    left = np.delete(np.flatnonzero(~controls), [0, 1, 2])
    lone = metadata.index[metadata["compound"] == "c7"][1:]
    left = np.array([row for row in left if row not in lone])
    features, metadata = features[left], metadata.iloc[left]
    found = percent_replicating(features, metadata, ["compound"], 0.9, 200, 0)
    counts = metadata["compound"].value_counts()
    assert list(found.table["compound"]) == sorted(counts.index[counts > 1])
    assert set(found.null) == set(counts[counts > 1]) == {3, 4}
    above = 0
    for row in found.table.itertuples():
        of = features[(metadata["compound"] == row.compound).to_numpy()]
        pairs = [np.corrcoef(of[i], of[j])[0, 1] for i, j in itertools.combinations(range(len(of)), 2)]
        np.testing.assert_allclose(row.median_correlation, np.median(pairs), rtol=1e-5)
        draws = found.null[row.replicates]
        assert row.replicates == len(of)
        np.testing.assert_allclose(row.threshold, np.quantile(draws, 0.9))
        np.testing.assert_allclose(row.p_value, (1 + sum(draw >= row.median_correlation for draw in draws)) / 201)
        above += np.median(pairs) > np.quantile(draws, 0.9)
    np.testing.assert_allclose(found.share, above / len(found.table))
    np.testing.assert_allclose(found.chance, 0.1, atol=0.01)


def test_strangers_are_of_different_treatments():
    """Replicates are copies and treatments are orthogonal: no draw may hold two of one treatment."""
    basis = np.linalg.qr(np.hstack([np.ones((8, 1)), np.random.default_rng(0).normal(size=(8, 5))]))[0].T[1:]
    features = np.repeat(basis, [2, 3, 2, 4, 2], axis=0)
    metadata = pd.DataFrame({"compound": np.repeat(list("abcde"), [2, 3, 2, 4, 2])})
    found = percent_replicating(features, metadata, ["compound"], 0.95, 500, 0)
    for draws in found.null.values():
        np.testing.assert_allclose(draws, 0, atol=1e-12)
    np.testing.assert_allclose(found.table["median_correlation"], 1, rtol=1e-6)
    assert found.share == 1


def test_every_replicate_may_be_drawn():
    """One profile of either treatment is the same: a quarter of all pairs of strangers."""
    axes = np.linalg.qr(np.hstack([np.ones((8, 1)), np.random.default_rng(0).normal(size=(8, 3))]))[0].T[1:]
    metadata = pd.DataFrame({"compound": list("aabb")})
    null = percent_replicating(axes[[0, 1, 0, 2]], metadata, ["compound"], 0.95, 1000, 0).null[2]
    np.testing.assert_allclose((null > 0.5).mean(), 0.25, atol=0.05)


def test_a_collapsed_encoder_does_not_replicate():
    profile = np.random.default_rng(0).normal(size=7)
    features = profile * np.random.default_rng(1).uniform(1, 2, size=(12, 1))
    found = percent_replicating(features, pd.DataFrame({"compound": list("aaabbbcccddd")}), ["compound"], 0.95, 50, 0)
    assert (found.share, found.chance) == (0, 0)
    np.testing.assert_array_equal(found.table["p_value"], 1)


def test_p_values_without_any_effect_are_flat():
    """Kolmogorov-Smirnov against the uniform distribution, and no more replicate than chance has it."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(900, 16))
    metadata = pd.DataFrame({"compound": np.repeat(np.arange(300), 3)})
    found = percent_replicating(features, metadata, ["compound"], 0.95, 1000, 0)
    assert kstest(found.table["p_value"], "uniform").pvalue > 0.01
    assert found.share < 0.09


def test_what_cannot_be_told_apart_is_told(plates):
    features, metadata, _ = plates
    with pytest.raises(ValueError, match="compound dmso has 18 replicates, and there are 9 treatments"):
        percent_replicating(features, metadata, ["compound"], 0.95, 10, 0)
    with pytest.raises(ValueError, match="no treatment has two replicates: every row has well of its own"):
        percent_replicating(features, metadata, ["well"], 0.95, 10, 0)
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        percent_replicating(features, metadata, ["compound"], 95, 10, 0)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        percent_replicating(features, metadata, ["compound"], 0.95, 0, 0)


def test_medians_are_those_of_copairs(plates):
    replicating = pytest.importorskip("copairs.replicating")
    features, metadata, controls = plates
    treated = np.flatnonzero(~controls)
    features, metadata = features[treated], metadata.iloc[treated].reset_index(drop=True)
    theirs, _ = replicating.corr_between_replicates(features, metadata, ["compound"], [], progress_bar=False)
    found = percent_replicating(features, metadata, ["compound"], 0.95, 10, 0)
    np.testing.assert_allclose(found.table["median_correlation"], theirs["median"], atol=1e-6)

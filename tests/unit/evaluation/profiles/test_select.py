import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.profiles.select import (
    correlation_threshold,
    drop_missing,
    drop_outliers,
    variance_threshold,
)


def correlated(seed, rows=40, missing=0.0):
    """[rows, 12] with groups of features that go together, one of the opposite sign."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(rows, 4))
    features = base @ rng.normal(size=(4, 12)) + rng.uniform(0, 1.5, size=12) * rng.normal(size=(rows, 12))
    features[:, 5] = -features[:, 4] + 0.05 * rng.normal(size=rows)
    features[rng.random(features.shape) < missing] = np.nan
    return features


def test_missing_share_and_outliers_column_by_column():
    features = np.array([[1.0, np.nan, 9], [np.nan, np.nan, -501], [3, 4, 500], [5, 6, 7]])
    np.testing.assert_array_equal(drop_missing(features, 0.25), [True, False, True])
    np.testing.assert_array_equal(drop_missing(features, 0.24), [False, False, True])
    np.testing.assert_array_equal(drop_outliers(features, 500), [True, True, False])
    np.testing.assert_array_equal(drop_outliers(features, 501), [True, True, True])


def test_variance_is_over_the_known_values():
    features = np.array([[1.0, 0.3, 0], [3, 0.3, np.nan], [np.nan, 0.1 + 0.2, 0.1], [5, 0.3, 0.2]])
    unknown = np.full((4, 1), np.nan)
    np.testing.assert_array_equal(variance_threshold(np.hstack([features, unknown]), 0.0), [True, True, True, False])
    assert features[:, 1].var() > 0
    np.testing.assert_array_equal(variance_threshold(features, 0.0), [True, True, True])
    np.testing.assert_array_equal(variance_threshold(features, 0.02 / 3 - 1e-9), [True, False, True])
    np.testing.assert_array_equal(variance_threshold(features, 0.02 / 3 + 1e-9), [True, False, False])
    # The mean of equal values is off by rounding, and so is their variance.
    same = np.full((7, 1), 0.1)
    np.testing.assert_array_equal(variance_threshold(np.hstack([same, features[[0, 1, 3] * 2 + [0], :1]]), 0), [0, 1])
    with pytest.raises(ValueError, match=r"none of 3 feature columns has a variance above 9"):
        variance_threshold(features, 9)


def test_of_two_that_correlate_the_one_that_does_so_more_goes():
    features = correlated(0)
    kept = correlation_threshold(features, 0.7)
    correlation = np.corrcoef(features, rowvar=False)
    total = [sum(abs(correlation[i, j]) for j in range(12)) for i in range(12)]
    gone = {i if total[i] > total[j] else j for i in range(12) for j in range(i) if correlation[i, j] > 0.7}
    assert set(np.flatnonzero(~kept)) == gone
    assert 0 < len(gone) < 12
    assert correlation_threshold(-features[:, [4]] * [[1, -1]], 0.5).all()


def test_a_constant_feature_correlates_with_nothing():
    features = correlated(0)
    features[:, 3] = 2.0
    kept = correlation_threshold(features, 0.7)
    others = np.arange(12) != 3
    assert kept[3]
    np.testing.assert_array_equal(kept[others], correlation_threshold(features[:, others], 0.7))


@pytest.mark.parametrize(
    ("select", "value", "words"),
    [
        (drop_missing, 1.5, r"in \[0, 1\], got 1.5"),
        (variance_threshold, -1.0, "at least 0, got -1"),
        (correlation_threshold, 2.0, r"in \[0, 1\], got 2"),
        (drop_outliers, 0.01, "stays within 0.01 of 0"),
    ],
)
def test_a_threshold_that_cannot_be_is_told(select, value, words):
    with pytest.raises(ValueError, match=words):
        select(correlated(0), value)


@pytest.mark.parametrize("missing", [0.0, 0.06])
@pytest.mark.parametrize(
    ("select", "value", "operation", "argument"),
    [
        (drop_missing, 0.05, "drop_na_columns", "na_cutoff"),
        (variance_threshold, 3.0, "variance_threshold", "min_variance"),
        (correlation_threshold, 0.6, "correlation_threshold", "corr_threshold"),
        (correlation_threshold, 0.8, "correlation_threshold", "corr_threshold"),
        (drop_outliers, 6.0, "drop_outliers", "outlier_cutoff"),
    ],
)
def test_columns_are_those_of_pycytominer(select, value, operation, argument, missing):
    pycytominer = pytest.importorskip("pycytominer")
    names = [f"f{d}" for d in range(12)]
    features = correlated(1, missing=missing)
    table = pd.DataFrame(features, columns=pd.Index(names))
    theirs = pycytominer.feature_select(table, features=names, operation=operation, **{argument: value})
    kept = select(features, value)
    assert [name for name, stays in zip(names, kept) if stays] == list(theirs)
    assert kept.all() == (operation == "drop_na_columns" and missing == 0)

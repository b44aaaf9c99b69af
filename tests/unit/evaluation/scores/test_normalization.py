import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.scores.normalization import normalizations, standardize, standardize_per_plate


@pytest.fixture
def plates():
    return np.random.default_rng(0).permutation(np.repeat(np.array(["p", "q", "r"]), (5, 8, 3)))


def test_each_plate_is_standardized_by_itself(plates):
    """Against pandas, one plate and column at a time; rows keep their order."""
    features = np.random.default_rng(1).normal(loc=900, scale=50, size=(16, 4)).astype(np.float32)
    table = pd.DataFrame(features.astype(np.float64))
    expected = table.groupby(plates).transform(lambda column: (column - column.mean()) / column.std(ddof=0))
    np.testing.assert_allclose(standardize_per_plate(features, plates), expected, atol=1e-9)


def test_a_constant_column_becomes_0(plates):
    features = np.random.default_rng(1).normal(size=(16, 3))
    features[:, 1] = 0.1
    features[plates == "q", 2] = -7.0
    got = standardize_per_plate(features, plates)
    assert (got[:, 1] == 0).all()
    assert (got[plates == "q", 2] == 0).all()
    assert (got[plates != "q", 2] != 0).all()
    lone = standardize_per_plate(features, np.where(np.arange(16) == 3, "s", plates))
    assert (lone[3] == 0).all()
    # Equal up to the last bit is constant: rounding must not be blown up to unit size.
    rounded = np.where(np.arange(20) % 2 == 0, 0.3, 0.1 + 0.2)[:, None]
    assert rounded.std() > 0
    assert (standardize(rounded) == 0).all()


def test_images_that_are_not_fitted_move_no_mean(plates):
    features = np.random.default_rng(1).normal(size=(16, 4))
    fitted = np.ones(16, bool)
    fitted[[np.flatnonzero(plates == "p")[0], np.flatnonzero(plates == "r")[1]]] = False
    before = standardize_per_plate(features, plates, fitted)
    spoilt = features.copy()
    spoilt[~fitted] = 1e6
    after = standardize_per_plate(spoilt, plates, fitted)
    np.testing.assert_array_equal(after[fitted], before[fitted])
    rows = (plates == "p") & fitted
    expected = (features[~fitted][0] - features[rows].mean(axis=0)) / features[rows].std(axis=0)
    np.testing.assert_allclose(before[~fitted][0], expected)
    with pytest.raises(ValueError, match="plate r has no image left"):
        standardize_per_plate(features, plates, plates != "r")


def test_one_plate_has_no_second_normalization(plates):
    assert normalizations(plates) == ("raw", "per_plate")
    assert normalizations(plates[plates == "p"]) == ("raw",)

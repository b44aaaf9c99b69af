import numpy as np

from bie_jax.evaluation.feature_set import without_broken
from tests.unit.evaluation.layouts import feature_set


def test_hand_made_features_that_are_no_numbers_cost_no_other_score():
    whole = feature_set(np.zeros((3, 2)), "whole")
    broken = feature_set(np.array([[0, 1], [np.nan, 1], [0, np.inf]]), "broken")
    kept, notes = without_broken([whole, broken])
    assert [one.key for one in kept] == ["whole"]
    assert notes == ["broken is not scored: 2 of 3 rows hold NaN or infinity, the first is row 1."]

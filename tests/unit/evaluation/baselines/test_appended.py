import numpy as np

from bie_jax.evaluation.baselines.appended import appended_columns
from tests.unit.evaluation.layouts import feature_set


def test_appended_columns_stand_alone_and_beside_what_was_made_by_hand():
    hand_made = feature_set(np.zeros((4, 3)), "classical")
    alone, beside = appended_columns([hand_made], np.arange(8.0).reshape(4, 2), ("area_px", "dose"))
    np.testing.assert_array_equal(alone.features, np.arange(8).reshape(4, 2))
    np.testing.assert_array_equal(beside.features, np.c_[np.zeros((4, 3)), alone.features])
    assert "area_px, dose" in alone.description
    assert appended_columns([hand_made], np.zeros((4, 0)), ()) == []
    assert [one.key for one in appended_columns([], np.zeros((4, 1)), ("dose",))] == ["appended"]

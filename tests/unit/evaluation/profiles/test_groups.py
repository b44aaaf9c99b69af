import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.profiles.groups import group_rows


def test_rows_that_agree_in_all_columns_are_a_group():
    metadata = pd.DataFrame({"plate": ["q", "p", "q", "p", "q"], "well": [2, 1, 2, 3, 1]}, index=[9, 9, 4, 4, 0])
    groups = group_rows(metadata, ["plate", "well"])
    assert groups.names == ["plate p, well 1", "plate p, well 3", "plate q, well 1", "plate q, well 2"]
    np.testing.assert_array_equal(groups.codes, [3, 0, 3, 1, 2])
    np.testing.assert_array_equal(groups.first, [1, 3, 4, 0])
    assert [rows.tolist() for rows in groups.rows()] == [[1], [3], [4], [0, 2]]
    assert [rows.tolist() for rows in group_rows(metadata, []).rows()] == [[0, 1, 2, 3, 4]]
    many = pd.DataFrame({"plate": np.arange(1000) % 3})
    assert all((np.diff(rows) == 3).all() for rows in group_rows(many, ["plate"]).rows())


def test_no_row_is_lost_in_silence():
    metadata = pd.DataFrame({"plate": ["p", None, "q"]})
    with pytest.raises(ValueError, match="plate has no value in 1 of 3 rows, the first is row 1"):
        group_rows(metadata, ["plate"])
    with pytest.raises(ValueError, match="no column 'Plate' in the metadata, which has plate"):
        group_rows(metadata, ["Plate"])
    with pytest.raises(ValueError, match="no rows"):
        group_rows(metadata[:0], [])

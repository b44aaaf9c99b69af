import numpy as np
import pandas as pd

from bie_jax.evaluation.report.map import color_columns, sample_points


def test_color_columns_keep_numbers_in_order_and_gaps_named():
    metadata = pd.DataFrame(
        {
            "label": ["x", "y", "x"],
            "plate": ["p"] * 3,
            "site": [10, 9, 10],
            "batch": ["u", None, "v"],
            "dose": [0.5, 1, 2],
        }
    )
    columns = {column["name"]: column for column in color_columns(metadata, "label", "")}
    assert columns["site"]["categories"] == ["9", "10"]
    assert columns["batch"]["categories"] == ["", "u", "v"]
    assert columns["batch"]["codes"] == [1, 0, 2]
    assert columns["label"]["neutral"] == -1
    assert "dose" not in columns


def test_shown_images_are_a_seeded_sample():
    np.testing.assert_array_equal(sample_points(5, 5, 0), np.arange(5))
    some = sample_points(100, 10, 0)
    assert len(set(some)) == 10
    assert (np.diff(some) > 0).all()
    np.testing.assert_array_equal(some, sample_points(100, 10, 0))

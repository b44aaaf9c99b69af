"""The names of columns, and what HDF5 cannot hold; the file itself is written and read in `tests/evaluation`."""

import pandas as pd
import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.input.columns import embedding_columns, h5ad_name

ROW = {"plate": ["P"], "well": ["B02"], "site": [1], "label": [""], "source": ["a"]}


def test_names():
    table = embedding_columns(pd.DataFrame(ROW | {"moa/target": ["x"]}))
    assert list(table.columns) == [
        "Metadata_Plate",
        "Metadata_Well",
        "Metadata_Site",
        "Metadata_label",
        "Metadata_source",
        "Metadata_moa/target",
    ]
    assert h5ad_name("Metadata_moa/target") == "Metadata_moa_target"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"Plate": ["p"]}, "columns 'plate', 'Plate' would both be 'Metadata_Plate'"),
        ({"split": ["mine"]}, "columns 'split' and the split would both be 'Metadata_split'"),
        ({"a/b": [1], "a_b": [2]}, "columns 'a/b', 'a_b' would both be 'Metadata_a_b'"),
        ({"gene": ["x\0y"]}, "column 'gene' holds a NUL character in row 0"),
    ],
)
def test_what_would_be_lost_is_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        embedding_columns(pd.DataFrame(ROW | more))

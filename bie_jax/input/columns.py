"""The columns of a table of embeddings: what is known of each image, under the names that pycytominer looks for."""

import collections

import numpy as np
import pandas as pd

from bie_jax.config.schema import ConfigError

# Columns that pycytominer and its kin look for; every other column of a set keeps its own name.
_METADATA_NAMES = {"plate": "Metadata_Plate", "well": "Metadata_Well", "site": "Metadata_Site"}
SPLIT = "Metadata_split"  # the side of the encoder's own training, one of the next four
TRAIN, VAL, HELD_OUT = "train", "val", "held_out"
NEW = "new"  # of a set that the encoder was not trained on


def embedding_columns(metadata: pd.DataFrame) -> pd.DataFrame:
    """A set's table as it stands beside embeddings, without the split.

    Raises:
        ConfigError: for two columns that become one, and for text with a NUL, which HDF5 would cut off; both before
            anything is trained.
    """
    names = [_METADATA_NAMES.get(name, f"Metadata_{name}") for name in metadata.columns]
    for taken in (names, [h5ad_name(name) for name in names]):
        twice = [name for name, count in collections.Counter([*taken, SPLIT]).items() if count > 1]
        if twice:
            name = twice[0]
            own = [column for column, other in zip(metadata.columns, taken, strict=True) if other == name]
            raise ConfigError(
                f"the set's columns {', '.join(map(repr, own))}{' and the split' * (name == SPLIT)} would both be "
                f"{name!r} of the embeddings: build the set again with another name for one of them"
            )
    for name, values in metadata.items():
        if values.dtype == object and values.astype(str).str.contains("\0", regex=False).any():
            row = int(np.flatnonzero(values.astype(str).str.contains("\0", regex=False))[0])
            raise ConfigError(
                f"the set's column {name!r} holds a NUL character in row {row}, which no HDF5 file can: build the set "
                "again without it"
            )
    return metadata.set_axis(names, axis="columns").reset_index(drop=True)


def h5ad_name(name: str) -> str:
    """The same of an HDF5 file, in which a slash would begin another group."""
    return name.replace("/", "_")

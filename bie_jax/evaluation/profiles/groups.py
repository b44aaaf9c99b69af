"""Rows of a metadata table that belong together: a well, a plate, a treatment."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Groups(NamedTuple):
    """Which group each row is of.

    Attributes:
        codes: [N] int64 in [0, G), groups in the sorted order of their values.
        names: G names for messages, as "plate p1, well A01".
        first: [G] int64, the first row of each group.
    """

    codes: np.ndarray
    names: list[str]
    first: np.ndarray

    def rows(self) -> list[np.ndarray]:
        """The rows of each group, ascending: G arrays."""
        order = np.argsort(self.codes, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.codes, minlength=len(self.names)))[:-1])


def group_rows(metadata: pd.DataFrame, columns: Sequence[str]) -> Groups:
    """Rows that agree in all of the columns are a group; without columns, all rows are one.

    Raises:
        ValueError: no rows, a column that is not there, or rows without a value in it. Nothing is dropped in silence.
    """
    if not len(metadata):
        raise ValueError("the metadata has no rows, so there is nothing to group")
    for column in columns:
        if column not in metadata.columns:
            raise ValueError(f"no column {column!r} in the metadata, which has {', '.join(map(str, metadata.columns))}")
        missing = metadata[column].isna().to_numpy()
        if missing.any():
            raise ValueError(
                f"column {column} has no value in {int(missing.sum())} of {len(metadata)} rows, the first is row "
                f"{int(missing.argmax())}; leave out those rows or name their value"
            )
    if not columns:
        return Groups(np.zeros(len(metadata), dtype=np.int64), ["all rows"], np.zeros(1, dtype=np.int64))
    codes = metadata.groupby(list(columns), sort=True, observed=True).ngroup().to_numpy(dtype=np.int64)
    first = np.unique(codes, return_index=True)[1]
    values = metadata[list(columns)].iloc[first].to_numpy(dtype=object)
    names = [", ".join(f"{column} {value}" for column, value in zip(columns, row)) for row in values]
    return Groups(codes, names, first)

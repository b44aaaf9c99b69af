"""From many rows to one: images or cells to a well, wells to a treatment."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_choice, check_features
from bie_jax.evaluation.profiles.groups import group_rows

Statistic = Literal["mean", "median"]


class Profiles(NamedTuple):
    """One row for each group.

    Attributes:
        features: [G, D] float64.
        metadata: G rows: the columns grouped by, then those kept.
        sizes: [G] int64, how many rows each was made of.
    """

    features: np.ndarray
    metadata: pd.DataFrame
    sizes: np.ndarray


def aggregate(
    features: np.ndarray, metadata: pd.DataFrame, by: Sequence[str], keep: Sequence[str], statistic: Statistic
) -> Profiles:
    """Mean or median of each feature over the rows that agree in the columns `by`.

    NaN is left out of a mean or median; where a group has nothing else, it stays NaN. The numbers and the order of the
    groups are those of pycytominer 1.7.1 (`aggregate`, `consensus`). Two differences: rows without a value in `by` are
    refused, where pycytominer makes a group of them, and other columns are kept where they can be.

    Args:
        features: [N, D]; NaN allowed.
        metadata: N rows.
        by: columns that name a group, at least one: ("plate", "well"), then ("compound", "concentration").
        keep: more columns to take along; each must have one value in every group.
        statistic: "mean" or "median".

    Raises:
        ValueError: a column that is not there or has no value, or a kept column with two values in a group (named).
    """
    check_choice(statistic, ("mean", "median"), "statistic")
    if not by:
        raise ValueError("name at least one column to aggregate by, such as plate and well")
    features = check_features(features, len(metadata), missing=True)
    groups = group_rows(metadata, by)
    for column in keep:
        if column not in metadata.columns:
            raise ValueError(f"no column {column!r} in the metadata, which has {', '.join(map(str, metadata.columns))}")
        # A missing value is a code of its own here: a group must be without one as a whole, or not at all.
        values = pd.factorize(metadata[column])[0]
        mixed = np.flatnonzero(values != values[groups.first][groups.codes])
        if len(mixed):
            raise ValueError(
                f"column {column} has several values in {groups.names[groups.codes[mixed[0]]]}; aggregate by it too, "
                "or do not keep it"
            )
    grouped = pd.DataFrame(features).groupby(groups.codes, sort=True)
    table = grouped.median() if statistic == "median" else grouped.mean()
    columns = list(dict.fromkeys([*by, *keep]))
    return Profiles(
        table.to_numpy(dtype=np.float64),
        metadata[columns].iloc[groups.first].reset_index(drop=True),
        np.bincount(groups.codes),
    )

"""Mean average precision of a treatment or a mechanism, beside what chance would give."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from bie_jax.evaluation.profiles.groups import group_rows
from bie_jax.evaluation.profiles.random_order import RandomOrder


def mean_average_precision(
    scores: pd.DataFrame, metadata: pd.DataFrame, by: Sequence[str], null: RandomOrder, count_ties: bool
) -> pd.DataFrame:
    """The mean over the profiles of each group, with p-values and Benjamini-Hochberg q-values over all groups.

    As in copairs 0.5.5 (`map.mean_average_precision`), a draw of the null is the mean over a group's profiles of one
    draw each, and profiles with the same numbers of pairs share theirs; `p = (draws above the mean + 1) / (size + 1)`.

    Args:
        scores: N rows, as `average_precision` gives them; rows without a score are left out.
        metadata: the same N rows.
        by: columns that name a group: those of the treatment, or of the mechanism.
        null: of these scores, or of other features of the same rows.
        count_ties: whether a draw that equals the mean counts as above it. False is what copairs does: a perfect score
            then has the smallest p-value that there is, however few pairs it rests on. True keeps the share of
            p-values below any bound within that bound where the draws are right.

    Returns:
        One row a group, sorted: the columns `by`, `profiles` (how many had a score), `mean_average_precision`,
        `expected_average_precision` (the mean of random orders), `mean_normalized_average_precision`, `p_value`,
        `corrected_p_value`.

    Raises:
        ValueError: scores and metadata of different lengths, no row with a score, or a null of other numbers of pairs.
    """
    if len(scores) != len(metadata):
        raise ValueError(f"there are {len(scores)} scores and {len(metadata)} rows of metadata; they must be the same")
    scored = np.flatnonzero(scores["average_precision"].notna())
    if not len(scored):
        raise ValueError("no profile has an average precision: each needs a positive and a negative pair")
    scores, metadata = scores.iloc[scored], metadata.iloc[scored]
    draw_of_row = _place(scores[["n_pos_pairs", "n_total_pairs"]].to_numpy(dtype=np.int64), null)
    size = null.values.shape[1]
    groups = group_rows(metadata, by)
    columns = ["average_precision", "expected_average_precision", "normalized_average_precision"]
    means = scores[columns].groupby(groups.codes).mean().to_numpy()

    p_values = np.empty(len(means))
    # A mean is exact up to rounding, and so is that of a draw with the same places.
    margin = -1e-9 if count_ties else 1e-9
    for group, rows in enumerate(groups.rows()):
        drawn, counts = np.unique(draw_of_row[rows], return_counts=True)
        draws = counts @ null.values[drawn] / len(rows)
        p_values[group] = ((draws > means[group, 0] + margin).sum() + 1) / (size + 1)

    table = metadata[list(by)].iloc[groups.first].reset_index(drop=True)
    table["profiles"] = np.bincount(groups.codes)
    table["mean_average_precision"], table["expected_average_precision"] = means[:, 0], means[:, 1]
    table["mean_normalized_average_precision"] = means[:, 2]
    table["p_value"] = p_values
    table["corrected_p_value"] = false_discovery_control(p_values, method="bh")
    return table


def _place(pairs: np.ndarray, null: RandomOrder) -> np.ndarray:
    """[N] the row of the null that has each row's numbers of pairs."""
    names = [tuple(configuration) for configuration in null.configurations.tolist()]
    row_of = {name: row for row, name in enumerate(names)}
    kinds, kind_of_row = np.unique(pairs, axis=0, return_inverse=True)
    missing = [tuple(kind) for kind in kinds.tolist() if tuple(kind) not in row_of]
    if missing:
        raise ValueError(
            f"the null has no draws for {missing[0][0]} positives of {missing[0][1]} pairs; draw it of these scores"
        )
    return np.array([row_of[tuple(kind)] for kind in kinds.tolist()])[kind_of_row.ravel()]

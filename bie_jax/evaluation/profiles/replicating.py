"""Percent replicating: the share of treatments whose replicates resemble each other more than strangers do."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_features
from bie_jax.evaluation.profiles.cosine import unit_rows
from bie_jax.evaluation.profiles.groups import group_rows


class Replicating(NamedTuple):
    """What `percent_replicating` finds.

    Attributes:
        share: of the treatments whose median correlation is above the threshold of their null, in [0, 1].
        chance: the share that the null itself has above the threshold, 1 - quantile but for ties.
        table: one row a treatment of at least two replicates, sorted: its columns, `replicates`, `median_correlation`,
            `threshold`, `p_value`.
        null: for each number of replicates, [size] float64 sorted, median correlations of as many strangers.
    """

    share: float
    chance: float
    table: pd.DataFrame
    null: dict[int, np.ndarray]


def percent_replicating(
    features: np.ndarray, metadata: pd.DataFrame, treatment: Sequence[str], quantile: float, size: int, seed: int
) -> Replicating:
    """Median correlation of all pairs of replicates, against that of as many profiles of different treatments.

    Way et al. 2022 (doi 10.1016/j.cels.2022.10.001): a treatment replicates where its median Pearson correlation is
    above the 95th percentile of the null. The null of a number of replicates r are `size` draws of r different
    treatments, one profile of each, so that a draw has as many pairs, of profiles as much shared, as a treatment has.
    `p = (draws at least as high + 1) / (size + 1)`.

    Args:
        features: [N, D] finite, D at least 2, no profile constant; wells, controls left out (r^2 numbers are held).
        metadata: N rows.
        treatment: columns that name a treatment.
        quantile: of the null, in (0, 1): 0.95 in the paper.
        size: draws for each number of replicates, at least 1.
        seed: of the draws.

    Raises:
        ValueError: a quantile or size that cannot be, no treatment with two replicates, or fewer treatments than
            replicates of one.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must be between 0 and 1, got {quantile}; the paper's is 0.95")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    features = check_features(features, len(metadata), missing=False)
    # The cosine of profiles around their own mean is Pearson's correlation.
    unit = unit_rows(features - features.mean(axis=1, keepdims=True), len(metadata))
    groups = group_rows(metadata, treatment)
    members = groups.rows()
    counts = np.bincount(groups.codes)
    chosen = np.flatnonzero(counts > 1)
    if not len(chosen):
        raise ValueError(f"no treatment has two replicates: every row has {', '.join(treatment)} of its own")
    if counts.max() > len(members):
        raise ValueError(
            f"{groups.names[counts.argmax()]} has {counts.max()} replicates, and there are {len(members)} treatments: "
            "as many strangers cannot be drawn; leave out controls"
        )
    order, start = np.concatenate(members), np.concatenate([[0], np.cumsum(counts)[:-1]])
    rng = np.random.default_rng(seed)
    null = {}
    for replicates in np.unique(counts[chosen]).tolist():
        draws = np.empty(size)
        for draw in range(size):
            strangers = rng.choice(len(members), replicates, replace=False)
            draws[draw] = _median_of_pairs(unit[order[start[strangers] + rng.integers(counts[strangers])]])
        null[replicates] = np.sort(draws)

    found = np.array([_median_of_pairs(unit[members[group]]) for group in chosen])
    thresholds = {replicates: np.quantile(draws, quantile) for replicates, draws in null.items()}
    of_each = counts[chosen].tolist()
    threshold = np.array([thresholds[replicates] for replicates in of_each])
    higher = np.array([size - np.searchsorted(null[r], value, side="left") for r, value in zip(of_each, found)])
    table = metadata[list(treatment)].iloc[groups.first[chosen]].reset_index(drop=True)
    table["replicates"], table["median_correlation"] = of_each, found
    table["threshold"], table["p_value"] = threshold, (higher + 1) / (size + 1)
    above = [(null[replicates] > thresholds[replicates]).mean() for replicates in of_each]
    return Replicating(float((found > threshold).mean()), float(np.mean(above)), table, null)


def _median_of_pairs(unit: np.ndarray) -> float:
    """Of profiles [r, D] of unit length, over all r (r - 1) / 2 pairs; in float32, in which equal profiles tie."""
    return float(np.median((unit @ unit.T).astype(np.float32)[np.triu_indices(len(unit), k=1)]))

"""Is the treatment nearest to a treatment, of another compound, of the same mechanism?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.cosine import SIMILARITIES_HELD, unit_rows
from bie_jax.evaluation.profiles.groups import group_rows


class NearestMechanism(NamedTuple):
    """What `nearest_mechanism` finds.

    Attributes:
        accuracy: share of the treatments that can be matched whose nearest one has their mechanism, in [0, 1].
        chance: the same where the nearest one is any that is allowed, in [0, 1].
        treatments: how many can be matched: their mechanism occurs among those that they are compared with.
        without_match: how many cannot, and are left out of both.
        nearest: [N] int64, row of the nearest treatment, the first of several; -1 where none is allowed.
        correct: [N] float64, share of the nearest (several where they tie) that have the mechanism; NaN without match.
    """

    accuracy: float
    chance: float
    treatments: int
    without_match: int
    nearest: np.ndarray
    correct: np.ndarray


def nearest_mechanism(
    features: np.ndarray, metadata: pd.DataFrame, mechanism: str, across: Sequence[str]
) -> NearestMechanism:
    """1-NN of mechanisms by cosine similarity, among treatments that differ in all columns `across`.

    With the compound's column this is not-same-compound (NSC) of Ljosa et al. 2013 (doi 10.1177/1087057113503553); with
    those of the compound and the batch it is not-same-compound-or-batch (NSCB), for which treatments of mechanisms that
    were in one batch alone are left out, as Ando, McLean and Berndl 2017 (bioRxiv 161422) do. Of several nearest ones
    (equal in float32) each counts in part, so that a collapsed encoder is right as often as chance. Compared in blocks.

    Args:
        features: [N, D] finite, one row a treatment, controls left out; no column may say what the compound is.
        metadata: N rows.
        mechanism: column with the mechanism.
        across: columns in which two treatments must differ, at least one.

    Raises:
        ValueError: no column to differ in, or no treatment that can be matched.
    """
    if not across:
        raise ValueError("name at least one column in which the nearest treatment must differ, such as the compound")
    unit = unit_rows(features, len(metadata))
    kinds = group_rows(metadata, [mechanism]).codes
    apart = [group_rows(metadata, [column]).codes for column in across]
    count = len(unit)
    nearest, correct, chance = np.full(count, -1), np.full(count, np.nan), np.full(count, np.nan)
    step = max(1, SIMILARITIES_HELD // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        similarity = (unit[rows] @ unit.T).astype(np.float32)
        for codes in apart:
            similarity[codes[rows][:, None] == codes] = -np.inf
        allowed = np.isfinite(similarity)
        alike = allowed & (kinds[rows][:, None] == kinds)
        closest = allowed & (similarity == similarity.max(axis=1, keepdims=True))
        nearest[rows] = np.where(allowed.any(axis=1), closest.argmax(axis=1), -1)
        matched = alike.any(axis=1)
        chance[rows[matched]] = alike[matched].sum(axis=1) / allowed[matched].sum(axis=1)
        correct[rows[matched]] = (closest & alike)[matched].sum(axis=1) / closest[matched].sum(axis=1)
    scored = ~np.isnan(correct)
    if not scored.any():
        raise ValueError(f"no two treatments of one {mechanism} differ in {', '.join(across)}: nothing can be matched")
    return NearestMechanism(
        float(correct[scored].mean()),
        float(chance[scored].mean()),
        int(scored.sum()),
        int(count - scored.sum()),
        nearest,
        correct,
    )

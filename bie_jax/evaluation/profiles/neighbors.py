"""The treatments most like each treatment, and the pairs that are most alike of all."""

from typing import NamedTuple

import numpy as np

from bie_jax.evaluation.first_largest import first_largest
from bie_jax.evaluation.profiles.cosine import SIMILARITIES_HELD, unit_rows


class NearestProfiles(NamedTuple):
    """For each profile the k most similar others, the most similar first.

    Attributes:
        rows: [N, k] int64.
        similarity: [N, k] float64, cosine.
    """

    rows: np.ndarray
    similarity: np.ndarray


def nearest_profiles(features: np.ndarray, k: int) -> NearestProfiles:
    """The k nearest other profiles of each by cosine similarity, compared in blocks; of equal ones the first.

    Args:
        features: [N, D] finite, no profile of zeros.
        k: neighbors, at least 1; no more than N - 1 are found.

    Raises:
        ValueError: a single profile, no neighbor asked for, or what `unit_rows` refuses.
    """
    unit = unit_rows(features, len(features))
    count = len(unit)
    if count < 2 or k < 1:
        raise ValueError(f"{k} neighbors among {count} profiles: at least one of at least two can be found")
    k = min(k, count - 1)
    rows, similarity = np.empty((count, k), dtype=np.int64), np.empty((count, k))
    step = max(1, SIMILARITIES_HELD // count)
    for start in range(0, count, step):
        block = np.arange(start, min(start + step, count))
        product = unit[block] @ unit.T
        product[np.arange(len(block)), block] = -np.inf
        rows[block] = first_largest(product, k)
        similarity[block] = np.take_along_axis(product, rows[block], axis=1)
    return NearestProfiles(rows, similarity)


class Pairs(NamedTuple):
    """Pairs of profiles, the most similar first.

    Attributes:
        rows: [P, 2] int64, each pair once, the smaller row first.
        similarity: [P] float64, cosine.
    """

    rows: np.ndarray
    similarity: np.ndarray


def most_similar_pairs(nearest: NearestProfiles, most: int) -> Pairs:
    """The pairs of greatest similarity, as far as they are among the nearest of one of their two.

    Args:
        nearest: of all profiles; a pair of two that have k more similar others each is not found.
        most: pairs, at least 1.
    """
    count, k = nearest.rows.shape
    pairs = np.sort(np.stack([np.repeat(np.arange(count), k), nearest.rows.ravel()], axis=1), axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    similarity = nearest.similarity.ravel()[first]
    order = np.argsort(-similarity, kind="stable")[:most]
    return Pairs(pairs[order], similarity[order])

"""Average precision: how far up the list of its neighbors a profile finds those of its own kind."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_rows
from bie_jax.evaluation.profiles.cosine import SIMILARITIES_HELD, unit_rows
from bie_jax.evaluation.profiles.groups import group_rows


class PairRule(NamedTuple):
    """Which two profiles are a pair: all columns `same` agree and all columns `different` differ."""

    same: tuple[str, ...]
    different: tuple[str, ...]


def average_precision(
    features: np.ndarray,
    metadata: pd.DataFrame,
    positive: PairRule,
    negative: PairRule,
    asked: np.ndarray | None = None,
) -> pd.DataFrame:
    """The average precision of every profile's positive pairs among its negative ones, by cosine similarity.

    `AP = 1/M sum_k k / (k + negatives at least as similar as the k-th positive)`, of M positives from the most similar
    down: Kalinin et al. 2025 (doi 10.1038/s41467-025-60306-2), as copairs 0.5.5 computes it (`map.average_precision`,
    cosine), with its names of columns. Similarities are computed in float64 and compared in float32, in blocks: memory
    grows with N, not with N squared. Two differences. A negative that is exactly as similar as a positive stands before
    it, where copairs puts it behind, so that a collapsed encoder finds nothing. A profile without negatives has no
    average precision, where copairs says 1.

    Args:
        features: [N, D] finite, no profile of zeros.
        metadata: N rows, with values in all columns of the rules.
        positive: pairs that should be similar.
        negative: pairs that should not.
        asked: [N] bool, profiles that get a score, each against all N; time grows with their number. None: all.

    Returns:
        N rows with the index of `metadata`: `average_precision`, float64 in (0, 1], NaN without positives or without
        negatives, or where nobody asked; `expected_average_precision` of a random order (`expected_average_precision`);
        `normalized_average_precision`, (AP - expected) / (1 - expected), at least -1; `n_pos_pairs`,
        `n_total_pairs`, int64.

    Raises:
        ValueError: no profile that is asked has a positive pair, or none has a negative one.
    """
    unit = unit_rows(features, len(metadata))
    asked = np.ones(len(unit), dtype=bool) if asked is None else check_rows(asked, len(unit), "asked")
    alike, against = group_rows(metadata, positive.same), group_rows(metadata, negative.same)
    positive_members = alike.rows()
    apart = [group_rows(metadata, [column]).codes for column in positive.different]
    unlike = [group_rows(metadata, [column]).codes for column in negative.different]

    score = np.full(len(unit), np.nan)
    positives, negatives = np.zeros(len(unit), dtype=np.int64), np.zeros(len(unit), dtype=np.int64)
    for members in against.rows():
        # Profiles with the same positives stand beside each other and are compared with them at once.
        members = members[np.argsort(alike.codes[members], kind="stable")]
        asking = members[asked[members]]
        if not len(asking):
            continue
        candidates = unit[members]
        widest = max(len(members), *(len(positive_members[code]) for code in np.unique(alike.codes[asking])))
        step = max(1, SIMILARITIES_HELD // widest)
        for start in range(0, len(asking), step):
            queries = asking[start : start + step]
            against_them = _similarities(unit[queries], candidates, queries, members, unlike)
            negatives[queries] = np.isfinite(against_them).sum(axis=1)
            bounds = np.flatnonzero(np.diff(alike.codes[queries])) + 1
            for part in np.split(np.arange(len(queries)), bounds):
                others = positive_members[alike.codes[queries[part[0]]]]
                to_them = _similarities(unit[queries[part]], unit[others], queries[part], others, apart)
                for query, row, found in zip(queries[part], against_them[part], to_them):
                    found = np.sort(found[np.isfinite(found)])[::-1]
                    positives[query] = len(found)
                    if len(found) and negatives[query]:
                        # Those behind the last positive have no part in the score: most need not be sorted.
                        nearer = np.sort(row[row >= found[-1]])
                        before = len(nearer) - np.searchsorted(nearer, found, side="left")
                        rank = np.arange(1, len(found) + 1)
                        score[query] = (rank / (rank + before)).mean()
    if not positives.any():
        raise ValueError(f"no two profiles are a positive pair: none agree in {_words(positive)}")
    if not negatives.any():
        raise ValueError(f"no two profiles are a negative pair: none agree in {_words(negative)}")
    expected = expected_average_precision(positives, positives + negatives)
    expected[np.isnan(score)] = np.nan
    return pd.DataFrame(
        {
            "average_precision": score,
            "expected_average_precision": expected,
            "normalized_average_precision": np.clip((score - expected) / (1 - expected), -1, 1),
            "n_pos_pairs": positives,
            "n_total_pairs": positives + negatives,
        },
        index=metadata.index,
    )


def expected_average_precision(positives: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The mean average precision over all orders of M positives among L pairs.

    `1/L ((M - 1) / (L - 1) (L - H_L) + H_L)` with the harmonic number `H_L`: Bestgen 2015, "Exact expected average
    precision of the random baseline for system evaluation".

    Args:
        positives: [...] int, M in [0, L].
        total: [...] int, L.

    Returns:
        [...] float64; NaN where M is 0, and 1 where M is L.
    """
    positives, total = np.asarray(positives), np.asarray(total)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total.max(initial=0) + 1))])[total]
    length = np.maximum(total, 1)
    expected = ((positives - 1) / np.maximum(total - 1, 1) * (length - harmonic) + harmonic) / length
    return np.where(positives == 0, np.nan, expected)


def _similarities(
    unit: np.ndarray, candidates: np.ndarray, rows: np.ndarray, of: np.ndarray, different: list[np.ndarray]
) -> np.ndarray:
    """[q, n] float32 of profiles `rows` with profiles `of`; -inf where two are no pair or the same profile."""
    similarity = (unit @ candidates.T).astype(np.float32)
    similarity[rows[:, None] == of] = -np.inf
    for codes in different:
        similarity[codes[rows][:, None] == codes[of]] = -np.inf
    return similarity


def _words(rule: PairRule) -> str:
    return f"({', '.join(rule.same) or 'no column'}) and differ in ({', '.join(rule.different) or 'no column'})"

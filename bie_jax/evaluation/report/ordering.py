"""What comes first on the page, and which of several scores stand for a set of features."""

from bie_jax.evaluation.scores.file import Scores
from bie_jax.evaluation.scores.keys import ACCURACY, MACRO_F1, NEAREST_CENTROID, TRAINED, left_out_group
from bie_jax.evaluation.scores.rows import ScoreRow
from bie_jax.evaluation.scores.score import Entry


def leading_split(scores: Scores) -> str | None:
    """The grouped split when there is one: that is the honest number, so it comes first everywhere."""
    splits = list(scores["splits"])
    return next((name for name in splits if left_out_group(name)), splits[0] if splits else None)


def best_row(scores: Scores, trained: bool) -> ScoreRow | None:
    """The row of greatest macro F1 (accuracy, of too many classes for it) in the leading split, of the trained encoder
    or of all baselines.

    Both are chosen alike: over every normalization and classifier.
    """
    rows = [
        row
        for row in scores["rows"]
        if (row["metric"] == MACRO_F1 or (row["metric"] == ACCURACY and row["classifier"] == NEAREST_CENTROID))
        and row["split"] == leading_split(scores)
        and (row["feature_set"] == TRAINED) == trained
    ]
    return max(rows, key=lambda row: row["value"], default=None)


def grouped(scores: Scores) -> list[list[Entry]]:
    """The entries of each feature set, one for each normalization: the trained encoder first, then the baselines, the
    one with the greatest macro F1 in the leading split before the others."""
    groups: dict[str, list[Entry]] = {}
    for entry in scores["feature_sets"].values():
        groups.setdefault(entry["feature_set"], []).append(entry)
    best: dict[str, float] = {}
    for row in scores["rows"]:
        if row["metric"] == MACRO_F1 and row["split"] == leading_split(scores):
            best[row["feature_set"]] = max(row["value"], best.get(row["feature_set"], 0.0))
    keys = sorted(groups, key=lambda key: (key != TRAINED, -best.get(key, 0.0)))
    return [groups[key] for key in keys]

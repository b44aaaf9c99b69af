"""All scores as rows of one table: what was scored, under which normalization, how, and on how many images."""

from collections.abc import Iterator
from typing import Any

NOT_SAME_WELL = "not_same_well"
PLATE_IDENTITY = "plate_identity"
_COLUMNS = ("split", "classifier", "metric", "value", "low", "high", "n")


def score_rows(entries: dict[str, dict]) -> list[dict[str, Any]]:
    """One row for each number of `feature_sets`, as it stands in `scores.json`.

    Args:
        entries: by name, each a feature set under one normalization.

    Returns:
        Rows with `feature_set`, `normalization`, `draws` (seeds of which `value` is the mean), `split`, `classifier`,
        `metric`, `value`, `low` and `high` (the 95 % interval, or None), and `n` (images tested).
    """
    return [
        {key: entry[key] for key in ("feature_set", "normalization", "draws")} | dict(zip(_COLUMNS, values))
        for entry in entries.values()
        for values in _scores(entry)
    ]


def _scores(entry: dict) -> Iterator[tuple]:
    """Tuples as `_COLUMNS`."""
    for classifier, splits in entry["classifiers"].items():
        for split, score in splits.items():
            n = sum(of_class["support"] for of_class in score["per_class"].values())
            yield split, classifier, "macro_f1", score["macro_f1"], *score["macro_f1_interval_95"], n
            yield split, classifier, "balanced_accuracy", score["balanced_accuracy"], None, None, n
    knn, identity = entry["knn"], entry["plate_identity"]
    if knn:
        neighbors = f"{knn['k']}_nearest_neighbors"
        yield NOT_SAME_WELL, neighbors, "accuracy", knn["accuracy"], None, None, knn["images"]
    if identity:
        yield PLATE_IDENTITY, "logistic_regression", "macro_f1", identity["macro_f1"], None, None, identity["images"]

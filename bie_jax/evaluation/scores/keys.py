"""The names that stand in `scores.json` and `scores.parquet`, once, for whoever scores and whoever shows."""

from typing import Final

# Levels: what one row of features is of.
IMAGE: Final = "image"
WELL: Final = "well"
TREATMENT: Final = "treatment"

# Sets of features, beside those that are made by hand.
TRAINED: Final = "trained_encoder"
TRAINED_ON_ALL: Final = "trained_encoder_all"  # the same on all images, where the others are compared on some
RANDOM: Final = "random_encoder"
RANDOM_POOLED: Final = "random_encoder_pooled"
CELL_COUNT: Final = "cell_count"
PUBLISHED: Final = "published_encoder"
APPENDED: Final = "appended"

# Normalizations.
RAW: Final = "raw"
PER_PLATE: Final = "per_plate"

# Splits: who is tested by what was learned from whom.
STRATIFIED: Final = "stratified_k_fold"
UNSEEN: Final = "unseen_by_encoder"
HELD_OUT: Final = "held_out"
NOT_SAME_WELL: Final = "not_same_well"
PLATE_IDENTITY: Final = "plate_identity"
# The same of treatments: who is compared with whom.
ACTIVITY: Final = "activity"
CONSISTENCY: Final = "consistency"
REPLICATING: Final = "replicating"
NOT_SAME_COMPOUND: Final = "not_same_compound"
NOT_SAME_COMPOUND_OR_BATCH: Final = "not_same_compound_or_batch"
PLATE_SEPARABILITY: Final = "plate_separability"
BATCH_SEPARABILITY: Final = "batch_separability"
_LEAVE, _OUT = "leave_", "_out"

# Classifiers; the majority class is its own set of features, too.
LOGISTIC_REGRESSION: Final = "logistic_regression"
RANDOM_FOREST: Final = "random_forest"
MAJORITY: Final = "majority"
NEAREST_CENTROID: Final = "nearest_centroid"
# What compares treatments.
COSINE: Final = "cosine"
CORRELATION: Final = "correlation"

# Metrics.
MACRO_F1: Final = "macro_f1"
BALANCED_ACCURACY: Final = "balanced_accuracy"
ACCURACY: Final = "accuracy"
TOP_10_ACCURACY: Final = "top_10_accuracy"
MEAN_AVERAGE_PRECISION: Final = "mean_average_precision"
SHARE_SIGNIFICANT: Final = "share_significant"
SHARE_REPLICATING: Final = "share_replicating"
CHANCE: Final = "chance"  # of the metric before it, by itself


def leave_out(group: str) -> str:
    """The split that leaves out one value of a column at a time: "plate" -> "leave_plate_out"."""
    return f"{_LEAVE}{group}{_OUT}"


def left_out_group(split: str) -> str | None:
    """The column of which a split leaves out one value at a time; None of any other split."""
    return split.removeprefix(_LEAVE).removesuffix(_OUT) if split.startswith(_LEAVE) else None


def entry_key(feature_set: str, normalization: str) -> str:
    """What a set of features under one normalization is called among the `feature_sets` of `scores.json`."""
    return feature_set if normalization == RAW else f"{feature_set}_{normalization}"


def neighbors_of(k: int) -> str:
    """The classifier by the vote of the k nearest."""
    return f"{k}_nearest_neighbors"

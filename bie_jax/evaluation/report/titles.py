"""What sets of features, splits and classifiers are called on the page."""

from bie_jax.evaluation.scores.file import Scores
from bie_jax.evaluation.scores.keys import (
    HELD_OUT,
    LOGISTIC_REGRESSION,
    MAJORITY,
    NEAREST_CENTROID,
    RANDOM_FOREST,
    STRATIFIED,
    UNSEEN,
)
from bie_jax.evaluation.scores.normalization import TITLES
from bie_jax.evaluation.scores.score import Entry

CLASSIFIER_TITLES = {
    LOGISTIC_REGRESSION: "logistic regression",
    RANDOM_FOREST: "random forest",
    MAJORITY: "majority",
    NEAREST_CENTROID: "nearest mean",
}
_SPLIT_TITLES = {STRATIFIED: "stratified k-fold", UNSEEN: "unseen by the encoder", HELD_OUT: "held out"}


def split_title(split: str) -> str:
    """As it stands in tables: `leave_plate_out` -> `leave-plate-out`."""
    return _SPLIT_TITLES.get(split, split.replace("_", "-"))


def full_title(entry: Entry, scores: Scores) -> str:
    """A feature set with its normalization, where there is more than one."""
    if len(scores["normalizations"]) == 1 or MAJORITY in entry["classifiers"]:
        return entry["title"]
    return f"{entry['title']}, {TITLES[entry['normalization']]}"

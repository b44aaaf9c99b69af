"""The section of classes, which the page's script draws: confusion matrices and the scores of each class."""

from typing import Any

from bie_jax.evaluation.report.ordering import grouped, leading_split
from bie_jax.evaluation.report.titles import CLASSIFIER_TITLES, full_title, split_title
from bie_jax.evaluation.scores.file import Scores


def confusion_data(scores: Scores) -> list[dict[str, Any]]:
    """Every classification of every set of features, the leading split first, in the order of the score table."""
    leading = leading_split(scores)
    return [
        {
            "title": full_title(entry, scores),
            "draws": entry["draws"],
            "results": [
                {"classifier": CLASSIFIER_TITLES[name], "split": split_title(split), **result}
                for name, splits in entry["classifiers"].items()
                for split, result in sorted(splits.items(), key=lambda item: item[0] != leading)
            ],
        }
        for entries in grouped(scores)
        for entry in entries
        if entry["classifiers"]
    ]

"""Is the nearest mean of a class that of an image? For labels of so many classes that no classifier is fitted to them.

A genome-wide screen has 18,000 genes of a few images each.
"""

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
from threadpoolctl import threadpool_limits

from bie_jax.evaluation.feature_set import Reduction
from bie_jax.evaluation.scores.folds import Fold
from bie_jax.evaluation.scores.keys import ACCURACY, CHANCE, NEAREST_CENTROID, TOP_10_ACCURACY
from bie_jax.evaluation.scores.preparation import build_preparation, check_features
from bie_jax.evaluation.scores.rows import Row

_SIMILARITIES_HELD = 2**22  # 32 MB


class Centroids(TypedDict):
    """What `nearest_centroids` finds, of one set of features or the mean over several draws of what was random."""

    accuracy: float
    top_10: float
    chance: float
    top_10_chance: float
    images: int
    classes: int
    accuracy_of_draws: list[float]


def centroid_rows(splits: dict[str, Centroids]) -> Iterator[Row]:
    """Accuracy and that of the ten nearest, each beside chance."""
    for split, score in splits.items():
        yield Row(split, NEAREST_CENTROID, ACCURACY, score["accuracy"], score["images"])
        yield Row(split, NEAREST_CENTROID, f"{ACCURACY}_{CHANCE}", score["chance"], score["images"])
        yield Row(split, NEAREST_CENTROID, TOP_10_ACCURACY, score["top_10"], score["images"])
        yield Row(split, NEAREST_CENTROID, f"{TOP_10_ACCURACY}_{CHANCE}", score["top_10_chance"], score["images"])


def mean_centroids(of_draws: list[Centroids]) -> Centroids:
    """The mean over draws, and each one's."""
    values = [score["accuracy"] for score in of_draws]
    top_10 = float(np.mean([score["top_10"] for score in of_draws]))
    return {**of_draws[0], "accuracy": float(np.mean(values)), "top_10": top_10, "accuracy_of_draws": values}


def nearest_centroids(
    features: np.ndarray, labels: np.ndarray, folds: list[Fold], *, components: Reduction | None, seed: int
) -> Centroids:
    """Share of held-out images whose class has the most similar mean, and is among the ten most similar, by cosine.

    Features are prepared by what is fitted to each training fold; means are of its images. Of equally similar means
    each counts in part. An image whose class the training fold lacks is wrong.

    Args:
        features: [N, D] float, finite.
        labels: [N] str.
        folds: no row is tested twice.
        components: see `build_preparation`.
        seed: of the components.

    Returns:
        `chance` is 1 over the classes of each training fold, `top_10_chance` 10 over them, as means over the images.
    """
    check_features(features, labels)
    correct, top_10, chance = [], [], []
    with threadpool_limits(1, user_api="blas"):
        for fold in folds:
            preparation = build_preparation(len(fold.train), features.shape[1], components, seed)
            train = preparation.fit_transform(features[fold.train])
            test = _unit(preparation.transform(features[fold.test]))
            names, codes = np.unique(labels[fold.train], return_inverse=True)
            means = np.zeros((len(names), train.shape[1]))
            np.add.at(means, codes, train)
            means = _unit(means)  # of a sum, which points where the mean does
            place = np.searchsorted(names, labels[fold.test])
            known = names[np.minimum(place, len(names) - 1)] == labels[fold.test]
            step = max(1, _SIMILARITIES_HELD // len(names))
            for start in range(0, len(test), step):
                rows = slice(start, start + step)
                similarity = (test[rows] @ means.T).astype(np.float32)
                own = similarity[np.arange(len(similarity)), np.minimum(place[rows], len(names) - 1)]
                nearer = (similarity > own[:, None]).sum(axis=1)
                alike = (similarity == own[:, None]).sum(axis=1)
                correct.append(known[rows] * _share_within(1, nearer, alike))
                top_10.append(known[rows] * _share_within(10, nearer, alike))
                chance.append(np.full(len(similarity), 1 / len(names)))
    return {
        "accuracy": float(np.concatenate(correct).mean()),
        "top_10": float(np.concatenate(top_10).mean()),
        "chance": float(np.concatenate(chance).mean()),
        "top_10_chance": float(np.minimum(1, 10 * np.concatenate(chance)).mean()),
        "images": int(sum(map(len, correct))),
        "classes": len(np.unique(labels)),
        "accuracy_of_draws": [float(np.concatenate(correct).mean())],
    }


def _share_within(count: int, nearer: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """The chance that one of `alike` equal means, its own among them, is within the first `count` in random order."""
    return np.clip((count - nearer) / alike, 0, 1)


def _unit(rows: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm == 0, 1, norm)

"""Whether what is near in the space of features is alike."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
from threadpoolctl import threadpool_limits

from bie_jax.evaluation.feature_set import Reduction
from bie_jax.evaluation.first_largest import first_largest
from bie_jax.evaluation.scores.keys import ACCURACY, NOT_SAME_WELL, neighbors_of
from bie_jax.evaluation.scores.preparation import build_preparation, check_features
from bie_jax.evaluation.scores.rows import Row

# Parts that wells are divided into: each is prepared by what is fitted to the others.
NUM_PARTS = 10


class Neighbors(TypedDict):
    """What `not_same_well_knn` finds."""

    accuracy: float
    chance: float
    k: int
    images: int
    without_match: int


class NeighborsOfDraws(Neighbors):
    """The same of several draws of what was random (weights): `accuracy` is the mean."""

    accuracy_of_draws: list[float]


def neighbor_rows(score: NeighborsOfDraws | None) -> Iterator[Row]:
    """The accuracy, where it was scored."""
    if score:
        yield Row(NOT_SAME_WELL, neighbors_of(score["k"]), ACCURACY, score["accuracy"], score["images"])


def mean_neighbors(of_draws: Sequence[Neighbors]) -> NeighborsOfDraws:
    """The first draw's, with the mean accuracy of all, and each one's."""
    values = [score["accuracy"] for score in of_draws]
    return {**of_draws[0], "accuracy": float(np.mean(values)), "accuracy_of_draws": values}


def not_same_well_knn(
    features: np.ndarray,
    labels: np.ndarray,
    wells: np.ndarray,
    k: int = 1,
    *,
    components: Reduction | None = None,
    seed: int = 0,
    most_asked: int | None = None,
) -> Neighbors:
    """Accuracy of the vote of the k nearest images that lie in another well, beside chance.

    Cosine similarity of features that were prepared (principal components, standardization) by what is fitted to other
    wells: to nine tenths of them, those of the image and some others left out. The same well is excluded because its
    images resemble each other whatever the treatment (not-same-well matching; Ljosa et al. 2013, doi
    10.1177/1087057113503553, excludes the same compound). A tie goes to the tied class with the nearest image.

    Args:
        features: [N, D] float, finite.
        labels: [N] str.
        wells: [N], plate and well together.
        k: neighbors that vote; fewer vote where fewer are allowed.
        components: see `build_preparation`.
        seed: of the components.
        most_asked: images that are asked for their neighbors among all; of more, so many are drawn; None: all.

    Returns:
        `accuracy`; `chance`, the share of same-label images among the allowed ones; `images`, how many were asked;
        `without_match`, those of them whose label occurs in no other well: they can only be wrong.

    Raises:
        ValueError: k < 1, or all images come from one well.
    """
    check_features(features, labels)
    if k < 1:
        raise ValueError(f"the number of neighbors must be at least 1, got {k}; set --config.eval.knn_k=1")
    classes, class_of_image = np.unique(labels, return_inverse=True)
    names, well_of_image = np.unique(wells, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"not-same-well neighbors need at least two wells, all images come from {names[0]}")

    of_well, of_class = np.bincount(well_of_image), np.bincount(class_of_image)
    _, pair, of_pair = np.unique(well_of_image * len(classes) + class_of_image, return_inverse=True, return_counts=True)
    allowed = len(labels) - of_well[well_of_image]
    same_label = of_class[class_of_image] - of_pair[pair]
    is_asked = np.ones(len(labels), dtype=bool)
    if most_asked is not None and len(labels) > most_asked:
        is_asked[np.random.default_rng(seed).permutation(len(labels))[most_asked:]] = False

    # In float64: of a cosine near 1 single precision keeps no more than which images are within 1/50 of a degree.
    features = np.asarray(features, dtype=np.float64)
    correct = np.zeros(len(labels), dtype=bool)
    block = 1024  # rows of the similarity matrix held at a time: 1024 x N floats
    num_parts = min(NUM_PARTS, len(names))
    with threadpool_limits(1, user_api="blas"):
        for part in range(num_parts):
            asked = np.flatnonzero(is_asked & (well_of_image % num_parts == part))
            others = features[well_of_image % num_parts != part]
            preparation = build_preparation(len(others), features.shape[1], components, seed)
            unit = preparation.fit(others).transform(features)
            norm = np.linalg.norm(unit, axis=1, keepdims=True)
            unit = unit / np.where(norm == 0, 1, norm)
            for start in range(0, len(asked), block):
                rows = asked[start : start + block]
                similarity = unit[rows] @ unit.T  # [b, N]
                similarity[well_of_image[rows, None] == well_of_image[None, :]] = -np.inf
                nearest = first_largest(similarity, k)
                counted = np.isfinite(np.take_along_axis(similarity, nearest, axis=1))
                for row, neighbors, valid in zip(rows, class_of_image[nearest], counted, strict=True):
                    votes = np.bincount(neighbors[valid], minlength=len(classes))
                    winner = next(c for c in neighbors if votes[c] == votes.max())
                    correct[row] = winner == class_of_image[row]
    return {
        "accuracy": float(correct[is_asked].mean()),
        "chance": float((same_label / allowed)[is_asked].mean()),
        "k": int(k),
        "images": int(is_asked.sum()),
        "without_match": int((same_label[is_asked] == 0).sum()),
    }

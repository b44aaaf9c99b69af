"""Features of a whole set, as they are scored."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Features [N, D] of all images; `components` principal components of them are fitted in each training fold."""

    key: str
    title: str
    description: str
    features: np.ndarray
    components: int | None = None

    @property
    def dim(self) -> int:
        """Number of features that reach the classifier."""
        return self.components or self.features.shape[1]


@dataclasses.dataclass(frozen=True)
class HandMade:
    """What needs no training.

    Attributes:
        feature_sets: the baselines.
        tiles: a square thumbnail (PIL image) of each image shown in the report, all of one size.
    """

    feature_sets: list[FeatureSet]
    tiles: list

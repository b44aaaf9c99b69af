"""Features of a whole set, as they are scored."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Block:
    """Neighboring columns of a table of features that are prepared alike.

    Attributes:
        columns: how many.
        components: principal components that stand for them; None: they stay as they are.
        standardized: whether all columns weigh the same in the components; else each by how much it varies.
    """

    columns: int
    components: int | None = None
    standardized: bool = False


# What a fold fits to features: that many principal components of all, or what becomes of each block of columns.
Reduction = int | tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Features of all images, before any normalization.

    Attributes:
        key, title, description: what they are called, and how they came about.
        features: [N, D]; or [S, N, D], S draws of what was random (weights), whose scores are averaged.
        components: what is fitted to them in each training fold; None: nothing.
    """

    key: str
    title: str
    description: str
    features: np.ndarray
    components: Reduction | None = None

    @property
    def draws(self) -> np.ndarray:
        """[S, N, D]."""
        return self.features if self.features.ndim == 3 else self.features[None]

    @property
    def dim(self) -> int:
        """Number of features that reach the classifier."""
        if isinstance(self.components, tuple):
            return sum(block.components or block.columns for block in self.components)
        return self.components or self.features.shape[-1]


@dataclasses.dataclass(frozen=True)
class HandMade:
    """What needs no training.

    Attributes:
        feature_sets: the baselines.
        tiles: a square thumbnail (PIL image) of each image shown in the report, all of one size.
    """

    feature_sets: list[FeatureSet]
    tiles: list


def without_broken(feature_sets: list[FeatureSet]) -> tuple[list[FeatureSet], list[str]]:
    """Hand-made features that are finite, and a note on each set that is not: it costs no other set its score."""
    finite, notes = [], []
    for feature_set in feature_sets:
        bad = np.flatnonzero(~np.isfinite(feature_set.draws).all(axis=(0, 2)))
        if not len(bad):
            finite.append(feature_set)
            continue
        notes.append(
            f"{feature_set.title} is not scored: {len(bad)} of {feature_set.draws.shape[1]} rows hold NaN or infinity, "
            f"the first is row {bad[0]}."
        )
    return finite, notes

"""What is fitted to the training images of a fold before a classifier sees them: principal components and scales."""

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from bie_jax.evaluation.feature_set import Block, Reduction


def build_preparation(num_train: int, num_features: int, components: Reduction | None, seed: int) -> Pipeline:
    """What is fitted on a training fold before the classifiers: [principal components, then] standardization.

    Args:
        num_train: images in the training fold.
        num_features: columns of the features.
        components: what is fitted, or None for nothing; never more than the fold can support.
        seed: of randomized singular value decompositions.

    Raises:
        ValueError: if the blocks are not of all columns.
    """
    if components is None:
        return make_pipeline(StandardScaler())
    if isinstance(components, int):
        count = min(components, num_train - 1, num_features)
        pca = PCA(count, svd_solver="randomized", iterated_power=3, random_state=seed)  # type: ignore[reportArgumentType]
        return make_pipeline(pca, StandardScaler())
    ends = np.cumsum([block.columns for block in components])
    if ends[-1] != num_features:
        raise ValueError(f"there are {num_features} features, and blocks of {ends[-1]}")

    parts = [
        (f"columns to {end}", _of_block(block, num_train, seed), slice(int(end) - block.columns, int(end)))
        for block, end in zip(components, ends, strict=True)
    ]
    return make_pipeline(ColumnTransformer(parts), StandardScaler())


def rotate_to_span(features: np.ndarray) -> np.ndarray:
    """The same points in coordinates of their own span: at most N columns instead of D.

    A rotation (V sqrt(lambda), from X X^T = V lambda V^T): all inner products between images stay as they are, so
    principal components fitted on any part of the rows give the same scores, in a fraction of the time. It uses no
    label and fits nothing: what it leaves out is exactly zero for every image.

    Args:
        features: [N, D] float.

    Returns:
        [N, min(N, D)] float64; the features themselves where D <= N.
    """
    if features.shape[1] <= len(features):
        return features
    wide = features.astype(np.float64)  # in float32 the squares would cost the small components their digits
    values, vectors = np.linalg.eigh(wide @ wide.T)
    return vectors * np.sqrt(np.maximum(values, 0))


def _of_block(block: Block, num_train: int, seed: int) -> Pipeline | PCA | str:
    if block.components is None:
        return "passthrough"
    pca = PCA(min(block.components, num_train - 1, block.columns), random_state=seed)
    return make_pipeline(StandardScaler(), pca) if block.standardized else pca


def check_features(features: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError unless features are [N, D], finite, for N labels."""
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(f"features must be [N, D] with N = {len(labels)} labels, got shape {features.shape}")
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(features)} rows hold a value that is not finite, the first is row "
            f"{int(bad.argmax())}"
        )

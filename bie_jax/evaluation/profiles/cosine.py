"""Profiles of unit length, so that a product of two is their cosine similarity."""

import numpy as np

from bie_jax.evaluation.profiles.checks import check_features

# Similarities that are held at a time: 32 MB in float64.
SIMILARITIES_HELD = 2**22


def unit_rows(features: np.ndarray, rows: int) -> np.ndarray:
    """[N, D] float64 of unit length each.

    Raises:
        ValueError: a profile of zeros alone (it has no direction), or what `check_features` refuses.
    """
    features = check_features(features, rows, missing=False)
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    if (norm == 0).any():
        zero = np.flatnonzero(norm[:, 0] == 0)
        raise ValueError(
            f"{len(zero)} profiles are 0 in every feature, the first is row {zero[0]}: no cosine to others"
        )
    return features / norm

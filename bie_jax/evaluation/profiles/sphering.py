"""Sphering: directions in which controls vary are made to vary alike."""

import dataclasses
from typing import Literal

import numpy as np

from bie_jax.evaluation.profiles.checks import check_choice, check_features

Rotation = Literal["PCA", "ZCA"]
FewControls = Literal["raise", "fill"]


@dataclasses.dataclass(frozen=True)
class Sphering:
    """A centered linear map, fitted to controls, to be used on any rows of the same features.

    Attributes:
        mean: [D] float64, of the controls.
        weights: [D, D] float64.
    """

    mean: np.ndarray
    weights: np.ndarray

    def transform(self, features: np.ndarray) -> np.ndarray:
        """[N, D]: features minus the controls' mean, times the weights.

        Raises:
            ValueError: another number of features, NaN or infinity.
        """
        features = check_features(features, len(features), missing=False)
        if features.shape[1] != len(self.mean):
            raise ValueError(f"sphering was fitted to {len(self.mean)} features, got {features.shape[1]}")
        return (features - self.mean) @ self.weights


def fit_sphering(controls: np.ndarray, rotation: Rotation, epsilon: float, few_controls: FewControls) -> Sphering:
    """The map after which the covariance of the controls is I.

    Of the centered controls `X = U S V^T` the weights are `V (S + epsilon)^-1 sqrt(n - 1)` (PCA), or these times `V^T`
    (ZCA, which moves features the least), of n controls: Kessy et al. 2018, arXiv 1512.00809, equation 8 and table 1;
    the same as pycytominer 1.7.1 (`Spherize`; earlier versions did not center before the decomposition). For its
    "ZCA-cor" and "PCA-cor" standardize on the same controls first.

    Args:
        controls: [n, D] finite.
        rotation: "PCA": columns become components, by falling variance of the controls. "ZCA": they remain features.
        epsilon: at least 0, in units of a singular value of the centered controls; keeps directions of little variance
            from being blown up, and the covariance that far from I.
        few_controls: n controls span at most n - 1 directions, fewer where each plate was centered on its own, or where
            features are constant or add up to each other. Where that is fewer than D, "raise" refuses, and "fill" gives
            the other directions the smallest singular value that there is, as pycytominer does of n - 1 directions; the
            covariance is then I in the spanned directions alone.

    Raises:
        ValueError: fewer than 2 controls, controls that are all alike, a negative epsilon; where `few_controls` is
            "raise", too few controls for D features, or a linear dependence between features.
    """
    check_choice(rotation, ("PCA", "ZCA"), "rotation")
    check_choice(few_controls, ("raise", "fill"), "few_controls")
    controls = check_features(controls, len(controls), missing=False)
    count, dim = controls.shape
    if epsilon < 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
    if count < 2:
        raise ValueError(f"sphering needs at least 2 controls, got {count}")
    if count <= dim and few_controls == "raise":
        raise ValueError(
            f"{count} controls do not determine the covariance of {dim} features: give more than {dim}, select "
            "features, or say few_controls='fill'"
        )
    mean = controls.mean(axis=0)
    # All D directions are needed: of fewer rows than features they come with the full decomposition alone.
    _, singular, directions = np.linalg.svd(controls - mean, full_matrices=count < dim)
    rank = int((singular > singular.max() * max(count, dim) * np.finfo(np.float64).eps).sum())
    if rank == 0:
        raise ValueError(f"the {count} controls are all alike, and have no direction to vary in")
    if rank < min(dim, count - 1) and few_controls == "raise":
        raise ValueError(
            f"the {count} controls vary in {rank} directions, {min(dim, count - 1)} were expected: features that are "
            "constant or add up to each other; select features by variance and correlation first"
        )
    scale = np.full(dim, singular[rank - 1])
    scale[:rank] = singular[:rank]
    weights = directions.T / (scale + epsilon) * np.sqrt(count - 1)
    return Sphering(mean, weights @ directions if rotation == "ZCA" else weights)

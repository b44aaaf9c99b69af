"""Typical variation normalization: what controls do from batch to batch is taken out of everything."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_features, check_rows
from bie_jax.evaluation.profiles.groups import group_rows
from bie_jax.evaluation.profiles.normalize import Scaling, fit_scaling


@dataclasses.dataclass(frozen=True)
class Tvn:
    """The axes of all controls; each batch is whitened along them by its own controls, later batches too.

    Attributes:
        before: center and scale of the features.
        axes: [D, D] float64, principal axes of the scaled controls as columns.
        after: center and scale of the components.
        regularization: added to the diagonal of a batch's covariance.
    """

    before: Scaling
    axes: np.ndarray
    after: Scaling
    regularization: float

    def transform(
        self, features: np.ndarray, metadata: pd.DataFrame, batch: Sequence[str], controls: np.ndarray
    ) -> np.ndarray:
        """Every batch in the axes of the controls that were fitted, whitened by its own controls.

        Args:
            features: [N, D] finite; of the batches that were fitted, or of later ones.
            metadata: N rows.
            batch: columns that name a batch; () makes all rows one.
            controls: [N] bool, at least 2 in each batch.

        Returns:
            [N, D] float64.

        Raises:
            ValueError: a batch of fewer than 2 controls (named), another number of features, NaN or infinity.
        """
        features = check_features(features, len(metadata), missing=False)
        controls = check_rows(controls, len(metadata), "controls")
        if features.shape[1] != len(self.axes):
            raise ValueError(f"TVN was fitted to {len(self.axes)} features, got {features.shape[1]}")
        components = self.after.transform(self.before.transform(features) @ self.axes)
        out = np.empty_like(components)
        groups = group_rows(metadata, batch)
        for name, rows in zip(groups.names, groups.rows()):
            known = components[rows[controls[rows]]]
            if len(known) < 2:
                raise ValueError(f"{name} has {len(known)} controls, TVN needs at least 2 in every batch; leave it out")
            covariance = np.atleast_2d(np.cov(known, rowvar=False)) + self.regularization * np.eye(len(self.axes))
            variances, vectors = np.linalg.eigh(covariance)
            out[rows] = components[rows] @ (vectors / np.sqrt(variances)) @ vectors.T
        return out


def fit_tvn(controls: np.ndarray, regularization: float) -> Tvn:
    """The axes of the controls of all batches together.

    Controls are z-scored, turned to their principal axes and z-scored again; `Tvn.transform` then multiplies each batch
    by `(cov(controls of the batch) + regularization I)^(-1/2)`. Ando, McLean and Berndl 2017 (bioRxiv 161422), in the
    form of Celik et al. 2024 (EFAAR, doi 10.1371/journal.pcbi.1012463), whose `regularization` is 0.5. As there, the
    mean of a batch is not taken out: normalize each batch on its controls first if it has to be.

    Args:
        controls: [n, D] finite, n > D, no feature constant.
        regularization: above 0, in variances of a z-scored component.

    Raises:
        ValueError: no more controls than features, a constant feature or one that others add up to, or a
            regularization that is not above 0.
    """
    controls = check_features(controls, len(controls), missing=False)
    count, dim = controls.shape
    if regularization <= 0:
        raise ValueError(f"regularization must be above 0, got {regularization}; EFAAR's is 0.5")
    if count <= dim:
        raise ValueError(
            f"{count} controls do not determine the axes of {dim} features: give more than {dim}, or select features"
        )
    before = fit_scaling(controls, "standardize", "raise")
    scaled = before.transform(controls)
    _, singular, directions = np.linalg.svd(scaled, full_matrices=False)
    if singular[-1] <= singular[0] * count * np.finfo(np.float64).eps:
        raise ValueError(f"the {dim} features of the controls add up to each other; select them by correlation first")
    axes = directions.T
    return Tvn(before, axes, fit_scaling(scaled @ axes, "standardize", "raise"), regularization)

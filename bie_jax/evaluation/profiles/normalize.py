"""One scale for every feature, from stated rows of a stated scope."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_choice, check_features, check_rows
from bie_jax.evaluation.profiles.groups import group_rows

Method = Literal["standardize", "mad_robustize"]
Constant = Literal["raise", "zero", "center"]

# The deviation of normally distributed values over the median of their absolute deviations, as pycytominer rounds it.
MAD_TO_DEVIATION = 1.4826


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Center and scale of each feature, to be used on other rows too.

    Attributes:
        center, scale: [D] float64; an infinite scale makes a feature 0.
    """

    center: np.ndarray
    scale: np.ndarray

    def transform(self, features: np.ndarray) -> np.ndarray:
        """[N, D], minus the center, over the scale."""
        return (features - self.center) / self.scale


def fit_scaling(features: np.ndarray, method: Method, constant: Constant) -> Scaling:
    """The center and scale of features.

    Args:
        features: [n, D] finite or NaN; the rows that are fitted. NaN is left out.
        method: "standardize": mean and standard deviation (over n, as scikit-learn has it). "mad_robustize": median
            and 1.4826 times the median absolute deviation, as pycytominer 1.7.1 has it; it adds 1e-18 to the latter,
            which is left out here.
        constant: what becomes of a feature whose deviation is 0 up to rounding: "raise" refuses it, "zero" makes it 0
            in every row, "center" subtracts the center and divides by 1.

    Raises:
        ValueError: a feature of which no value is known, or a constant one where `constant` is "raise".
    """
    check_choice(method, ("standardize", "mad_robustize"), "method")
    check_choice(constant, ("raise", "zero", "center"), "constant")
    features = check_features(features, len(features), missing=True)
    unknown = np.flatnonzero(np.isnan(features).all(axis=0))
    if len(unknown):
        raise ValueError(f"{_columns(unknown)} without a known value in {len(features)} rows; drop missing ones first")
    if method == "standardize":
        center, scale = np.nanmean(features, axis=0), np.nanstd(features, axis=0)
    else:
        center = np.nanmedian(features, axis=0)
        scale = MAD_TO_DEVIATION * np.nanmedian(np.abs(features - center), axis=0)
    # Equal values have a standard deviation of 1e-17 or so: dividing by it would make noise of unit size.
    flat = scale <= 1e-12 * np.nanmax(np.abs(features), axis=0)
    if flat.any() and constant == "raise":
        raise ValueError(
            f"{_columns(np.flatnonzero(flat))} with a deviation of 0 in {len(features)} rows; select features by "
            "variance first, or say constant='zero' or 'center'"
        )
    return Scaling(center, np.where(flat, np.inf if constant == "zero" else 1.0, scale))


def normalize(
    features: np.ndarray,
    metadata: pd.DataFrame,
    scope: Sequence[str],
    fitted: np.ndarray,
    method: Method,
    constant: Constant,
) -> np.ndarray:
    """Each scope's rows by the center and scale of its own fitted rows.

    Args:
        features: [N, D] finite or NaN.
        metadata: N rows.
        scope: columns of one scope: ("plate",) for each plate by itself, () for the table as a whole.
        fitted: [N] bool, rows that center and scale are taken of: the controls, or all.
        method, constant: as in `fit_scaling`.

    Returns:
        [N, D] float64; NaN where it was.

    Raises:
        ValueError: a scope without fitted rows, or what `fit_scaling` refuses, with the name of the scope.
    """
    features = check_features(features, len(metadata), missing=True)
    fitted = check_rows(fitted, len(metadata), "fitted")
    groups = group_rows(metadata, scope)
    out = np.empty_like(features)
    for name, rows in zip(groups.names, groups.rows()):
        known = rows[fitted[rows]]
        if not len(known):
            raise ValueError(f"{name} has no row to take center and scale of; leave it out, or widen scope or rows")
        try:
            scaling = fit_scaling(features[known], method, constant)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        out[rows] = scaling.transform(features[rows])
    return out


def _columns(which: np.ndarray) -> str:
    """A few of the columns, by number."""
    shown = ", ".join(map(str, which[:5])) + (", ..." if len(which) > 5 else "")
    return f"feature column{'s' if len(which) > 1 else ''} {shown} ({len(which)} in all)"

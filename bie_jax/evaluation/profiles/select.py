"""Which features are kept: pycytominer's operations, each a mask over columns.

Each answers [D] bool, True for a column that stays, and looks at the rows it is given. The operations and their
meaning are those of pycytominer 1.7.1 (`feature_select`).
"""

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_features


def drop_missing(features: np.ndarray, max_share: float) -> np.ndarray:
    """Columns of which at most `max_share` is NaN (pycytominer's `drop_na_columns`).

    Args:
        features: [N, D]; NaN allowed.
        max_share: in [0, 1].

    Raises:
        ValueError: a share outside [0, 1], or no column left.
    """
    if not 0 <= max_share <= 1:
        raise ValueError(f"max_share must be in [0, 1], got {max_share}")
    features = check_features(features, len(features), missing=True)
    return _some(np.isnan(features).mean(axis=0) <= max_share, f"is known in {1 - max_share:.0%} of the rows")


def variance_threshold(features: np.ndarray, min_variance: float) -> np.ndarray:
    """Columns whose variance (over N) is above `min_variance` (pycytominer's `variance_threshold`).

    Args:
        features: [N, D]; NaN is left out, and a column of NaN alone is dropped.
        min_variance: at least 0, in squared units of the feature.

    Raises:
        ValueError: a negative variance, or no column left.
    """
    if min_variance < 0:
        raise ValueError(f"min_variance must be at least 0, got {min_variance}")
    features = check_features(features, len(features), missing=True)
    known = np.ma.masked_invalid(features)
    # A constant column has a variance of rounding; its range is 0.
    varies = (known.var(axis=0) > min_variance) & (known.max(axis=0) > known.min(axis=0))
    return _some(np.ma.filled(varies, False), f"has a variance above {min_variance}")


def correlation_threshold(features: np.ndarray, max_correlation: float) -> np.ndarray:
    """Columns such that no two have a correlation above `max_correlation` (pycytominer's `correlation_threshold`).

    Of each pair above it, the column with the larger sum of absolute correlations to all columns goes. As in
    pycytominer, correlation is Pearson's with its sign, so that two columns of opposite sign both stay, and every pair
    is judged by itself, so that a column may go on account of one that goes too. Of equal sums the earlier column
    stays. A constant column correlates with nothing.

    Args:
        features: [N, D]; NaN is left out pair by pair.
        max_correlation: in [0, 1].

    Raises:
        ValueError: a threshold outside [0, 1].
    """
    if not 0 <= max_correlation <= 1:
        raise ValueError(f"max_correlation must be in [0, 1], got {max_correlation}")
    features = check_features(features, len(features), missing=True)
    if np.isnan(features).any():
        correlation = pd.DataFrame(features).corr().to_numpy()
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = np.atleast_2d(np.corrcoef(features, rowvar=False))
    correlation = np.nan_to_num(correlation, nan=0.0)
    place = np.empty(len(correlation), dtype=np.int64)
    place[np.argsort(np.abs(correlation).sum(axis=0), kind="stable")] = np.arange(len(correlation))
    late, early = np.nonzero(np.tril(correlation, k=-1) > max_correlation)
    kept = np.ones(len(correlation), dtype=bool)
    kept[np.where(place[late] > place[early], late, early)] = False
    return kept


def drop_outliers(features: np.ndarray, max_absolute: float) -> np.ndarray:
    """Columns of which no value is further from 0 than `max_absolute` (pycytominer's `drop_outliers`).

    Args:
        features: [N, D], as a rule normalized; NaN is left out.
        max_absolute: in units of the feature.

    Raises:
        ValueError: no column left.
    """
    features = check_features(features, len(features), missing=True)
    return _some(~np.any(np.abs(features) > max_absolute, axis=0), f"stays within {max_absolute} of 0")


def _some(kept: np.ndarray, what: str) -> np.ndarray:
    if not kept.any():
        raise ValueError(f"none of {len(kept)} feature columns {what}, so that nothing would be left")
    return kept

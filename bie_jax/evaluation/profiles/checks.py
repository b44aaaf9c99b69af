"""What every function asks of features before it computes with them."""

from collections.abc import Sequence

import numpy as np


def check_features(features: np.ndarray, rows: int, *, missing: bool) -> np.ndarray:
    """Features as float64.

    Args:
        features: [N, D], any numbers.
        rows: N, as the metadata has it.
        missing: whether NaN is allowed.

    Returns:
        [N, D] float64; the same array if it was that already.

    Raises:
        ValueError: not two axes, another number of rows, infinity, or NaN where it is not allowed.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise ValueError(f"features must be [N, D], got an array of shape {features.shape}")
    if len(features) != rows:
        raise ValueError(f"features have {len(features)} rows, the metadata has {rows}; they must be of the same rows")
    bad = np.isinf(features) if missing else ~np.isfinite(features)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"features hold {int(bad.sum())} values that are {'infinite' if missing else 'NaN or infinite'}, the first "
            f"in row {row}, column {column}; leave out such rows or columns first"
        )
    return features


def check_rows(chosen: np.ndarray, rows: int, name: str) -> np.ndarray:
    """A choice of rows, [N] bool.

    Raises:
        ValueError: another type or length.
    """
    chosen = np.asarray(chosen)
    if chosen.dtype != bool or chosen.shape != (rows,):
        raise ValueError(f"{name} must be [{rows}] bool, one for each row, got {chosen.dtype} of shape {chosen.shape}")
    return chosen


def check_choice(value: str, allowed: Sequence[str], name: str) -> None:
    """Refuse a word that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

"""How features are put on one scale before they are scored: as they are, or plate by plate.

A network may read every plate by that plate's own intensities, while counted features see raw ones; which of the two is
better is a property of the normalization, not of the features. So each feature set is scored under both.
"""

import numpy as np

from bie_jax.evaluation.scores.keys import PER_PLATE, RAW

TITLES = {RAW: "raw", PER_PLATE: "per plate"}
DESCRIPTIONS = {
    RAW: "Features as they are.",
    PER_PLATE: "Each column minus its plate's mean, over its plate's standard deviation, of all images of the plate, "
    "labeled or not; no label is used. A plate that is held out is standardized by its own images too: transductive "
    "in the plate.",
}


def normalizations(plates: np.ndarray) -> tuple[str, ...]:
    """Those that a set can have: one plate has no second one, since classifiers standardize in any case."""
    return (RAW, PER_PLATE) if len(np.unique(plates)) > 1 else (RAW,)


def lone_plates_note(plates: np.ndarray) -> list[str]:
    """A sentence on plates of a single image, where plates are standardized one by one."""
    names, counts = np.unique(plates, return_counts=True)
    if len(names) < 2 or not (counts == 1).any():
        return []
    lone = ", ".join(map(str, names[counts == 1]))
    return [f"Plates of one image ({lone}): standardized per plate, that image is 0 in every column."]


def normalize(features: np.ndarray, plates: np.ndarray, normalization: str) -> np.ndarray:
    """Features [N, D] of images of plates [N], under a normalization."""
    return standardize_per_plate(features, plates) if normalization == PER_PLATE else features


def standardize(features: np.ndarray, fitted: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Zero mean and unit variance per column; columns that are constant become 0.

    Args:
        features: [N, D].
        fitted: rows that mean and variance are taken of, at least one.

    Returns:
        [N, D] float64.
    """
    features = np.asarray(features, dtype=np.float64)
    known = features[fitted]
    mean, scale = known.mean(axis=0), known.std(axis=0)
    # A column that is constant but for rounding has a standard deviation of 1e-17 or so: dividing by it would make
    # noise of unit size.
    constant = scale <= 1e-12 * np.abs(known).max(axis=0, initial=0)
    return np.where(constant, 0.0, (features - mean) / np.where(constant, 1.0, scale))


def standardize_per_plate(features: np.ndarray, plates: np.ndarray, fitted: np.ndarray | None = None) -> np.ndarray:
    """`standardize` of each plate's images by themselves.

    Args:
        features: [N, D].
        plates: [N] str.
        fitted: [N] bool, images that the plates' means and variances are taken of; None: all.

    Returns:
        [N, D] float64.

    Raises:
        ValueError: a plate of which nothing is fitted (named).
    """
    fitted = np.ones(len(plates), dtype=bool) if fitted is None else fitted
    out = np.empty(features.shape)
    for plate in np.unique(plates):
        rows = plates == plate
        if not fitted[rows].any():
            raise ValueError(f"plate {plate} has no image left to take its mean and variance of")
        out[rows] = standardize(features[rows], fitted[rows])
    return out

"""Which images all sets of features are compared on: all, or of a large set some, drawn without looking at features."""

import numpy as np
import pandas as pd

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.scores.plan import MOST_CLASSES, column

_MOST_CONTROLS = 0.2  # of the images that are compared


def compared_rows(metadata: pd.DataFrame, settings: EvalConfig) -> np.ndarray:
    """Rows that are compared, ascending: all, or about `config.eval.most_images` of them.

    Whole units are drawn, so that what belongs together is compared together: of many classes (`MOST_CLASSES`) whole
    classes; else of every class the same share, in whole treatments where columns name them, else in whole wells.
    Negative controls are drawn by wells, up to a fifth of all.

    Args:
        metadata: N rows with plate, well, the label column and, where they are named, those of treatments.
        settings: the `eval` group of a configuration.

    Raises:
        ConfigError: for a column that is not there.
    """
    count, most = len(metadata), settings.most_images
    if count <= most:
        return np.arange(count)
    rng = np.random.default_rng(settings.seed)
    labels = column(metadata, settings.label, "label")
    wells = _joined(metadata, ("plate", "well"))
    controls = np.flatnonzero((labels == settings.probe_control) & bool(settings.probe_control))
    chosen = [_whole_units(controls, wells, int(_MOST_CONTROLS * most), rng)]
    others = np.setdiff1d(np.arange(count), controls)
    left = most - len(chosen[0])
    classes = np.unique(labels[others])
    if len(classes) > MOST_CLASSES:
        chosen.append(_whole_units(others, labels, left, rng))
    else:
        units = _joined(metadata, settings.profile.treatment) if settings.profile.treatment else wells
        for name in classes:
            of_it = others[labels[others] == name]
            chosen.append(_whole_units(of_it, units, round(left * len(of_it) / len(others)), rng))
    return np.sort(np.concatenate(chosen))


def sampled_note(compared: int, images: int) -> str:
    """That not all images are compared."""
    return (
        f"All sets of features are compared on {compared} of {images} images, drawn without looking at features "
        "(config.eval.most_images)."
    )


def _joined(metadata: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """[N] one value for each combination of values of some columns."""
    codes = metadata.groupby(list(names), dropna=False, sort=False).ngroup()
    return codes.to_numpy()


def _whole_units(rows: np.ndarray, units: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of whole units in random order, as many as fit, two units at least."""
    if len(rows) <= most:
        return rows
    names, codes = np.unique(units[rows], return_inverse=True)
    order = rng.permutation(len(names))
    ends = np.cumsum(np.bincount(codes)[order])
    taken = order[: max(2, int(np.searchsorted(ends, most, side="right")))]
    return rows[np.isin(codes, taken)]

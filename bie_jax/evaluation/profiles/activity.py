"""Does a treatment do anything: are its replicates nearer to each other than to controls?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.average_precision import PairRule, average_precision
from bie_jax.evaluation.profiles.checks import check_rows
from bie_jax.evaluation.profiles.groups import group_rows


def activity_average_precision(
    features: np.ndarray,
    metadata: pd.DataFrame,
    treatment: Sequence[str],
    controls: np.ndarray,
    within: Sequence[str],
    across: Sequence[str],
) -> pd.DataFrame:
    """Average precision of replicates among the controls of the same plate.

    Phenotypic activity of Kalinin et al. 2025 (doi 10.1038/s41467-025-60306-2): positive pairs are replicates of a
    treatment, negative pairs a replicate and a control that agree in the columns `within`.

    Args:
        features: [N, D] finite, of wells as a rule.
        metadata: N rows.
        treatment: columns that name a treatment, with values in every row that is no control.
        controls: [N] bool.
        within: columns that a replicate and its controls share: ("plate",); () for controls of all plates.
        across: columns in which two replicates must differ: ("plate",) or ("well",) leaves out replicates that agree
            on account of their place; () for none.

    Returns:
        As `average_precision`; controls have no score, nor have treatments without a second replicate.

    Raises:
        ValueError: no controls, a plate of treatments without controls (named), or no treatment with two replicates.
    """
    controls = check_rows(controls, len(metadata), "controls")
    if not controls.any() or controls.all():
        raise ValueError(f"{int(controls.sum())} of {len(controls)} rows are controls; activity needs both kinds")
    plates = group_rows(metadata, within)
    with_controls = np.bincount(plates.codes, weights=controls, minlength=len(plates.names)) > 0
    lone = np.flatnonzero(~with_controls)
    if len(lone):
        raise ValueError(
            f"{plates.names[lone[0]]} has no control ({len(lone)} of {len(plates.names)} have none): leave out its "
            "rows, or compare within fewer columns"
        )
    # Every control is a treatment of its own, so that no two are a positive pair.
    treatments = np.empty(len(metadata), dtype=np.int64)
    treatments[~controls] = group_rows(metadata.iloc[np.flatnonzero(~controls)], treatment).codes
    treatments[controls] = -1 - np.arange(controls.sum())
    table = pd.DataFrame({"treatment": treatments, "control": controls, "plate": plates.codes}, index=metadata.index)
    for column in across:
        table[f"column {column}"] = group_rows(metadata, [column]).codes
    positive = PairRule(("treatment",), tuple(f"column {column}" for column in across))
    return average_precision(features, table, positive, PairRule(("plate",), ("control",)))

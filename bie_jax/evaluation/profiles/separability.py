"""Can the batch of a well be told by its neighbor?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_rows
from bie_jax.evaluation.profiles.groups import group_rows
from bie_jax.evaluation.profiles.nearest_mechanism import NearestMechanism, nearest_mechanism


def batch_separability(
    features: np.ndarray, metadata: pd.DataFrame, batch: Sequence[str], controls: np.ndarray
) -> NearestMechanism:
    """Share of control wells whose nearest other control well is of their own batch: lower is better.

    Controls were treated alike in every batch, so that what makes neighbors of those of one batch is no treatment. As
    `nearest_mechanism`, of batches: by cosine similarity, ties in part, beside the share that any neighbor would give.

    Args:
        features: [N, D] finite.
        metadata: N rows, of wells.
        batch: columns that name a batch, at least one.
        controls: [N] bool.

    Raises:
        ValueError: no batch with two controls, or controls of one batch alone.
    """
    rows = np.flatnonzero(check_rows(controls, len(metadata), "controls"))
    if not len(rows):
        raise ValueError("there are no controls to tell batches by")
    batches = group_rows(metadata.iloc[rows], batch)
    if len(batches.names) < 2:
        raise ValueError(f"all {len(rows)} controls are of {batches.names[0]}; two batches can be told apart, not one")
    table = pd.DataFrame({"batch": batches.codes, "well": np.arange(len(rows))})
    return nearest_mechanism(features[rows], table, "batch", ("well",))

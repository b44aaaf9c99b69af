"""Treatments that cannot be told from their batch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.groups import group_rows


def in_one_batch_alone(metadata: pd.DataFrame, treatment: Sequence[str], batch: Sequence[str]) -> np.ndarray:
    """Which treatments of several wells are in a single batch: what sets them apart may be the batch.

    Args:
        metadata: N rows, of wells, without controls.
        treatment: columns that name a treatment.
        batch: columns that name a batch.

    Returns:
        [T] bool, treatments in the sorted order of their values; all False where there is one batch.

    Raises:
        ValueError: what `group_rows` refuses.
    """
    treatments, batches = group_rows(metadata, treatment), group_rows(metadata, batch)
    wells = np.bincount(treatments.codes)
    pairs = pd.DataFrame({"treatment": treatments.codes, "batch": batches.codes}).drop_duplicates()
    in_batches = np.bincount(pairs["treatment"], minlength=len(wells))
    return (wells > 1) & (in_batches == 1) & (len(batches.names) > 1)

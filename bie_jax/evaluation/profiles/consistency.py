"""Do treatments of one mechanism resemble each other more than those of others?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.average_precision import PairRule, average_precision


def consistency_average_precision(
    features: np.ndarray,
    metadata: pd.DataFrame,
    mechanism: str,
    across: Sequence[str],
    asked: np.ndarray | None = None,
) -> pd.DataFrame:
    """Average precision of profiles of the same mechanism among those of all others.

    Phenotypic consistency of Kalinin et al. 2025 (doi 10.1038/s41467-025-60306-2).

    Args:
        features: [N, D] finite, of treatments as a rule, controls and unknown mechanisms left out.
        metadata: N rows.
        mechanism: column with the mechanism.
        across: columns in which two profiles of a mechanism must differ: ("compound",) keeps the concentrations of one
            compound from counting as two witnesses; () for none.
        asked: [N] bool, profiles that get a score; None: all.

    Returns:
        As `average_precision`; a mechanism of a single profile, or compound, has no score.

    Raises:
        ValueError: no two profiles of one mechanism, or one mechanism alone.
    """
    positive, negative = PairRule((mechanism,), tuple(across)), PairRule((), (mechanism,))
    return average_precision(features, metadata, positive, negative, asked)

"""Numbers that stand beside an embedding, scored without it: what an embedding gains by them is not its own."""

from collections.abc import Sequence

import numpy as np

from bie_jax.evaluation.feature_set import FeatureSet
from bie_jax.evaluation.scores.keys import APPENDED


def appended_columns(hand_made: Sequence[FeatureSet], appended: np.ndarray, names: Sequence[str]) -> list[FeatureSet]:
    """The numbers [N, A] by themselves, and beside the fullest of the hand-made features; none without names."""
    if not names:
        return []
    listed = ", ".join(names)
    alone = FeatureSet(APPENDED, "Appended columns", f"What stands beside the embedding, alone: {listed}.", appended)
    if not hand_made or hand_made[-1].components is not None:
        return [alone]
    fullest = hand_made[-1]
    beside = FeatureSet(
        f"{fullest.key}_{APPENDED}",
        f"{fullest.title}, appended columns",
        f"{fullest.description} Beside them {listed}, as beside the embedding.",
        np.concatenate([fullest.features, appended], axis=1),
    )
    return [alone, beside]

"""What average precision would be if similarity said nothing: its values over random orders."""

import dataclasses
from typing import Literal

import numpy as np
import pandas as pd

from bie_jax.evaluation.profiles.checks import check_choice

Draw = Literal["permute", "choose"]

# Places that are shuffled at a time: 16 MB.
_PLACES_HELD = 2**22


@dataclasses.dataclass(frozen=True)
class RandomOrder:
    """Draws for every number of positives and of pairs that occurs.

    Attributes:
        configurations: [C, 2] int64, positives and pairs, sorted, each once.
        values: [C, size] float64, average precisions.
    """

    configurations: np.ndarray
    values: np.ndarray


def draw_random_orders(scores: pd.DataFrame, size: int, seed: int, draw: Draw) -> RandomOrder:
    """Average precisions of random orders, for each of the numbers of pairs among the scores.

    They depend on the metadata alone, so that all sets of features of the same rows can be held against one draw.

    Args:
        scores: as `average_precision` gives them; rows without a score are left out.
        size: how many orders for each numbers of pairs, at least 1. No p-value is below 1 / (size + 1).
        seed: of the draws.
        draw: "permute": all L places are shuffled, with the random numbers that copairs 0.5.5 draws from the same seed
            (`map.mean_average_precision` with an empty cache); time grows with L. "choose": the places of the M
            positives are drawn without the others, from other random numbers; time grows with M.

    Raises:
        ValueError: a size below 1, or no row with a score.
    """
    check_choice(draw, ("permute", "choose"), "draw")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    scored = scores["average_precision"].notna().to_numpy()
    if not scored.any():
        raise ValueError("no profile has an average precision, so there is nothing to draw for")
    configurations = np.unique(scores.loc[scored, ["n_pos_pairs", "n_total_pairs"]].to_numpy(dtype=np.int64), axis=0)
    seeds = np.random.default_rng(seed).integers(8096, size=len(configurations))
    values = np.empty((len(configurations), size))
    for row, ((positives, total), seed_of_row) in enumerate(zip(configurations, seeds)):
        rng = np.random.default_rng(seed_of_row)
        block = size if draw == "choose" else max(1, _PLACES_HELD // total)
        for start in range(0, size, block):
            count = min(block, size - start)
            if draw == "permute":
                places = np.tile(np.arange(total, dtype=np.uint32), (count, 1))
                places = rng.permuted(places, axis=1, out=places)[:, :positives]
            else:
                places = np.stack([rng.choice(total, positives, replace=False, shuffle=False) for _ in range(count)])
            found = np.sort(places, axis=1).astype(np.int64) + 1
            values[row, start : start + count] = (np.arange(1, positives + 1) / found).mean(axis=1)
    return RandomOrder(configurations, values)

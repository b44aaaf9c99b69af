"""How far a mean over treatments would move if others had been tested."""

import numpy as np

_NUMBERS_HELD = 10**7  # of resamples times values at a time: 80 MB


def interval_of_mean(values: np.ndarray, resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a mean, by the bootstrap: treatments are drawn with replacement (Efron 1979).

    Args:
        values: [n] of treatments, wells or mechanisms, at least one.
        resamples: at least 1.
        seed: of the resampling.
        level: coverage asked for, in (0, 1).

    Returns:
        Lower and upper end.
    """
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _NUMBERS_HELD // len(values))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        means[start : start + count] = values[rng.integers(len(values), size=(count, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

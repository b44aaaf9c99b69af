"""The nearest of many: places of the largest similarities."""

import numpy as np


def first_largest(values: np.ndarray, k: int) -> np.ndarray:
    """[n, k] places of the k largest of each row [n, N], falling; of equal values the first ones."""
    k = min(k, values.shape[1])
    if k == 1:
        return values.argmax(axis=1)[:, None]
    least = np.partition(values, values.shape[1] - k, axis=1)[:, values.shape[1] - k]
    chosen = np.empty((len(values), k), dtype=np.int64)
    for row, (line, bound) in enumerate(zip(values, least)):
        found = np.flatnonzero(line >= bound)
        chosen[row] = found[np.argsort(-line[found], kind="stable")[:k]]
    return chosen

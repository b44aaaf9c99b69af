"""How the codes of a VQ-VAE are used."""

import math
from typing import Self

import numpy as np

from bie_jax.models.quantizers.lookup import capacity_bits


class CodeUse:
    """How often each code occurs.

    Attributes:
        counts: [G, K] int64.
        positions: vectors per image.
    """

    def __init__(self, counts: np.ndarray, positions: int):
        """What was counted so far."""
        self.counts = counts
        self.positions = positions

    @classmethod
    def none_of(cls, num_codes: int, shape: tuple[int, ...]) -> Self:
        """Nothing counted; `shape` is that of a batch's codes, [B, ..., G]."""
        return cls(np.zeros((shape[-1], num_codes), np.int64), math.prod(shape[1:-1]))

    def add(self, codes: np.ndarray) -> None:
        """Count codes [B, ..., G]."""
        for counts, values in zip(self.counts, np.moveaxis(codes, -1, 0), strict=True):
            counts += np.bincount(values.ravel(), minlength=len(counts))

    @property
    def capacity_bits(self) -> float:
        """Most bits that the codes of an image can hold: positions x G x log2 K."""
        return capacity_bits(self.positions, *self.counts.shape)

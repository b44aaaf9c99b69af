"""How the codes of a VQ-VAE are used."""

import math

import numpy as np

from bie_jax.models.quantizers.lookup import capacity_bits


class CodeUse:
    """How often each code occurs.

    Attributes:
        counts: [G, K] int64.
        positions: vectors per image.
    """

    def __init__(self, num_codes: int, shape: tuple[int, ...]):
        """Nothing counted; `shape` is that of a batch's codes, [B, ..., G]."""
        self.counts = np.zeros((shape[-1], num_codes), np.int64)
        self.positions = math.prod(shape[1:-1])

    def add(self, codes: np.ndarray) -> None:
        """Count codes [B, ..., G]."""
        for counts, values in zip(self.counts, np.moveaxis(codes, -1, 0), strict=True):
            counts += np.bincount(values.ravel(), minlength=len(counts))

    @property
    def capacity_bits(self) -> float:
        """Most bits that the codes of an image can hold: positions x G x log2 K."""
        return capacity_bits(self.positions, *self.counts.shape)

"""Finite scalar quantization: Mentzer et al. 2023, "Finite Scalar Quantization", arXiv 2309.15505."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.models.quantizers.lookup import SOFTNESS, as_vectors, perplexity, straight_through

# The eps of the paper's listing: bounded values stay inside the outermost levels, which rounding still reaches.
_MARGIN = 1e-3


class FiniteScalarQuantizer(nn.Module):
    """Round every number of a vector to one of a few levels; a code is the combination of them.

    There is no codebook, nothing to learn and no loss to add, and every code can be reached.

    Attributes:
        levels: L_i per number of the vector, each at least 2 (the paper finds 5 and more best); K is their product.
    """

    levels: tuple[int, ...]

    @property
    def vector_dim(self) -> int:
        """Numbers that are quantized together, D."""
        return len(self.levels)

    @property
    def num_codes(self) -> int:
        """K."""
        return math.prod(self.levels)

    @property
    def num_codebooks(self) -> int:
        """Codes that one vector becomes."""
        return 1

    @nn.compact
    def __call__(
        self, z_e: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Quantize.

        Args:
            z_e: [B, ..., D] float, of any size; tanh bounds it.
            valid: [B] bool, examples that count; None: all. Others are read as zeros and get no gradient.
            train: changes nothing.

        Returns:
            z_q: [B, ..., D], numbers in [-1, 1], multiples of 1 / (L_i // 2); rounding hands its gradient on unchanged.
            out: as `VectorQuantizer`, G = 1: `codes` sum_i digit_i prod_{j<i} L_j with digits from 0; `commitment` and
                `loss` 0; `shares` softmax(-||b - l||^2 / (4 D / 12)) of the bounded vector b over all combinations l of
                levels, which is what the other quantizers have with the distortion of rounding, 1/12 per number, in the
                place of a measured one. (Shares of 0 and 1 would leave an embedding made of them without a gradient.)

        Raises:
            ValueError: if the last axis is not D or `valid` is not [B].
        """
        del train
        vectors, counted = as_vectors(z_e, valid, 1, self.vector_dim)
        bounded = self._bound(vectors[:, 0])  # [M, D]
        rounded = jnp.round(bounded)
        half_width = jnp.asarray(self.levels) // 2
        z_q = straight_through(bounded, rounded) / half_width[None].astype(jnp.float32)

        digits = rounded.astype(jnp.int32) + half_width[None]
        codes = (digits * jnp.asarray(self._place_values())[None]).sum(axis=-1)
        # Sums of ones are exact in any order.
        code_counts = jnp.zeros(self.num_codes).at[codes].add(counted)[None]
        positions = z_e.shape[:-1]
        return z_q.reshape(z_e.shape).astype(z_e.dtype), {
            "codes": codes.reshape(*positions, 1),
            "commitment": jnp.zeros(positions),
            "loss": jnp.zeros(()),
            "perplexity": perplexity(code_counts),
            "code_counts": code_counts,
            "shares": self._shares(bounded).reshape(*positions, 1, self.num_codes),
        }

    def values(self, codes: jax.Array) -> jax.Array:
        """z_q of codes: [..., 1] int32 -> [..., D] float32."""
        levels = jnp.asarray(self.levels)
        leading = (1,) * (codes.ndim - 1)
        digits = codes // jnp.asarray(self._place_values()).reshape(*leading, -1) % levels.reshape(*leading, -1)
        half_width = (levels // 2).reshape(*leading, -1)
        return (digits - half_width) / half_width

    def _place_values(self) -> np.ndarray:
        """What a digit of each place is worth, [D] int32: 1, L_1, L_1 L_2, ..."""
        return np.cumprod((1, *self.levels[:-1])).astype(np.int32)

    def _bound(self, vectors: jax.Array) -> jax.Array:
        """[M, D] -> [M, D], number i between the lowest and the highest of its L_i levels (appendix A.1).

        An even number of levels cannot lie symmetrically around 0 on integers: they are shifted down by a half, and the
        argument of tanh is shifted up so that 0 stays near 0.
        """
        levels = np.asarray(self.levels)
        half = (levels - 1) * (1 - _MARGIN) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        shift, half, offset = (jnp.asarray(row, jnp.float32)[None] for row in (np.tan(offset / half), half, offset))
        return jnp.tanh(vectors + shift) * half - offset

    def _shares(self, bounded: jax.Array) -> jax.Array:
        """[M, D] -> [M, K]: a softmax over a grid is the product of those over its axes."""
        shares = jnp.ones((len(bounded), 1))
        for i, count in enumerate(self.levels):
            level = jnp.arange(count) - count // 2
            distances = jnp.square(bounded[:, i, None] - level[None].astype(jnp.float32))
            axis = jax.nn.softmax(-distances / (SOFTNESS * len(self.levels) / 12), axis=-1)
            # Later numbers have the higher place values.
            shares = (axis[:, :, None] * shares[:, None, :]).reshape(len(bounded), -1)
        return shares

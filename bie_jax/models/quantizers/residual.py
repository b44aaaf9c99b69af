"""Residual vector quantization: SoundStream (Zeghidour et al. 2021, arXiv 2107.03312) and RQ-VAE (Lee et al. 2022,
arXiv 2203.01941)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.quantizers.lookup import straight_through, without_invalid


class ResidualQuantizer(nn.Module):
    """Quantize, then quantize what was left over, and so on; a vector becomes the sum of one code per level.

    The levels are one scanned quantizer whose parameters and codebooks carry a leading axis of length num_residuals, so
    compile time does not grow with the levels. Each level starts from k-means, where the quantizer does, on what the
    levels before it, started themselves, leave over.

    Attributes:
        quantizer: a `VectorQuantizer` or `GradientVectorQuantizer`, the same settings for every level.
        num_residuals: levels, L.
    """

    quantizer: nn.Module
    num_residuals: int

    @property
    def vector_dim(self) -> int:
        """Numbers that are quantized together."""
        return self.quantizer.vector_dim

    @property
    def num_codes(self) -> int:
        """K of each codebook."""
        return self.quantizer.num_codes

    @property
    def num_codebooks(self) -> int:
        """Codes that one vector becomes: one per level and group, G."""
        return self.num_residuals * self.quantizer.num_codebooks

    @nn.compact
    def __call__(
        self, z_e: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Quantize, as `VectorQuantizer`; codebooks in order of level, groups of a level side by side.

        `commitment` is the sum over levels, which for level l is beta ||z_e - sg[e_1 + ... + e_l]||^2 (Lee et al.,
        section 3.1), and with a codebook learned by gradient alpha ||sg[residual] - e_l||^2. The gradient of z_q
        reaches z_e once, not once per level.
        """
        vectors = without_invalid(z_e, valid).astype(jnp.float32)

        def level(
            quantizer: nn.Module, carry: tuple[jax.Array, jax.Array], _: None
        ) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
            residual, total = carry
            nearest, out = quantizer(residual, valid, train=train)
            nearest = jax.lax.stop_gradient(nearest)
            del out["loss"]  # of a level alone, it would be stacked with those of the others
            return (residual - nearest, total + nearest), out

        levels = nn.scan(
            level,
            variable_axes={"params": 0, "codebook": 0},
            split_rngs={"params": True},
            length=self.num_residuals,
        )
        (_, total), outs = levels(self.quantizer, (vectors, jnp.zeros_like(vectors)), None)
        positions = z_e.shape[:-1]
        shares = jnp.moveaxis(outs["shares"], 0, -3)  # [B, ..., L, G, K]
        commitment = outs["commitment"].sum(axis=0)
        out = {
            "codes": jnp.moveaxis(outs["codes"], 0, -2).reshape(*positions, -1),
            "commitment": commitment,
            "loss": commitment.mean(),
            "perplexity": outs["perplexity"].mean(),
            "code_counts": outs["code_counts"].reshape(-1, self.num_codes),
            "shares": shares.reshape(*positions, -1, self.num_codes),
        }
        return straight_through(vectors, total).astype(z_e.dtype), out

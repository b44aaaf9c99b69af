"""From feature maps to exactly `latent_dim` numbers per image, and back to a map for the decoder.

Two ways to quantise (SPEC of the project, section 5.2). Pooling first and looking up one code would allow only K
different embeddings; neither does that.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.conv import Conv
from bie_jax.models.quantizer import VectorQuantizer


class GridBottleneck(nn.Module):
    """Quantise every position of the map with codes of length latent_dim; the embedding is their mean over positions.

    The mean of the codes is the image's histogram of codes, seen through the codebook: what occurs and how often, not
    where. Input size is free, since nothing here depends on the size of the map.
    """

    latent_dim: int
    num_codes: int
    commitment_cost: float
    ema_decay: float
    restart_threshold: float

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> decoder input [B, h, w, latent_dim] and `out` (see `VQVAE`)."""
        z_e = Conv(self.latent_dim, (1, 1))(features)
        quantizer = VectorQuantizer(
            self.num_codes, self.latent_dim, self.commitment_cost, self.ema_decay, self.restart_threshold
        )
        z_q, out = quantizer(z_e, train=train)
        out["embedding"] = z_e.mean(axis=(1, 2))
        out["commitment"] = out["commitment"].mean(axis=(1, 2))
        out["code_counts"] = out["code_counts"][None]
        return z_q, out


class GroupedBottleneck(nn.Module):
    """Pool the map, project to latent_dim numbers, quantise them in groups with a codebook each.

    The decoder's map is a dense projection of the quantised vector. (A vector repeated over all positions would be a
    constant map, which a convolutional decoder can shade only from the borders.)
    """

    latent_dim: int
    num_groups: int
    num_codes: int
    commitment_cost: float
    ema_decay: float
    restart_threshold: float

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> decoder input [B, h, w, F] and `out` (see `VQVAE`)."""
        shape = features.shape
        z_e = nn.Dense(self.latent_dim)(features.mean(axis=(1, 2)))  # [B, d]
        parts = [
            VectorQuantizer(
                self.num_codes,
                self.latent_dim // self.num_groups,
                self.commitment_cost,
                self.ema_decay,
                self.restart_threshold,
            )(group, train=train)
            for group in jnp.split(z_e, self.num_groups, axis=-1)
        ]
        z_q = jnp.concatenate([z for z, _ in parts], axis=-1)
        z = nn.Dense(math.prod(shape[1:]))(z_q).reshape(shape)  # [B, h, w, F]
        outs = [out for _, out in parts]
        return z, {
            "codes": jnp.stack([out["codes"] for out in outs], axis=-1),  # [B, G]
            "commitment": jnp.stack([out["commitment"] for out in outs]).sum(axis=0),
            "perplexity": jnp.stack([out["perplexity"] for out in outs]).mean(),
            "code_counts": jnp.stack([out["code_counts"] for out in outs]),
            "embedding": z_e,
        }


class TwoLevelBottleneck(nn.Module):
    """A grid of codes for what is where, and `latent_dim` numbers for what is the same everywhere.

    After the top level of VQ-VAE-2 (Razavi et al. 2019, arXiv 1906.00446), here one vector per image.
    """

    latent_dim: int
    num_groups: int
    code_dim: int
    num_codes: int
    commitment_cost: float
    ema_decay: float
    restart_threshold: float

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        shared = (self.commitment_cost, self.ema_decay, self.restart_threshold)
        width = features.shape[-1]
        top = nn.Dense(self.latent_dim)(nn.relu(nn.Dense(2 * width)(features.mean(axis=(1, 2)))))
        parts = [
            VectorQuantizer(self.num_codes, self.latent_dim // self.num_groups, *shared)(group, train=train)
            for group in jnp.split(top, self.num_groups, axis=-1)
        ]
        z_top = jnp.concatenate([z for z, _ in parts], axis=-1)
        grid = Conv(self.code_dim, (1, 1))(features)
        grid = grid - grid.mean(axis=(1, 2), keepdims=True)
        grid = grid * jax.lax.rsqrt(jnp.square(grid).mean(axis=(1, 2), keepdims=True) + 1e-3)
        z_grid, grid_out = VectorQuantizer(self.num_codes, self.code_dim, *shared)(grid, train=train)
        scale, shift = jnp.split(nn.Dense(2 * width)(z_top)[:, None, None], 2, axis=-1)
        z = Conv(width, (1, 1))(z_grid) * (1 + scale) + shift
        outs = [out for _, out in parts]
        return z, {
            "codes": grid_out["codes"],
            "commitment": jnp.stack([out["commitment"] for out in outs]).sum(axis=0) + grid_out["commitment"].mean(axis=(1, 2)),
            "perplexity": grid_out["perplexity"],
            "top_perplexity": jnp.stack([out["perplexity"] for out in outs]).mean(),
            "code_counts": jnp.stack([grid_out["code_counts"]]),
            "embedding": top,
        }

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

# Width of the soft assignment below, in units of the codebook's distortion. A vector between two codes counts for both;
# `experiments/embedding` compares widths with hard assignment.
_SOFTNESS = 4.0


class GridBottleneck(nn.Module):
    """Quantise every position of the map; the embedding says how often each of the codes occurs in the image.

    Each position is shared out over the codes by softmax(-||z_e - e_k||^2 / (4 distortion)); the embedding is the
    square root of the shares' mean over positions, so that its Euclidean distance is Hellinger's between histograms,
    and its length is the number of codes. It says what there is and how much of it, not where. (The mean of the vectors
    themselves would be simpler, but that of a well-trained autoencoder is little more than the mean intensities: it
    scores below random weights, `experiments/embedding`.) Input size is free.
    """

    num_codes: int
    code_dim: int
    commitment_cost: float
    ema_decay: float
    restart_threshold: float

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> decoder input [B, h, w, code_dim] and `out` (see `VQVAE`); latent_dim is num_codes."""
        z_e = Conv(self.code_dim, (1, 1))(features)
        quantizer = VectorQuantizer(
            self.num_codes, self.code_dim, self.commitment_cost, self.ema_decay, self.restart_threshold
        )
        z_q, out = quantizer(z_e, train=train)
        softened = -out["squared_distances"] / (_SOFTNESS * out["distortion"])
        shares = jax.nn.softmax(softened, axis=-1).mean(axis=(1, 2))  # [B, K]
        return z_q, {
            "codes": out["codes"],
            "commitment": out["commitment"].mean(axis=(1, 2)),
            "perplexity": out["perplexity"],
            "code_counts": out["code_counts"][None],
            "embedding": jnp.sqrt(shares),
        }


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

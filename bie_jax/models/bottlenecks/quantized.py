"""The bottlenecks of "vqvae": codes of every position of the map, or of the pooled vector."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.conv import Conv
from bie_jax.models.layers.dense import Dense
from bie_jax.models.layers.spread import Spread


class GridBottleneck(nn.Module):
    """Quantize every position of the map; the embedding says how often each of the codes occurs in the image.

    Each position is shared out over the codes of each of G codebooks (`shares` of `VectorQuantizer`); the embedding is
    the square root of the shares' mean over positions, so that its Euclidean distance is Hellinger's between
    histograms, and its length is G K. It says what there is and how much of it, not where. (The mean of the vectors
    themselves would be simpler, but that of a well-trained autoencoder is little more than the mean intensities: it
    scores below random weights, `experiments/embedding`.) Input size is free.

    Attributes:
        quantizer: see `VectorQuantizer`.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    quantizer: nn.Module
    cpu_kernels: bool = True

    @nn.compact
    def __call__(
        self, features: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> [B, h, w, D] of the quantizer's D, and `out` with `codes` [B, h, w, G]."""
        z_e = Conv(self.quantizer.vector_dim, (1, 1), cpu_kernels=self.cpu_kernels)(features)
        z_q, out = self.quantizer(z_e, valid, train=train)
        shares = out["shares"].mean(axis=(1, 2)).reshape(len(z_e), -1)  # [B, G K]
        # The floor bounds the gradient: a share can underflow to 0, where that of the root is infinite.
        embedding = jnp.sqrt(jnp.maximum(shares, 1e-12)).astype(features.dtype)
        return z_q, _of_codes(out, out["commitment"].mean(axis=(1, 2))) | {"embedding": embedding}


class PooledBottleneck(nn.Module):
    """Pool the map, project to latent_dim numbers (the embedding), quantize them, spread them over a map again.

    Attributes:
        quantizer: see `VectorQuantizer`; its D is latent_dim, and its groups make one code each.
        spread: see `Spread`.
        map_features: channels of the decoder's input.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    quantizer: nn.Module
    spread: Literal["dense", "broadcast"]
    map_features: int
    cpu_kernels: bool = True

    def setup(self) -> None:
        """The parts."""
        self.project = Dense(self.quantizer.vector_dim, cpu_kernels=self.cpu_kernels)
        self.to_map = Spread(self.spread, self.map_features, self.cpu_kernels)

    def __call__(
        self, features: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> [B, h, w, map_features], and `out` with `codes` [B, G]."""
        z_e = self.project(features.mean(axis=(1, 2)))  # [B, d]
        z_q, out = self.quantizer(z_e, valid, train=train)
        z = self.to_map(z_q, *features.shape[1:3])
        return z, _of_codes(out, out["commitment"]) | {"embedding": z_e}

    def decode(self, embedding: jax.Array, height: int, width: int) -> jax.Array:
        """Quantize, and spread."""
        return self.to_map(self.quantizer(embedding, None, train=False)[0], height, width)


def _of_codes(out: dict[str, jax.Array], commitment: jax.Array) -> dict[str, jax.Array]:
    """What a quantizing bottleneck hands on; `commitment` [B]."""
    return {name: out[name] for name in ("codes", "perplexity", "code_counts")} | {"commitment": commitment}

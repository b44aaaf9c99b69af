"""From feature maps to exactly `latent_dim` numbers per image, and back to a map for the decoder.

All have one call: features [B, h, w, F] and `valid` [B] bool (examples that count; None: all) to the decoder's input
[B, h, w, *] and `out`, which has `embedding` [B, latent_dim]. With a quantizer `out` also has `codes`, `commitment`
[B], `perplexity` and `code_counts` (see `VectorQuantizer`). One code for a whole image would allow only K different
reconstructions: quantize the grid, or the pooled vector in several groups.

Those that have one vector per image also have `decode`: that vector [B, latent_dim] to the decoder's input.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.conv import Conv
from bie_jax.models.layers.dense import Dense


class GridBottleneck(nn.Module):
    """Quantize every position of the map; the embedding says how often each of the codes occurs in the image.

    Each position is shared out over the codes of each of G codebooks (`shares` of `VectorQuantizer`); the embedding is
    the square root of the shares' mean over positions, so that its Euclidean distance is Hellinger's between
    histograms, and its length is G K. It says what there is and how much of it, not where. (The mean of the vectors
    themselves would be simpler, but that of a well-trained autoencoder is little more than the mean intensities: it
    scores below random weights, `experiments/embedding`.) Input size is free.

    Attributes:
        quantizer: see `VectorQuantizer`.
    """

    quantizer: nn.Module

    @nn.compact
    def __call__(
        self, features: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> [B, h, w, D] of the quantizer's D, and `out` with `codes` [B, h, w, G]."""
        z_e = Conv(self.quantizer.vector_dim, (1, 1))(features)
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
    """

    quantizer: nn.Module
    spread: Literal["dense", "broadcast"]
    map_features: int

    def setup(self) -> None:
        """The parts."""
        self.project = Dense(self.quantizer.vector_dim)
        self.to_map = Spread(self.spread, self.map_features)

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


class DenseBottleneck(nn.Module):
    """Pool the map, project to latent_dim numbers (the embedding), spread them over a map again.

    Attributes:
        latent_dim: d, any number from 1 on.
        spread: see `Spread`.
        map_features: channels of the decoder's input.
    """

    latent_dim: int
    spread: Literal["dense", "broadcast"]
    map_features: int

    def setup(self) -> None:
        """The parts."""
        self.project = Dense(self.latent_dim)
        self.to_map = Spread(self.spread, self.map_features)

    def __call__(
        self, features: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> [B, h, w, map_features] and `out`; `valid` and `train` change nothing."""
        del valid, train
        embedding = self.project(features.mean(axis=(1, 2)))  # [B, d]
        return self.to_map(embedding, *features.shape[1:3]), {"embedding": embedding}

    def decode(self, embedding: jax.Array, height: int, width: int) -> jax.Array:
        """Spread."""
        return self.to_map(embedding, height, width)


class GaussianBottleneck(nn.Module):
    """The approximate posterior q(z|x) = N(mean, exp(logvar)) of a VAE (Kingma & Welling 2013, arXiv 1312.6114).

    With `train` the map is spread from a sample, mean + exp(logvar / 2) noise, noise from the key "noise"; without it
    from the mean. The embedding is the mean either way.

    Attributes:
        latent_dim: d, any number from 1 on.
        spread: see `Spread`.
        map_features: channels of the decoder's input.
    """

    latent_dim: int
    spread: Literal["dense", "broadcast"]
    map_features: int

    def setup(self) -> None:
        """The parts."""
        self.mean = Dense(self.latent_dim)
        self.logvar = Dense(self.latent_dim)
        self.to_map = Spread(self.spread, self.map_features)

    def __call__(
        self, features: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> [B, h, w, map_features], and `out` with `mean` and `logvar` [B, d]; `valid` has no say."""
        del valid
        pooled = features.mean(axis=(1, 2))
        mean, logvar = self.mean(pooled), self.logvar(pooled)
        z = mean
        if train:
            # Drawn in float32 whatever is computed in: normals of bfloat16 are 128 values, -2.9 to 2.5, of mean -0.012.
            noise = jax.random.normal(self.make_rng("noise"), mean.shape, jnp.float32).astype(mean.dtype)
            z = mean + jnp.exp(0.5 * logvar) * noise
        out = {"embedding": mean, "mean": mean, "logvar": logvar}
        return self.to_map(z, *features.shape[1:3]), out

    def decode(self, embedding: jax.Array, height: int, width: int) -> jax.Array:
        """Spread."""
        return self.to_map(embedding, height, width)


class Spread(nn.Module):
    """A vector over the positions of a map: [B, d] -> [B, h, w, map_features].

    A vector that is only repeated makes a constant map, which a convolutional decoder can shade from the borders
    alone. Two ways out: "dense" has weights for every position, for one map size; "broadcast" gives every position the
    vector and its own place (Watters et al. 2019, arXiv 1901.07017) at any size, for a decoder to combine.

    Attributes:
        kind: which.
        map_features: channels of the map.
    """

    kind: Literal["dense", "broadcast"]
    map_features: int

    @nn.compact
    def __call__(self, z: jax.Array, height: int, width: int) -> jax.Array:
        """Spread over height h and width w."""
        if self.kind == "dense":
            return Dense(height * width * self.map_features)(z).reshape(-1, height, width, self.map_features)
        # A 1x1 convolution of vector and place side by side is the sum of one of each. With weights of their own, two
        # numbers of place are not drowned by thousands of the vector at the start.
        place = Dense(self.map_features, use_bias=False, name="place")(_places(height, width).astype(z.dtype))
        vector = Dense(self.map_features, name="vector")(z)[:, None, None, :]
        shape = (len(z), height, width, self.map_features)
        return broadcast(vector, shape) + broadcast(place, shape)


def _places(height: int, width: int) -> jax.Array:
    """Row and column of every position's center, from -1 to 1 at the map's borders: [h, w, 2]."""
    row, column = ((2.0 * jnp.arange(n) + 1) / n - 1 for n in (height, width))
    return jnp.stack(jnp.meshgrid(row, column, indexing="ij"), axis=-1)


def _of_codes(out: dict[str, jax.Array], commitment: jax.Array) -> dict[str, jax.Array]:
    """What a quantizing bottleneck hands on; `commitment` [B]."""
    return {name: out[name] for name in ("codes", "perplexity", "code_counts")} | {"commitment": commitment}

"""The bottleneck of "vae": the mean and the variance of a vector."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.dense import Dense
from bie_jax.models.layers.spread import Spread


class GaussianBottleneck(nn.Module):
    """The approximate posterior q(z|x) = N(mean, exp(logvar)) of a VAE (Kingma & Welling 2013, arXiv 1312.6114).

    With `train` the map is spread from a sample, mean + exp(logvar / 2) noise, noise from the key "noise"; without it
    from the mean. The embedding is the mean either way.

    Attributes:
        latent_dim: d, any number from 1 on.
        spread: see `Spread`.
        map_features: channels of the decoder's input.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    latent_dim: int
    spread: Literal["dense", "broadcast"]
    map_features: int
    cpu_kernels: bool = True

    def setup(self) -> None:
        """The parts."""
        self.mean = Dense(self.latent_dim, cpu_kernels=self.cpu_kernels)
        self.logvar = Dense(self.latent_dim, cpu_kernels=self.cpu_kernels)
        self.to_map = Spread(self.spread, self.map_features, self.cpu_kernels)

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

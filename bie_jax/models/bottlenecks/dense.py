"""The bottleneck of "ae": a vector."""

from typing import Literal

import flax.linen as nn
import jax

from bie_jax.models.layers.dense import Dense
from bie_jax.models.layers.spread import Spread


class DenseBottleneck(nn.Module):
    """Pool the map, project to latent_dim numbers (the embedding), spread them over a map again.

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
        self.project = Dense(self.latent_dim, cpu_kernels=self.cpu_kernels)
        self.to_map = Spread(self.spread, self.map_features, self.cpu_kernels)

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

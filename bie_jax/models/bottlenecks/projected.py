"""The bottleneck of methods that compare views and draw nothing: a vector from which nothing is made."""

import flax.linen as nn
import jax

from bie_jax.models.layers.dense import Dense


class ProjectedBottleneck(nn.Module):
    """Pool the map and project to latent_dim numbers, the embedding.

    Attributes:
        latent_dim: d, any number from 1 on.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    latent_dim: int
    cpu_kernels: bool = True

    @nn.compact
    def __call__(
        self, features: jax.Array, valid: jax.Array | None = None, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """[B, h, w, F] -> the embedding, twice: where decoders have their input, and in `out`."""
        del valid, train
        embedding = Dense(self.latent_dim, cpu_kernels=self.cpu_kernels, name="project")(features.mean(axis=(1, 2)))
        return embedding, {"embedding": embedding}

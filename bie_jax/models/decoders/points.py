"""A decoder of an outline's points, whose distances are the matrix."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.models.layers.dense import Dense
from bie_jax.shapes.distance_matrix import normalized_distances

_HIDDEN = 512  # width of the hidden layers


class PointsDecoder(nn.Module):
    """[B, h, w, F] -> P points, and their normalized distances [B, P, P, 1].

    What comes out is a distance matrix by construction: its diagonal is zero, it is symmetric, not negative, and keeps
    the triangle inequality.

    Attributes:
        num_points: P.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    num_points: int
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode; `valid` and `train` change nothing."""
        del valid, train
        x = z.reshape(len(z), -1)
        for number in range(2):
            x = nn.gelu(Dense(_HIDDEN, cpu_kernels=self.cpu_kernels, name=f"layer{number + 1}")(x))
        points = Dense(2 * self.num_points, cpu_kernels=self.cpu_kernels, name="points")(x)
        points = points.reshape(-1, self.num_points, 2)
        # A circle to begin with: from points in one place there is no way out.
        angle = 2 * np.pi * np.arange(self.num_points) / self.num_points
        circle = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        return normalized_distances(points + jnp.asarray(circle, points.dtype)[None])[0][..., None]

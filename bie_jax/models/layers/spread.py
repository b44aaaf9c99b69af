"""From one vector of an image to a map."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.dense import Dense


class Spread(nn.Module):
    """A vector over the positions of a map: [B, d] -> [B, h, w, map_features].

    A vector that is only repeated makes a constant map, which a convolutional decoder can shade from the borders
    alone. Two ways out: "dense" has weights for every position, for one map size; "broadcast" gives every position the
    vector and its own place (Watters et al. 2019, arXiv 1901.07017) at any size, for a decoder to combine.

    Attributes:
        kind: which.
        map_features: channels of the map.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    kind: Literal["dense", "broadcast"]
    map_features: int
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, height: int, width: int) -> jax.Array:
        """Spread over height h and width w."""
        if self.kind == "dense":
            values = Dense(height * width * self.map_features, cpu_kernels=self.cpu_kernels)(z)
            return values.reshape(-1, height, width, self.map_features)
        # A 1x1 convolution of vector and place side by side is the sum of one of each. With weights of their own, two
        # numbers of place are not drowned by thousands of the vector at the start.
        dense = functools.partial(Dense, self.map_features, cpu_kernels=self.cpu_kernels)
        place = dense(use_bias=False, name="place")(_places(height, width).astype(z.dtype))
        vector = dense(name="vector")(z)[:, None, None, :]
        shape = (len(z), height, width, self.map_features)
        return broadcast(vector, shape) + broadcast(place, shape)


def _places(height: int, width: int) -> jax.Array:
    """Row and column of every position's center, from -1 to 1 at the map's borders: [h, w, 2]."""
    row, column = ((2.0 * jnp.arange(n) + 1) / n - 1 for n in (height, width))
    return jnp.stack(jnp.meshgrid(row, column, indexing="ij"), axis=-1)

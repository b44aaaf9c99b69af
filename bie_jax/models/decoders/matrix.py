"""A decoder of any matrix of the size of a distance matrix."""

import functools

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import Conv
from bie_jax.models.layers.dense import Dense
from bie_jax.models.layers.norm import layer_norm
from bie_jax.models.layers.resize import upsample

# Sides of the map that a matrix grows from are P over this.
GROWTH = 8


class MatrixDecoder(nn.Module):
    """[B, h, w, F] -> any [B, P, P, 1]: a small map, doubled three times with a circular convolution after each.

    Attributes:
        num_points: P, a multiple of 8.
        width: channels of the maps.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    num_points: int
    width: int = 32
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode; `valid` and `train` change nothing."""
        del valid, train
        side = self.num_points // GROWTH
        x = Dense(side * side * self.width, cpu_kernels=self.cpu_kernels, name="map")(z.reshape(len(z), -1))
        x = nn.gelu(x.reshape(-1, side, side, self.width))
        conv = functools.partial(
            Conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)), padding_mode="circular", cpu_kernels=self.cpu_kernels
        )
        for number in range(3):
            x = conv(self.width, name=f"conv{number + 1}")(upsample(x))
            x = nn.gelu(layer_norm(1e-6, f"LayerNorm_{number}")(x))
        return conv(1, name="output")(x)

"""The decoder that mirrors a vision transformer: the same blocks over the positions of a map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.norm import layer_norm
from bie_jax.models.layers.patches import unpatchify
from bie_jax.models.layers.positions import sincos_positions
from bie_jax.models.layers.transformer import ViTSize, dense, stack_of_blocks


class ViTDecoder(nn.Module):
    """[B, h, w, *] -> [B, p h, p w, num_channels]: blocks over the map's positions, linear output.

    Any map size; positions are `sincos_positions`. Width, depth and heads are by default those of He et al.'s decoder.
    """

    num_channels: int
    patch_size: int
    width: int = 512
    depth: int = 8
    heads: int = 16
    norm_epsilon: float = 1e-6
    remat: bool = False
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode a grid of latents; there are no batch statistics, so `valid` and `train` change nothing."""
        del valid, train
        b, rows, columns, _ = z.shape
        positions = jnp.asarray(sincos_positions((rows, columns), self.width), z.dtype)
        x = dense(self.width, cpu_kernels=self.cpu_kernels, name="embed")(z)
        x = (x + positions[None]).reshape(b, rows * columns, self.width)
        size = ViTSize(self.width, self.depth, self.heads, 4 * self.width)
        blocks = stack_of_blocks(
            size,
            self.norm_epsilon,
            layer_scale=False,
            remat=self.remat,
            cpu_kernels=self.cpu_kernels,
            name="blocks",
        )
        x, _ = blocks(x, None)
        x = layer_norm(self.norm_epsilon, name="norm")(x)
        x = dense(self.patch_size**2 * self.num_channels, cpu_kernels=self.cpu_kernels, name="pred")(x)
        return unpatchify(x, (rows, columns), self.patch_size)

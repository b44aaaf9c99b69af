"""The counterpart of `ResidualStackEncoder`: the same stack, and a convolution after each step up."""

import functools

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import Conv
from bie_jax.models.layers.residual_stack import SAME, ResidualStack
from bie_jax.models.layers.resize import upsample


class ResidualStackDecoder(nn.Module):
    """[B, H/stride, W/stride, D] -> [B, H, W, C], linear output; stride = 2 ** num_halvings."""

    num_channels: int
    num_hiddens: int
    num_residual_hiddens: int
    num_residual_layers: int
    num_halvings: int
    remat: bool = False
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode a grid of latents; without normalization or dropout `valid` and `train` change nothing."""
        del valid, train
        conv = functools.partial(Conv, kernel_size=(3, 3), padding=SAME, cpu_kernels=self.cpu_kernels)
        x = conv(self.num_hiddens)(z)
        x = ResidualStack(self.num_residual_hiddens, self.num_residual_layers, self.remat, self.cpu_kernels)(x)
        for _ in range(self.num_halvings - 1):
            x = nn.relu(conv(self.num_hiddens // 2)(upsample(x)))
        return conv(self.num_channels)(upsample(x))

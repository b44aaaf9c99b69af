"""ResNet encoder and the decoder that mirrors it.

He et al. 2015, "Deep Residual Learning", arXiv 1512.03385, table 1, as torchvision defines it (explicit symmetric
padding, batch normalisation with momentum 0.1 in PyTorch's convention, which is 0.9 in flax's).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.conv import Conv, upsample

STAGE_SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # depth -> basic blocks in each of the four stages
WIDTHS = (64, 128, 256, 512)
STRIDE = 32  # input pixels for one position of the encoder's output

_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
_conv = functools.partial(Conv, use_bias=False, kernel_init=_he_normal)
_conv3x3 = functools.partial(_conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)))


def _batch_norm(train: bool) -> nn.BatchNorm:
    """Statistics over the global batch: under `jax.jit` the mean over a split axis is the mean over all devices."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; the shortcut is projected when the shape changes."""

    features: int
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H/strides, W/strides, features]."""
        h = _conv3x3(self.features, strides=self.strides)(x)
        h = nn.relu(_batch_norm(train)(h))
        h = _batch_norm(train)(_conv3x3(self.features)(h))
        if x.shape != h.shape:
            x = _batch_norm(train)(_conv(self.features, kernel_size=(1, 1), strides=self.strides)(x))
        return nn.relu(x + h)


class ResNetEncoder(nn.Module):
    """[B, H, W, C] with any C -> [B, H/32, W/32, 512]."""

    depth: int

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Encode; with `train` the batch statistics are used and updated."""
        x = _conv(WIDTHS[0], kernel_size=(7, 7), strides=2, padding=((3, 3), (3, 3)))(image)
        x = nn.relu(_batch_norm(train)(x))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros are the least values after a relu
        x = nn.max_pool(x, (3, 3), strides=(2, 2))
        for stage, (num_blocks, width) in enumerate(zip(STAGE_SIZES[self.depth], WIDTHS, strict=True)):
            for block in range(num_blocks):
                x = BasicBlock(width, strides=2 if stage > 0 and block == 0 else 1)(x, train=train)
        return x


class ResNetDecoder(nn.Module):
    """[B, h, w, D] -> [B, 32 h, 32 w, num_channels]: the encoder's stages in reverse, linear output."""

    depth: int
    num_channels: int

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Decode a grid of latents."""
        x = _conv(WIDTHS[-1], kernel_size=(1, 1))(z)
        x = nn.relu(_batch_norm(train)(x))
        for stage in reversed(range(len(WIDTHS))):
            for _ in range(STAGE_SIZES[self.depth][stage]):
                x = BasicBlock(WIDTHS[stage])(x, train=train)
            x = upsample(x)  # the last one undoes the max pooling
        x = nn.relu(_batch_norm(train)(_conv3x3(WIDTHS[0] // 2)(x)))
        return Conv(self.num_channels, (3, 3), padding=((1, 1), (1, 1)))(upsample(x))

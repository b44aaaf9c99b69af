"""The decoder that mirrors a ResNet encoder."""

import functools
from typing import Literal

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import Conv, PaddingMode
from bie_jax.models.layers.resize import upsample
from bie_jax.models.layers.resnet import BLOCKS, STAGE_SIZES, ResNetStage, batch_norm, conv1x1, conv3x3


class ResNetDecoder(nn.Module):
    """[B, h, w, D] with any D -> [B, s h, s w, num_channels]: the encoder's stages in reverse, linear output.

    Attributes:
        depth: a key of `STAGE_SIZES`.
        num_channels: C of the output.
        width: as in `ResNetEncoder`.
        stem: as in `ResNetEncoder`, whose stride s is undone.
        remat: as in `ResNetEncoder`.
        padding_mode: as in `ResNetEncoder`.
        cpu_kernels: as in `ResNetEncoder`.
    """

    depth: int
    num_channels: int
    width: int = 64
    stem: Literal["large", "small", "full"] = "large"
    remat: bool = False
    padding_mode: PaddingMode = "zeros"
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode.

        Args:
            z: [B, h, w, D] float.
            valid: [B] bool; examples that are False have no say in the statistics of the batch normalization. None: all
                have.
            train: as in `ResNetEncoder`.
        """
        block = BLOCKS[self.depth]
        sizes = STAGE_SIZES[self.depth]
        widths = [self.width * 2**index for index in range(len(sizes))]
        x = conv1x1(widths[-1] * block.expansion, cpu_kernels=self.cpu_kernels, name="entry")(z)
        x = nn.relu(batch_norm(x, valid, train, "entry_norm"))
        for index, (width, num_blocks) in reversed([*enumerate(zip(widths, sizes, strict=True))]):
            stage = ResNetStage(
                block,
                width,
                num_blocks,
                1,
                self.remat,
                self.padding_mode,
                self.cpu_kernels,
                name=f"stage{index + 1}",
            )
            x = stage(x, valid, train=train)
            if index > 0 or self.stem == "large":  # of the first stage it undoes the max pooling
                x = upsample(x)
        around = functools.partial(conv3x3, padding_mode=self.padding_mode, cpu_kernels=self.cpu_kernels)
        x = around(self.width // 2, name="exit")(x)
        x = nn.relu(batch_norm(x, valid, train, "exit_norm"))
        output = Conv(
            self.num_channels,
            (3, 3),
            padding=((1, 1), (1, 1)),
            padding_mode=self.padding_mode,
            cpu_kernels=self.cpu_kernels,
            name="output",
        )
        return output(x if self.stem == "full" else upsample(x))

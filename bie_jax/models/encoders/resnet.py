"""ResNet encoders of 18 to 152 layers: He et al. 2015, arXiv 1512.03385 (see `bie_jax.models.layers.resnet`)."""

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import PaddingMode
from bie_jax.models.layers.resize import max_pool
from bie_jax.models.layers.resnet import BLOCKS, STAGE_SIZES, WIDTHS, ResNetStage, batch_norm, conv

STRIDE = 32  # input pixels for one position of the encoder's output


class ResNetEncoder(nn.Module):
    """[B, H, W, C] with any C -> [B, H/32, W/32, F], F = 512 (depth 18, 34) or 2048 (50, 101, 152).

    Attributes:
        depth: a key of `STAGE_SIZES`.
        remat: whether the backward pass computes each block again instead of keeping what is inside it.
        padding_mode: of all convolutions and of the pooling, see `Conv`.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    depth: int
    remat: bool = False
    padding_mode: PaddingMode = "zeros"
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Encode.

        Args:
            image: [B, H, W, C] float, H and W multiples of 32.
            channel_mask: [B, C] bool, the channels that an example has; those of an example without any have no say in
                the statistics of the batch normalization. None: all.
            train: whether the statistics are the batch's, and the running ones learn from it.
        """
        valid = None if channel_mask is None else channel_mask.any(axis=-1)
        stem = conv(
            WIDTHS[0],
            (7, 7),
            strides=2,
            padding=((3, 3), (3, 3)),
            padding_mode=self.padding_mode,
            cpu_kernels=self.cpu_kernels,
            name="stem",
        )
        x = max_pool(nn.relu(batch_norm(stem(image), valid, train, "stem_norm")), self.padding_mode)
        block = BLOCKS[self.depth]
        for index, (width, num_blocks) in enumerate(zip(WIDTHS, STAGE_SIZES[self.depth], strict=True)):
            strides = 2 if index > 0 else 1
            stage = ResNetStage(
                block,
                width,
                num_blocks,
                strides,
                self.remat,
                self.padding_mode,
                self.cpu_kernels,
                name=f"stage{index + 1}",
            )
            x = stage(x, valid, train=train)
        return x

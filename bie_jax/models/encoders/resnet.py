"""ResNet encoders of 10 to 152 layers: He et al. 2015, arXiv 1512.03385 (see `bie_jax.models.layers.resnet`)."""

from typing import Literal

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import PaddingMode
from bie_jax.models.layers.noted import note_layer
from bie_jax.models.layers.resize import max_pool
from bie_jax.models.layers.resnet import BLOCKS, STAGE_SIZES, ResNetStage, batch_norm, conv

STRIDES = {"large": 32, "small": 16, "full": 8}  # stem -> input pixels for one position of the encoder's output


class ResNetEncoder(nn.Module):
    """[B, H, W, C] with any C -> [B, H/s, W/s, F], s of `STRIDES`, F = 8 width (depth to 34) or 32 width (from 50 on).

    Attributes:
        depth: a key of `STAGE_SIZES`.
        width: channels of the 3 x 3 convolutions of the first stage, doubled from stage to stage; 64 as published.
        stem: "large": a 7 x 7 convolution of stride 2 and max pooling, as published; "small": a 3 x 3 convolution of
            stride 2 alone, for small images; "full": one of stride 1, as for images of 32 pixels (the paper's section
            4.2), for single cells.
        remat: whether the backward pass computes each block again instead of keeping what is inside it.
        padding_mode: of all convolutions and of the pooling, see `Conv`.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    depth: int
    width: int = 64
    stem: Literal["large", "small", "full"] = "large"
    remat: bool = False
    padding_mode: PaddingMode = "zeros"
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Encode.

        Args:
            image: [B, H, W, C] float, H and W multiples of the stride.
            channel_mask: [B, C] bool, the channels that an example has; those of an example without any have no say in
                the statistics of the batch normalization. None: all.
            train: whether the statistics are the batch's, and the running ones learn from it.
        """
        valid = None if channel_mask is None else channel_mask.any(axis=-1)
        side, strides = {"large": (7, 2), "small": (3, 2), "full": (3, 1)}[self.stem]
        stem = conv(
            self.width,
            (side, side),
            strides=strides,
            padding=((side // 2, side // 2), (side // 2, side // 2)),
            padding_mode=self.padding_mode,
            cpu_kernels=self.cpu_kernels,
            name="stem",
        )
        x = nn.relu(batch_norm(stem(image), valid, train, "stem_norm"))
        if self.stem == "large":
            x = max_pool(x, self.padding_mode)
        block = BLOCKS[self.depth]
        for index, num_blocks in enumerate(STAGE_SIZES[self.depth]):
            strides = 2 if index > 0 else 1
            stage = ResNetStage(
                block,
                self.width * 2**index,
                num_blocks,
                strides,
                self.remat,
                self.padding_mode,
                self.cpu_kernels,
                name=f"stage{index + 1}",
            )
            x = stage(x, valid, train=train)
            note_layer(self, f"stage{index + 1}_statistics", x)
        return x

"""ResNet encoders of 18 to 152 layers and the decoder that mirrors them.

He et al. 2015, "Deep Residual Learning", arXiv 1512.03385, table 1, as torchvision and Hugging Face's `ResNetModel`
define it: explicit symmetric padding, batch normalization with momentum 0.1 in PyTorch's convention, which is 0.9 in
flax's, and the stride of a bottleneck in its 3 x 3 convolution ("v1.5"). Differs from PyTorch in one number: the
running variance is that of the batch, not n / (n - 1) times it.

The blocks of a stage after its first are equal: one scanned block, whose parameters and running statistics carry a
leading axis. Compile time is that of eight blocks at any depth.
"""

import functools

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import Conv, PaddingMode, max_pool, upsample

# depth -> blocks in each of the four stages
STAGE_SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)  # of the 3 x 3 convolutions of the four stages
STRIDE = 32  # input pixels for one position of the encoder's output

_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
_conv = functools.partial(Conv, use_bias=False, kernel_init=_he_normal)
_conv1x1 = functools.partial(_conv, kernel_size=(1, 1))
_conv3x3 = functools.partial(_conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)))


def _batch_norm(x: jax.Array, valid: jax.Array | None, train: bool, name: str) -> jax.Array:
    """Statistics over the global batch: under `jax.jit` the mean over a split axis is the mean over all devices."""
    # About the mean: the mean square less the squared mean loses its digits far from 0.
    norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5, use_fast_variance=False, name=name)
    mask = None if valid is None else valid.reshape(-1, 1, 1, 1)
    return norm(x, use_running_average=not train, mask=mask)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; the shortcut is projected when the shape changes.

    Attributes:
        width: channels of both convolutions and of the output.
        strides: of the first convolution and the shortcut.
        padding_mode: of the 3 x 3 convolutions, see `Conv`.
    """

    width: int
    strides: int = 1
    padding_mode: PaddingMode = "zeros"
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H/strides, W/strides, width]; `valid` as in `ResNetDecoder`."""
        conv3x3 = functools.partial(_conv3x3, self.width, padding_mode=self.padding_mode)
        h = conv3x3(strides=self.strides, name="conv1")(x)
        h = nn.relu(_batch_norm(h, valid, train, "norm1"))
        h = _batch_norm(conv3x3(name="conv2")(h), valid, train, "norm2")
        return nn.relu(_shortcut(x, h.shape, self.strides, valid, train) + h)


class BottleneckBlock(nn.Module):
    """1 x 1 down, 3 x 3, 1 x 1 up to four times the width, and a shortcut as in `BasicBlock`.

    Attributes:
        width: channels of the first two convolutions; the output has 4 `width`.
        strides: of the 3 x 3 convolution and the shortcut.
        padding_mode: of the 3 x 3 convolution, see `Conv`.
    """

    width: int
    strides: int = 1
    padding_mode: PaddingMode = "zeros"
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H/strides, W/strides, 4 width]; `valid` as in `ResNetDecoder`."""
        h = nn.relu(_batch_norm(_conv1x1(self.width, name="conv1")(x), valid, train, "norm1"))
        h = _conv3x3(self.width, strides=self.strides, padding_mode=self.padding_mode, name="conv2")(h)
        h = nn.relu(_batch_norm(h, valid, train, "norm2"))
        h = _batch_norm(_conv1x1(self.width * self.expansion, name="conv3")(h), valid, train, "norm3")
        return nn.relu(_shortcut(x, h.shape, self.strides, valid, train) + h)


def _shortcut(x: jax.Array, shape: tuple[int, ...], strides: int, valid: jax.Array | None, train: bool) -> jax.Array:
    if x.shape == shape:
        return x
    projected = _conv1x1(shape[-1], strides=strides, name="shortcut_conv")(x)
    return _batch_norm(projected, valid, train, "shortcut_norm")


_BLOCKS = {18: BasicBlock, 34: BasicBlock, 50: BottleneckBlock, 101: BottleneckBlock, 152: BottleneckBlock}


class _Stage(nn.Module):
    """The `first` block, which may change the shape, and the others, which are equal: the scanned `layers`."""

    depth: int
    index: int
    strides: int
    remat: bool
    padding_mode: PaddingMode

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None, *, train: bool) -> jax.Array:
        block, width = _BLOCKS[self.depth], WIDTHS[self.index]
        length = STAGE_SIZES[self.depth][self.index] - 1
        unrolled = length == 1

        def apply(block: nn.Module, x: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, None]:
            return block(x, valid, train=train), None

        def wrap(prevent_cse: bool):
            return nn.remat(apply, prevent_cse=prevent_cse) if self.remat else apply

        x, _ = wrap(prevent_cse=True)(block(width, self.strides, self.padding_mode, name="first"), x, valid)
        scan = nn.scan(
            wrap(prevent_cse=unrolled),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
            length=length,
            unroll=length if unrolled else 1,
        )
        x, _ = scan(block(width, padding_mode=self.padding_mode, name="layers"), x, valid)
        return x


class ResNetEncoder(nn.Module):
    """[B, H, W, C] with any C -> [B, H/32, W/32, F], F = 512 (depth 18, 34) or 2048 (50, 101, 152).

    Attributes:
        depth: a key of `STAGE_SIZES`.
        remat: whether the backward pass computes each block again instead of keeping what is inside it.
        padding_mode: of all convolutions and of the pooling, see `Conv`.
    """

    depth: int
    remat: bool = False
    padding_mode: PaddingMode = "zeros"

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
        mode = self.padding_mode
        stem = _conv(WIDTHS[0], (7, 7), strides=2, padding=((3, 3), (3, 3)), padding_mode=mode, name="stem")
        x = max_pool(nn.relu(_batch_norm(stem(image), valid, train, "stem_norm")), mode)
        for index in range(len(WIDTHS)):
            strides = 2 if index > 0 else 1
            stage = _Stage(self.depth, index, strides, self.remat, mode, name=f"stage{index + 1}")
            x = stage(x, valid, train=train)
        return x


class ResNetDecoder(nn.Module):
    """[B, h, w, D] with any D -> [B, 32 h, 32 w, num_channels]: the encoder's stages in reverse, linear output.

    Attributes:
        depth: a key of `STAGE_SIZES`.
        num_channels: C of the output.
        remat: as in `ResNetEncoder`.
        padding_mode: as in `ResNetEncoder`.
    """

    depth: int
    num_channels: int
    remat: bool = False
    padding_mode: PaddingMode = "zeros"

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode.

        Args:
            z: [B, h, w, D] float.
            valid: [B] bool; examples that are False have no say in the statistics of the batch normalization. None: all
                have.
            train: as in `ResNetEncoder`.
        """
        x = _conv1x1(WIDTHS[-1] * _BLOCKS[self.depth].expansion, name="entry")(z)
        x = nn.relu(_batch_norm(x, valid, train, "entry_norm"))
        for index in reversed(range(len(WIDTHS))):
            stage = _Stage(self.depth, index, 1, self.remat, self.padding_mode, name=f"stage{index + 1}")
            x = upsample(stage(x, valid, train=train))  # the last one undoes the max pooling
        x = _conv3x3(WIDTHS[0] // 2, padding_mode=self.padding_mode, name="exit")(x)
        x = nn.relu(_batch_norm(x, valid, train, "exit_norm"))
        output = Conv(
            self.num_channels, (3, 3), padding=((1, 1), (1, 1)), padding_mode=self.padding_mode, name="output"
        )
        return output(upsample(x))

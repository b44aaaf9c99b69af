"""The blocks and stages of ResNets of 10 to 152 layers.

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

from bie_jax.models.layers.conv import Conv, PaddingMode

# depth -> blocks in each of the four stages; 10 is no published one
STAGE_SIZES = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
conv = functools.partial(Conv, use_bias=False, kernel_init=_he_normal)
conv1x1 = functools.partial(conv, kernel_size=(1, 1))
conv3x3 = functools.partial(conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)))


def batch_norm(x: jax.Array, valid: jax.Array | None, train: bool, name: str) -> jax.Array:
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
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    width: int
    strides: int = 1
    padding_mode: PaddingMode = "zeros"
    cpu_kernels: bool = True
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H/strides, W/strides, width]; `valid` as in `ResNetDecoder`."""
        around = functools.partial(conv3x3, self.width, padding_mode=self.padding_mode, cpu_kernels=self.cpu_kernels)
        h = around(strides=self.strides, name="conv1")(x)
        h = nn.relu(batch_norm(h, valid, train, "norm1"))
        h = batch_norm(around(name="conv2")(h), valid, train, "norm2")
        return nn.relu(_shortcut(x, h.shape, self.strides, valid, self.cpu_kernels, train) + h)


class BottleneckBlock(nn.Module):
    """1 x 1 down, 3 x 3, 1 x 1 up to four times the width, and a shortcut as in `BasicBlock`.

    Attributes:
        width: channels of the first two convolutions; the output has 4 `width`.
        strides: of the 3 x 3 convolution and the shortcut.
        padding_mode: of the 3 x 3 convolution, see `Conv`.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    width: int
    strides: int = 1
    padding_mode: PaddingMode = "zeros"
    cpu_kernels: bool = True
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H/strides, W/strides, 4 width]; `valid` as in `ResNetDecoder`."""
        single = functools.partial(conv1x1, cpu_kernels=self.cpu_kernels)
        around = functools.partial(conv3x3, padding_mode=self.padding_mode, cpu_kernels=self.cpu_kernels)
        h = nn.relu(batch_norm(single(self.width, name="conv1")(x), valid, train, "norm1"))
        h = nn.relu(batch_norm(around(self.width, strides=self.strides, name="conv2")(h), valid, train, "norm2"))
        h = batch_norm(single(self.width * self.expansion, name="conv3")(h), valid, train, "norm3")
        return nn.relu(_shortcut(x, h.shape, self.strides, valid, self.cpu_kernels, train) + h)


def _shortcut(
    x: jax.Array, shape: tuple[int, ...], strides: int, valid: jax.Array | None, cpu_kernels: bool, train: bool
) -> jax.Array:
    if x.shape == shape:
        return x
    projected = conv1x1(shape[-1], strides=strides, cpu_kernels=cpu_kernels, name="shortcut_conv")(x)
    return batch_norm(projected, valid, train, "shortcut_norm")


BLOCKS = {
    10: BasicBlock,
    18: BasicBlock,
    34: BasicBlock,
    50: BottleneckBlock,
    101: BottleneckBlock,
    152: BottleneckBlock,
}


class ResNetStage(nn.Module):
    """The `first` block, which may change the shape, and the others, which are equal: the scanned `layers`.

    Attributes:
        block: one of `BLOCKS`.
        width: of its blocks.
        num_blocks: with the first.
        strides: of the first.
        remat: whether the backward pass computes each block again instead of keeping what is inside it.
        padding_mode: see `Conv`.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    block: type[BasicBlock] | type[BottleneckBlock]
    width: int
    num_blocks: int
    strides: int
    remat: bool
    padding_mode: PaddingMode
    cpu_kernels: bool

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H/strides, W/strides, F]; `valid` as in `ResNetDecoder`."""
        block = functools.partial(self.block, self.width, padding_mode=self.padding_mode, cpu_kernels=self.cpu_kernels)
        length = self.num_blocks - 1
        unrolled = length == 1

        def apply(block: nn.Module, x: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, None]:
            return block(x, valid, train=train), None

        def wrap(prevent_cse: bool):
            return nn.remat(apply, prevent_cse=prevent_cse) if self.remat else apply

        x, _ = wrap(prevent_cse=True)(block(strides=self.strides, name="first"), x, valid)
        if length == 0:
            return x
        scan = nn.scan(
            wrap(prevent_cse=unrolled),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # pyright: ignore[reportArgumentType]
            length=length,
            unroll=length if unrolled else 1,
        )
        x, _ = scan(block(name="layers"), x, valid)
        return x

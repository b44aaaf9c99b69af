"""The convolution that every encoder and decoder here uses: `nn.Conv`'s parameters, three ways to compute it.

A convolution can be computed as one matrix product over gathered patches. On a GPU the library's convolution is
always the better form. On the CPU it depends: XLA's own is best on large maps, 50 times slower on the 2 x 2 maps at the
end of a ResNet, and 15 to 20 times slower inside a scanned layer, where it loses its threads and its fast kernels
(`experiments/throughput` has the table).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

# At and below this many output positions one matrix product beats XLA's CPU convolution.
_MAX_POSITIONS_AS_PRODUCT = 16


class Conv(nn.Module):
    """2-D convolution, channels last.

    Attributes:
        features: output channels.
        kernel_size: (height, width) of the kernel, pixels.
        strides: step between output positions, the same for both axes.
        padding: ((top, bottom), (left, right)) zeros, pixels; written out because PyTorch's convention, which
            published ResNets follow, differs from "SAME" at even sizes.
        use_bias: whether a bias is added.
        kernel_init: initialiser of the [kh, kw, C_in, C_out] kernel.
        in_scan: whether this layer is the body of a scan; decides only how it is computed.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0))
    use_bias: bool = True
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.lecun_normal()
    in_scan: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C_in] -> [B, H', W', C_out]."""
        kh, kw = self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (kh, kw, x.shape[-1], self.features))
        height, width = (
            (size + sum(pad) - k) // self.strides + 1
            for size, pad, k in zip(x.shape[1:3], self.padding, self.kernel_size, strict=True)
        )
        slow_in_xla = jax.default_backend() == "cpu" and (self.in_scan or height * width <= _MAX_POSITIONS_AS_PRODUCT)
        if (kh, kw) == (1, 1) or slow_in_xla:
            patches = _patches(x, self.kernel_size, self.strides, self.padding, (height, width))
            y = patches @ kernel.reshape(-1, self.features)
        else:
            y = lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.strides, self.strides),
                padding=self.padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).reshape(1, 1, 1, -1)
        return y


def _patches(
    x: jax.Array,
    kernel_size: tuple[int, int],
    strides: int,
    padding: Sequence[tuple[int, int]],
    output_size: tuple[int, int],
) -> jax.Array:
    """[B, H, W, C] -> [B, H', W', kh kw C], taps in the order of a reshaped kernel."""
    height, width = output_size
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = [
        x[:, i : i + (height - 1) * strides + 1 : strides, j : j + (width - 1) * strides + 1 : strides]
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]
    return jnp.concatenate(taps, axis=-1)


def upsample(x: jax.Array, factor: int = 2) -> jax.Array:
    """Repeat every pixel: [B, H, W, C] -> [B, factor H, factor W, C].

    Followed by a convolution this is the decoder's step up: a transposed convolution whose kernel size its stride
    does not divide leaves a checkerboard (Odena et al. 2016, doi 10.23915/distill.00003).
    """
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)

"""The convolution that every encoder and decoder here uses: `nn.Conv`'s parameters, and a fast form on any device."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.kernels.convolution import convolve
from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.precision import narrowed

PaddingMode = Literal["zeros", "circular"]


class Conv(nn.Module):
    """2-D convolution, channels last.

    Attributes:
        features: output channels.
        kernel_size: (height, width) of the kernel, pixels.
        strides: step between output positions, the same for both axes.
        padding: ((top, bottom), (left, right)) pixels; written out because PyTorch's convention, which published
            ResNets follow, differs from "SAME" at even sizes.
        padding_mode: "zeros", or "circular": what lies beyond a border is the other side of the image, as in the
            distance matrix of a closed outline.
        use_bias: whether a bias is added.
        kernel_init: initializer of the [kh, kw, C_in, C_out] kernel.
        cpu_kernels: see `convolve`.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0))
    padding_mode: PaddingMode = "zeros"
    use_bias: bool = True
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.lecun_normal()
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C_in] -> [B, H', W', C_out]."""
        kh, kw = self.kernel_size

        def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            # The same numbers as of four axes, whose drawing takes a CPU's compiler twice as long.
            return self.kernel_init(key, (kh * kw, *shape[2:]), dtype).reshape(shape)

        kernel = self.param("kernel", init, (kh, kw, x.shape[-1], self.features), jnp.float32)
        (top, bottom), (left, right) = self.padding
        padding = ((top, bottom), (left, right))
        if self.padding_mode == "circular":
            x, padding = jnp.pad(x, ((0, 0), *padding, (0, 0)), mode="wrap"), ((0, 0), (0, 0))
        y = convolve(narrowed(x, kernel), kernel, self.strides, padding, cpu_kernels=self.cpu_kernels)
        if self.use_bias:
            y = y + broadcast(self.param("bias", nn.initializers.zeros, (self.features,)), y.shape)
        return y

"""The convolution that every encoder and decoder here uses: `nn.Conv`'s parameters, and a fast form on any device.

On a GPU and the like the compiler's own convolution and its gradients are taken as they are. On the CPU XLA has fast
kernels for one layout of a convolution only, and brings the gradients of a convolution into this layout outside of
loops alone: inside a scanned layer they would be 10 to 100 times slower. So the gradients are written out here. Where
another form of the same convolution is faster on the CPU, one matrix product or Winograd's algorithm, it is taken.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from bie_jax.models.kernels import winograd
from bie_jax.models.kernels.product import product
from bie_jax.models.kernels.winograd import Padding
from bie_jax.models.layers.broadcast import broadcast

# At and below this many output positions of a map one matrix product beats XLA's CPU convolution,
_MAX_POSITIONS_AS_PRODUCT = 16
# and so does it up to this many of the whole batch for each output channel: reading the kernel is what takes the time.
_MAX_POSITIONS_PER_CHANNEL = 2
# Matrix products with fewer columns than this are slow.
_FEW_CHANNELS = 16

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
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0))
    padding_mode: PaddingMode = "zeros"
    use_bias: bool = True
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.lecun_normal()

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
        y = convolve(x, kernel, self.strides, padding)
        if self.use_bias:
            y = y + broadcast(self.param("bias", nn.initializers.zeros, (self.features,)), y.shape)
        return y


def convolve(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> jax.Array:
    """[B, H, W, C_in], [kh, kw, C_in, C_out] -> [B, H', W', C_out]; without a forward-mode derivative."""
    on_cpu = jax.default_backend() == "cpu"
    if kernel.shape[:2] == (1, 1) or (on_cpu and _has_few_positions(x, kernel, strides, padding)):
        patches = jnp.concatenate(_taps(x, kernel.shape[:2], strides, padding), axis=-1)
        return product(patches, kernel.reshape(-1, kernel.shape[-1]))
    return (_convolve_on_cpu if on_cpu else _convolve)(x, kernel, padding, strides)


def _has_few_positions(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> bool:
    positions = math.prod(_output_size(x, kernel.shape[:2], strides, padding))
    of_batch = len(x) * positions
    return positions <= _MAX_POSITIONS_AS_PRODUCT or of_batch <= _MAX_POSITIONS_PER_CHANNEL * kernel.shape[-1]


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    strides: int = 1,
    lhs_dilation: int = 1,
    rhs_dilation: int = 1,
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=padding,
        lhs_dilation=(lhs_dilation, lhs_dilation),
        rhs_dilation=(rhs_dilation, rhs_dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: Padding, strides: int) -> jax.Array:
    return _in_faster_form(x, kernel, padding, strides)


def _in_faster_form(x: jax.Array, kernel: jax.Array, padding: Padding, strides: int) -> jax.Array:
    if not winograd.is_faster(x, kernel, strides, padding):
        return _convolve(x, kernel, padding, strides)
    # What `count_flops` counts, and other devices compute, is the convolution itself.
    fast, plain = (functools.partial(form, padding=padding) for form in (winograd.convolve, _convolve))
    return lax.platform_dependent(x, kernel, cpu=fast, default=plain)


def _forward(
    x: jax.Array, kernel: jax.Array, padding: Padding, strides: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _in_faster_form(x, kernel, padding, strides), (x, kernel)


def _backward(
    padding: Padding, strides: int, inputs: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    axes = zip(x.shape[1:3], dy.shape[1:3], kernel.shape[:2], padding, strict=True)
    # Every position of dy, `strides` apart, spreads the turned kernel over the input.
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    rows, columns = ((k - 1 - low, size - (positions - 1) * strides + low - 1) for size, positions, k, (low, _) in axes)
    if strides == 1:
        dx = _in_faster_form(dy, turned, (rows, columns), strides)
    else:
        dx = _convolve(dy, turned, (rows, columns), lhs_dilation=strides)
    plain = functools.partial(_kernel_gradient, kernel_size=kernel.shape[:2], padding=padding, strides=strides)
    if not winograd.is_faster(x, kernel, strides, padding):
        return dx, plain(x, dy)
    fast = functools.partial(winograd.kernel_gradient, padding=padding)
    return dx, lax.platform_dependent(x, dy, cpu=fast, default=plain)


_convolve_on_cpu.defvjp(_forward, _backward)


def _kernel_gradient(
    x: jax.Array, dy: jax.Array, kernel_size: tuple[int, ...], padding: Padding, strides: int
) -> jax.Array:
    """[kh, kw, C_in, C_out]: what each tap saw, times `dy`, summed over batch and positions."""
    (kh, kw), c_in, c_out = kernel_size, x.shape[-1], dy.shape[-1]
    if c_out < _FEW_CHANNELS:
        # dy, `strides` apart, is the kernel and the batch its input channels: one output position per tap.
        reach = [
            (low, (positions - 1) * strides + k - size - low)
            for size, positions, k, (low, _) in zip(x.shape[1:3], dy.shape[1:3], (kh, kw), padding, strict=True)
        ]
        dkernel = _convolve(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), padding=reach, rhs_dilation=strides)
        return dkernel.transpose(1, 2, 0, 3)
    # A product for each tap is 1.5 to 3 times as fast as that; of few input channels, for each row of taps. One after
    # the other in a loop, since each needs a copy of what its taps saw.
    together = kw if c_in < _FEW_CHANNELS else 1
    height, width = ((positions - 1) * strides + 1 for positions in dy.shape[1:3])
    seen = (len(x), height, width + together - 1, c_in)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    dy = dy.reshape(-1, c_out)

    def of_taps(start: jax.Array) -> jax.Array:
        part = lax.dynamic_slice(x, (0, start[0], start[1], 0), seen)
        taps = _taps(part, (1, together), strides, ((0, 0), (0, 0)))
        return jnp.concatenate(taps, axis=-1).reshape(len(dy), -1).T @ dy

    starts = [(i, j) for i in range(kh) for j in range(0, kw, together)]
    return lax.map(of_taps, jnp.asarray(starts)).reshape(kh, kw, c_in, c_out)


def _output_size(x: jax.Array, kernel_size: tuple[int, ...], strides: int, padding: Padding) -> tuple[int, int]:
    height, width = (
        (size + sum(pad) - k) // strides + 1 for size, pad, k in zip(x.shape[1:3], padding, kernel_size, strict=True)
    )
    return height, width


def _taps(x: jax.Array, kernel_size: tuple[int, ...], strides: int, padding: Padding) -> list[jax.Array]:
    """What each of the kernel's kh kw taps sees: [B, H', W', C_in] each, in the order of the kernel's rows."""
    height, width = _output_size(x, kernel_size, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    return [
        x[:, i : i + (height - 1) * strides + 1 : strides, j : j + (width - 1) * strides + 1 : strides]
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]


def max_pool(x: jax.Array, padding_mode: PaddingMode = "zeros") -> jax.Array:
    """Greatest of each 3 x 3 window, step 2, of numbers that are not negative: [B, H, W, C] -> [B, H/2, W/2, C].

    `padding_mode` as `Conv` has it ("circular" for even H and W). Along one axis after the other, each seen as pairs:
    the gradient of XLA's own pooling is 10 times slower on the CPU.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        mode = "wrap" if padding_mode == "circular" else "constant"
        x = jnp.pad(x, [(1, 1 + size % 2) if i == axis else (0, 0) for i in range(x.ndim)], mode=mode)
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        first, second = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
        pooled = jnp.maximum(first, second)
        x = jnp.maximum(lax.slice_in_dim(pooled, 0, -1, axis=axis), lax.slice_in_dim(first, 1, None, axis=axis))
    return x


def upsample(x: jax.Array, factor: int = 2) -> jax.Array:
    """Repeat every pixel: [B, H, W, C] -> [B, factor H, factor W, C].

    Followed by a convolution this is the decoder's step up: a transposed convolution whose kernel size its stride
    does not divide leaves a checkerboard (Odena et al. 2016, doi 10.23915/distill.00003).
    """
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)

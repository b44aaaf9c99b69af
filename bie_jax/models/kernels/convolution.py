"""2-D convolutions, channels last: the compiler's own, and the forms that are fast on a CPU.

On a GPU and the like the compiler's own convolution and its gradients are taken as they are. On the CPU XLA has fast
kernels for one layout of a convolution only, and brings the gradients of a convolution into this layout outside of
loops alone: inside a scanned layer they would be 10 to 100 times slower. So the gradients are written out here. Where
another form of the same convolution is faster on the CPU, one matrix product or Winograd's algorithm, it is taken.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from bie_jax.models.kernels import winograd
from bie_jax.models.kernels.product import cpu_product
from bie_jax.models.kernels.winograd import Padding

# At and below this many output positions of a map one matrix product beats XLA's CPU convolution,
_MAX_POSITIONS_AS_PRODUCT = 16
# and so does it up to this many of the whole batch for each output channel: reading the kernel is what takes the time.
_MAX_POSITIONS_PER_CHANNEL = 2
# Matrix products with fewer columns than this are slow.
_FEW_CHANNELS = 16


def convolve(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding, *, cpu_kernels: bool) -> jax.Array:
    """Convolve in the form that is fastest, or in the plain one.

    Args:
        x: [B, H, W, C_in].
        kernel: [kh, kw, C_in, C_out].
        strides: step between output positions, the same for both axes.
        padding: ((top, bottom), (left, right)) zeros around an image.
        cpu_kernels: False: `plain_convolution` everywhere. True: on a CPU one of the forms for it, and everywhere a
            product where the kernel is 1 x 1; these have no forward-mode derivative.

    Returns:
        [B, H', W', C_out].
    """
    if not cpu_kernels:
        return plain_convolution(x, kernel, padding, strides)
    on_cpu = jax.default_backend() == "cpu"
    if kernel.shape[:2] == (1, 1) or (on_cpu and _has_few_positions(x, kernel, strides, padding)):
        return product_over_patches(x, kernel, padding, strides)
    return (cpu_convolution if on_cpu else plain_convolution)(x, kernel, padding, strides)


def plain_convolution(
    x: jax.Array,
    kernel: jax.Array,
    padding: Sequence[tuple[int, int]],
    strides: int = 1,
    lhs_dilation: int = 1,
    rhs_dilation: int = 1,
) -> jax.Array:
    """The compiler's convolution, with the derivatives that jax finds: [B, H, W, C_in] -> [B, H', W', C_out]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=padding,
        lhs_dilation=(lhs_dilation, lhs_dilation),
        rhs_dilation=(rhs_dilation, rhs_dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def product_over_patches(x: jax.Array, kernel: jax.Array, padding: Padding, strides: int) -> jax.Array:
    """The same as one matrix product: of what every output position sees, [B, H', W', kh kw C_in]."""
    patches = jnp.concatenate(_taps(x, kernel.shape[:2], strides, padding), axis=-1)
    return cpu_product(patches, kernel.reshape(-1, kernel.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def cpu_convolution(x: jax.Array, kernel: jax.Array, padding: Padding, strides: int) -> jax.Array:
    """The same with gradients that are fast on a CPU; without a forward-mode derivative."""
    return _in_faster_form(x, kernel, padding, strides)


def _in_faster_form(x: jax.Array, kernel: jax.Array, padding: Padding, strides: int) -> jax.Array:
    if not winograd.is_faster(x, kernel, strides, padding):
        return plain_convolution(x, kernel, padding, strides)
    # What `count_flops` counts, and other devices compute, is the convolution itself.
    fast, plain = (functools.partial(form, padding=padding) for form in (winograd.convolve, plain_convolution))
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
        dx = plain_convolution(dy, turned, (rows, columns), lhs_dilation=strides)
    plain = functools.partial(_kernel_gradient, kernel_size=kernel.shape[:2], padding=padding, strides=strides)
    if not winograd.is_faster(x, kernel, strides, padding):
        return dx, plain(x, dy)
    fast = functools.partial(winograd.kernel_gradient, padding=padding)
    return dx, lax.platform_dependent(x, dy, cpu=fast, default=plain)


cpu_convolution.defvjp(_forward, _backward)


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
        dkernel = plain_convolution(
            x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), padding=reach, rhs_dilation=strides
        )
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


def _has_few_positions(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> bool:
    positions = math.prod(_output_size(x, kernel.shape[:2], strides, padding))
    of_batch = len(x) * positions
    return positions <= _MAX_POSITIONS_AS_PRODUCT or of_batch <= _MAX_POSITIONS_PER_CHANNEL * kernel.shape[-1]

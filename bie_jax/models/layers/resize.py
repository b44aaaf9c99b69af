"""Halving and growing a map without parameters: the encoder's pooling and the decoder's step up."""

import jax
import jax.numpy as jnp
from jax import lax

from bie_jax.models.layers.conv import PaddingMode


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

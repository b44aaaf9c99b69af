"""What differs between two exposures of one specimen: gain, offset, gamma, focus and camera noise, in normalized units.

All take [B, H, W, C] float32 and return it, with numbers of their own for every image, and for every channel where
that is said. Nothing is clipped.
"""

import functools
import math

import jax
import jax.numpy as jnp


def random_brightness(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Scale each channel of each normalized image by a factor from U(1 - amount, 1 + amount)."""
    b, _, _, c = image.shape
    return image * jax.random.uniform(key, (b, 1, 1, c), minval=1 - amount, maxval=1 + amount)


def random_offset(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Add a number from U(-amount, amount) to each channel of each image."""
    b, _, _, c = image.shape
    return image + jax.random.uniform(key, (b, 1, 1, c), minval=-amount, maxval=amount)


def random_gamma(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Raise the share of each channel's range that a pixel has to a power from exp(U(-amount, amount)).

    A channel's darkest and brightest pixel stay as they are (to rounding), and so does a constant channel.
    """
    b, _, _, c = image.shape
    power = jnp.exp(jax.random.uniform(key, (b, 1, 1, c), minval=-amount, maxval=amount))
    low, high = image.min(axis=(1, 2), keepdims=True), image.max(axis=(1, 2), keepdims=True)
    share = jnp.clip((image - low) / jnp.where(high > low, high - low, 1), 0, 1)
    changed = share**power
    return low + changed * (high - low)


def random_blur(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Blur each image by a Gaussian of standard deviation U(0, amount) pixels, the same for its channels.

    The kernel ends at ceil(3 amount) pixels; beyond its edges an image goes on mirrored (d c b a | a b c d), so that
    its mean is kept.
    """
    sd = jax.random.uniform(key, (image.shape[0],), maxval=amount)
    return blur(image, sd, math.ceil(3 * amount))


def blur(image: jax.Array, sd: jax.Array, radius: int) -> jax.Array:
    """Blur [B, H, W, C] by Gaussians of `sd` [B] pixels, cut at `radius` pixels, one axis after the other."""
    distance = jnp.arange(-radius, radius + 1)
    sd = jnp.maximum(sd, 1e-3)[:, None]  # exp(-1 / 2e-6) is 0: nothing of any neighbor
    kernel = jnp.exp(-jnp.square(distance[None] / sd) / 2)
    kernel = kernel / kernel.sum(axis=1, keepdims=True)  # [B, 2 radius + 1]
    for axis in (1, 2):
        length, margin = image.shape[axis], [(0, 0)] * 4
        margin[axis] = (radius, radius)
        padded = jnp.pad(image, margin, mode="symmetric")
        shifted = [jax.lax.slice_in_dim(padded, start, start + length, axis=axis) for start in range(2 * radius + 1)]
        weighted = [kernel[:, place, None, None, None] * moved for place, moved in enumerate(shifted)]
        image = functools.reduce(jnp.add, weighted)
    return image


def random_noise(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Add normal noise to every pixel and channel, of a standard deviation U(0, amount) for each image."""
    sd_key, pixel_key = jax.random.split(key)
    sd = jax.random.uniform(sd_key, (image.shape[0], 1, 1, 1), maxval=amount)
    return image + sd * jax.random.normal(pixel_key, image.shape)

"""Which way up an image is seen: mirrored and turned by right angles, no pixel changed."""

import jax
import jax.numpy as jnp


def random_flip(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirror each axis of each image with probability 1/2."""
    for axis, axis_key in zip((1, 2), jax.random.split(key), strict=True):
        chosen = jax.random.bernoulli(axis_key, 0.5, (image.shape[0], 1, 1, 1))
        image = jnp.where(chosen, jnp.flip(image, axis), image)
    return image


def random_rotate90(key: jax.Array, image: jax.Array) -> jax.Array:
    """Turn each (square) image by 0, 90, 180 or 270 degrees with equal probability."""
    turns = jax.random.randint(key, (image.shape[0], 1, 1, 1), 0, 4)
    image = jnp.where(turns >= 2, image[:, ::-1, ::-1], image)
    return jnp.where(turns % 2 == 1, jnp.swapaxes(image, 1, 2)[:, ::-1], image)

"""How far a reconstruction is from its image."""

import jax
import jax.numpy as jnp


def mean_squared_error(image: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """Mean of (x - x')^2 over pixels and channels, one value per image: [B, H, W, C] twice -> [B] float32.

    Raises:
        ValueError: if the shapes differ; broadcasting would turn a mistake into a number.
    """
    if image.shape != reconstruction.shape:
        raise ValueError(f"image is {image.shape}, its reconstruction {reconstruction.shape}: they must be equal")
    return jnp.square(image.astype(jnp.float32) - reconstruction.astype(jnp.float32)).mean(axis=(1, 2, 3))

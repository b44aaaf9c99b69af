"""How far a reconstruction is from its image."""

import jax
import jax.numpy as jnp


def mean_squared_error(image: jax.Array, reconstruction: jax.Array, channel_weight: jax.Array) -> jax.Array:
    """Weighted mean of (x - x')^2 over pixels and channels, one value per image.

    Args:
        image: [B, H, W, C].
        reconstruction: [B, H, W, C].
        channel_weight: [B, C], 0 for a channel that does not count; an image without any costs 0.

    Returns:
        [B] float32.

    Raises:
        ValueError: if the shapes differ; broadcasting would turn a mistake into a number.
    """
    if image.shape != reconstruction.shape or channel_weight.shape != (image.shape[0], image.shape[3]):
        raise ValueError(
            f"image is {image.shape}, its reconstruction {reconstruction.shape}: they must be equal; the weights of "
            f"its channels are {channel_weight.shape}"
        )
    by_channel = jnp.square(image.astype(jnp.float32) - reconstruction.astype(jnp.float32)).mean(axis=(1, 2))
    total = channel_weight.sum(axis=1)
    return (channel_weight * by_channel).sum(axis=1) / jnp.where(total > 0, total, 1)

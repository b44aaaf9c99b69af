"""The channels of an image as images of their own, and what was made of each put together again."""

from typing import Literal

import jax
import jax.numpy as jnp


def expand(image: jax.Array) -> jax.Array:
    """Every channel as an image of its own, channels of an image side by side: [B, H, W, C] -> [B C, H, W, 1]."""
    b, h, w, c = image.shape
    return jnp.moveaxis(image, -1, 1).reshape(b * c, h, w, 1)


def contract(values: jax.Array, channels: int) -> jax.Array:
    """What was computed from `expand`ed images, by image again: [B C, ...] -> [B, C, ...]."""
    return values.reshape(-1, channels, *values.shape[1:])


def contract_image(image: jax.Array, channels: int) -> jax.Array:
    """The inverse of `expand`: [B C, H, W, 1] -> [B, H, W, C]."""
    return jnp.moveaxis(contract(image[..., 0], channels), 1, -1)


def join_channels(values: jax.Array, present: jax.Array, readout: Literal["mean", "concat"]) -> jax.Array:
    """One row per image from one per channel.

    Args:
        values: [B, C, ...].
        present: [B, C] bool; a channel that is not there counts for nothing in a mean and is 0 in a concatenation.
        readout: "mean": [B, ...]; "concat": [B, C d] from [B, C, d].
    """
    weight = present.astype(values.dtype).reshape(*present.shape, *(1,) * (values.ndim - 2))
    # Selected, not multiplied: what a network makes of a channel that is not there may be infinite.
    values = jnp.where(weight > 0, values, 0)
    if readout == "concat":
        return values.reshape(values.shape[0], -1)
    return values.sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1)

"""A view that lacks some of its channels, so that no channel is leant on alone."""

import jax
import jax.numpy as jnp


def random_channel_dropout(key: jax.Array, image: jax.Array, there: jax.Array, rate: float) -> jax.Array:
    """Set each channel of each image to 0 with a probability, but never all that there are.

    Where chance would take them all, one of them stays, each with equal probability: of C channels each is left out
    with probability rate - rate^C / C.

    Args:
        key: for the choice.
        image: [B, H, W, C] float32.
        there: [B, 1, 1, C] bool, the channels that hold something; the others are 0 already.
        rate: in [0, 1).
    """
    drawn = jax.random.uniform(key, there.shape)
    highest = jnp.where(there, drawn, -1.0).max(axis=-1, keepdims=True)
    return jnp.where(drawn >= jnp.minimum(rate, highest), image, 0)

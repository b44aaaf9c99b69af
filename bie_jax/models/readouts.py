"""What is read of a network beside its embedding: statistics over positions, of its last layer or of several.

Encoders note their layers (`bie_jax.models.layers.noted`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.channels import join_channels
from bie_jax.models.layers.noted import statistics

# Of a stack of equal blocks those after each quarter are read, as of the four stages of a ResNet.
_PARTS = 4


def pooled(features: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """What a network says of its last layer, [B, h, w, F]: `features`, the mean, and after training `statistics`."""
    mean = {"features": features.mean(axis=(1, 2))}
    return mean if train else mean | {"statistics": statistics(features)}


def look(
    model: nn.Module, variables: dict[str, Any], image: jax.Array, channel_mask: jax.Array, method: str, layers: bool
) -> tuple[Any, jax.Array]:
    """One pass through a network as it is after training, and the layers on the way.

    Args:
        model: with its `variables`.
        variables: all collections.
        image: [B, H, W, C].
        channel_mask: [B, C] bool.
        method: of the model, e.g. "encode".
        layers: whether they are wanted.

    Returns:
        What the method returns; and [B, L] float32, the `statistics` of every layer that the encoder notes side by
        side, the mean over channels where a network sees each alone; L is 0 where they are not wanted.
    """
    if not layers:
        return model.apply(variables, image, channel_mask, train=False, method=method), jnp.zeros((len(image), 0))
    found, noted = model.apply(variables, image, channel_mask, train=False, method=method, mutable=["intermediates"])
    columns = [jnp.zeros((len(image), 0))]  # a network may note none
    for calls in jax.tree.leaves(dict(noted), is_leaf=lambda node: isinstance(node, tuple)):
        mean = jnp.stack(calls).mean(axis=0)  # an encoder may look at an image in several ways
        blocks = mean if mean.ndim == 3 else mean[None]  # a scanned stack has [L, B, *]
        ends = sorted({len(blocks) * part // _PARTS - 1 for part in range(1, _PARTS + 1)} - {-1})
        columns += [_by_image(blocks[end], channel_mask) for end in ends]
    return found, jnp.concatenate(columns, axis=-1)


def _by_image(rows: jax.Array, channel_mask: jax.Array) -> jax.Array:
    """[B, *] of rows of images, or of every channel of every image [B C, *]."""
    if len(rows) == len(channel_mask):
        return rows
    return join_channels(rows.reshape(*channel_mask.shape, -1), channel_mask, "mean")

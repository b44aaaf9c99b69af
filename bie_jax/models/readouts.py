"""What is read of a network beside its embedding: statistics over positions, of its last layer or of several.

Encoders note their layers in the collection "intermediates" (`note_layer`), which costs nothing where nobody asks for
it; a training step does not.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.layers.channels import join_channels

# Of a stack of equal blocks those after each quarter are read, as of the four stages of a ResNet.
_PARTS = 4


def statistics(features: jax.Array, present: jax.Array | None = None) -> jax.Array:
    """Mean, maximum and standard deviation over positions.

    Args:
        features: [B, ..., F].
        present: [B, ...] bool, the positions that count; None: all. Without any all numbers are 0.

    Returns:
        [B, 3 F] float32.
    """
    rows = features.reshape(len(features), -1, features.shape[-1]).astype(jnp.float32)
    counted = jnp.ones((*rows.shape[:2], 1), bool) if present is None else present.reshape(len(features), -1, 1)
    count = jnp.maximum(counted.sum(axis=1), 1)
    mean = jnp.where(counted, rows, 0).sum(axis=1) / count
    variance = jnp.where(counted, jnp.square(rows - mean[:, None]), 0).sum(axis=1) / count
    largest = jnp.where(counted, rows, -jnp.inf).max(axis=1)
    return jnp.concatenate([mean, jnp.where(counted.any(axis=1), largest, 0), jnp.sqrt(variance)], axis=-1)


def pooled(features: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """What a network says of its last layer, [B, h, w, F]: `features`, the mean, and after training `statistics`."""
    mean = {"features": features.mean(axis=(1, 2))}
    return mean if train else mean | {"statistics": statistics(features)}


def note_layer(module: nn.Module, name: str, features: jax.Array, present: jax.Array | None = None) -> None:
    """Keep the `statistics` of a layer, where somebody asks for "intermediates"."""
    if module.is_mutable_collection("intermediates") and not module.is_initializing():
        module.sow("intermediates", name, statistics(features, present))


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

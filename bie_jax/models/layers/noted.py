"""What a layer says on the way, for whoever reads a network at several of its layers (`bie_jax.models.readouts`).

It is kept in the collection "intermediates", which costs nothing where nobody asks for it; a training step does not.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


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


def note_layer(module: nn.Module, name: str, features: jax.Array, present: jax.Array | None = None) -> None:
    """Keep the `statistics` of a layer, where somebody asks for "intermediates"."""
    if module.is_mutable_collection("intermediates") and not module.is_initializing():
        module.sow("intermediates", name, statistics(features, present))

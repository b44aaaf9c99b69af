"""The contrastive term, which every method here can have beside its own: what it needs, and what it costs."""

import dataclasses

import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config, ContrastiveConfig, DataConfig, ObjectiveConfig
from bie_jax.losses import contrastive
from bie_jax.objectives.base import Batch


def compares_views(settings: ContrastiveConfig) -> bool:
    """Whether an example is compared with another random view of itself."""
    return settings.weight > 0 and settings.form == "views"


def contrasted_views(config: Config) -> tuple[DataConfig, ...]:
    """One more view like the first, where views are compared."""
    return (config.data,) if compares_views(config.objective.contrastive) else ()


def compared_treatment(settings: ContrastiveConfig) -> str | None:
    """The column whose equal values are drawn together, where replicates are compared."""
    return settings.treatment if settings.weight > 0 and settings.form == "replicates" else None


def contrasted_treatment(config: ObjectiveConfig) -> str | None:
    """The same of a whole `objective` group, as `Method.treatment` asks for it."""
    return compared_treatment(config.contrastive)


def contrasted_across_images(config: Config) -> tuple[str, ...]:
    """The term looks for its negatives in the batch."""
    return ("the contrastive term takes its negatives",) if config.objective.contrastive.weight > 0 else ()


def contrast(settings: ContrastiveConfig, batch: Batch, out: dict[str, jax.Array]) -> jax.Array:
    """The unweighted term.

    Args:
        settings: the checked `objective.contrastive` group.
        batch: the examples.
        out: what the network says of them; `other_embedding` too, where views are compared.
    """
    if settings.form == "views":
        pairs = jnp.stack([out["embedding"], out["other_embedding"]], axis=1)
        there = jnp.broadcast_to(batch.weight.max(axis=1)[:, None] > 0, pairs.shape[:2])
        return contrastive.info_nce(pairs, there, batch.origin, settings.temperature)
    if settings.form == "replicates":
        treatment = jnp.where(batch.weight.max(axis=1) > 0, batch.origin.treatment, -1)
        origin = dataclasses.replace(batch.origin, treatment=treatment)
        return contrastive.info_nce_replicates(out["embedding"], origin, settings.temperature)
    # A channel that was left out, or of which no token is seen, has an embedding that says nothing.
    present = (batch.weight > 0) & out["channels_kept"]
    if settings.form == "pull":
        return contrastive.channel_pull(out["channel_embeddings"], present)
    return contrastive.info_nce(out["channel_embeddings"], present, batch.origin, settings.temperature)

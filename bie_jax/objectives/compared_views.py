"""What the methods that compare views share: which views, the network's pass over all of them, and its numbers."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config, DataConfig, ObjectiveConfig
from bie_jax.objectives.autoencoding import error, mean_over_images, with_shared_terms
from bie_jax.objectives.base import Aux, Batch

LEAST_STD = 0.01  # of `spread_between_images`; random weights have more


def all_views(config: Config) -> tuple[DataConfig, ...]:
    """The global views after the first, then the local ones."""
    crops = config.objective.crops
    augment = config.data.augment.model_copy(update={"area": crops.local_area})
    local = config.data.model_copy(update={"crop_size": crops.local_size, "augment": augment})
    return (config.data,) * (crops.num_global - 1) + (local,) * crops.num_local


@flax.struct.dataclass
class Seen:
    """What the network says of the views of a batch; axis 0 is that of views.

    Attributes:
        projection: [V, B, *] float32, behind the head; global views come first.
        embedding: [V, B, d].
        out: of the first view.
        reconstruction: [G, B, H, W, C] of the global views; None without a decoder.
        model_state: the collections afterwards.
    """

    projection: jax.Array
    embedding: jax.Array
    out: dict[str, jax.Array]
    reconstruction: jax.Array | None
    model_state: Any


def see(
    model: nn.Module, config: ObjectiveConfig, params: Any, model_state: Any, batch: Batch, key: jax.Array, train: bool
) -> Seen:
    """One pass over the global views and one over the local ones.

    Args:
        model: a `WithHead`.
        config: the checked `objective` group.
        params: of the network.
        model_state: its other collections; batch statistics learn from the global views, then from the local ones.
        batch: with the views of `all_views`, or the global ones alone.
        key: for what the network draws.
        train: as `WithHead` has it.
    """
    views = (batch.image, *batch.other_views)
    num_global = config.crops.num_global
    parts, reconstruction = [], None
    for number, group in enumerate((views[:num_global], views[num_global:])):
        if not group:
            continue
        mask = None if batch.channel_mask is None else jnp.repeat(batch.channel_mask, len(group), axis=0)
        (drawn, out), changed = model.apply(
            {"params": params, **model_state},
            _side_by_side(group),
            mask,
            train=train,
            rngs={"noise": key if number == 0 else jax.random.fold_in(key, number)},
            mutable=list(model_state) if train else [],
        )
        model_state = changed if train else model_state
        out = {name: _by_view(value, len(group)) for name, value in out.items()}
        if number == 0:
            reconstruction = None if drawn is None else _by_view(drawn, len(group))
        parts.append(out)
    projection, embedding = (jnp.concatenate([out[name] for out in parts]) for name in ("projection", "embedding"))
    first = {name: value[0] for name, value in parts[0].items()}
    return Seen(projection.astype(jnp.float32), embedding, first, reconstruction, model_state)


def there(batch: Batch) -> jax.Array:
    """[B] bool: the images that count."""
    return batch.weight.max(axis=1) > 0


def with_reconstruction(
    loss: jax.Array, terms: dict[str, jax.Array], config: ObjectiveConfig, batch: Batch, seen: Seen
) -> tuple[jax.Array, Aux]:
    """Add the reconstruction of the global views, where there is a decoder, and the terms that any method may have.

    Logged is how far embeddings are apart, too (`spread_between_images`).
    """
    out = seen.out | {"other_embedding": seen.embedding[1]}
    terms = terms | {"embedding_std": spread_between_images(seen.embedding[0], there(batch))}
    first = None
    if seen.reconstruction is not None:
        first, views = seen.reconstruction[0], (batch.image, *batch.other_views[: len(seen.reconstruction) - 1])
        errors = [
            mean_over_images(error(config, dataclasses.replace(batch, image=view), drawn), batch)
            for view, drawn in zip(views, seen.reconstruction, strict=True)
        ]
        terms = terms | {"recon": sum(errors[1:], start=errors[0]) / len(errors)}
        loss = loss + config.reconstruction * terms["recon"]
    return with_shared_terms(loss, terms, {}, config, batch, out, seen.model_state, first)


def spread_between_images(embedding: jax.Array, there: jax.Array) -> jax.Array:
    """How far embeddings point in different directions: near 1 where in all, 0 where all images are alike.

    sqrt(d) times the standard deviation of the embeddings' directions, in the mean over dimensions (Chen & He 2020,
    "SimSiam", arXiv 2011.10566, section 4.1). No gradient.

    Args:
        embedding: [B, d].
        there: [B] bool, the images that count.
    """
    rows = jax.lax.stop_gradient(jnp.where(there[:, None], embedding.astype(jnp.float32), 0))
    rows = rows * jax.lax.rsqrt(jnp.maximum(jnp.square(rows).sum(axis=1, keepdims=True), 1e-12))
    count = jnp.maximum(there.sum(), 1)
    apart = jnp.where(there[:, None], rows - rows.sum(axis=0, keepdims=True) / count, 0)
    return jnp.sqrt(rows.shape[1] * jnp.square(apart).sum(axis=0) / count).mean()


def collapse_of_embeddings(metrics: dict[str, float]) -> str | None:
    """What is told of a run whose embeddings are all alike; None of another.

    Args:
        metrics: those of a validation.
    """
    if metrics["embedding_std"] < LEAST_STD:
        return f"embedding_std={metrics['embedding_std']:.2g}, and 0 is all images alike"
    return None


def _side_by_side(views: tuple[jax.Array, ...]) -> jax.Array:
    """Views [B, ...] -> [B V, ...], those of an image beside each other: no image moves to another device."""
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])


def _by_view(values: jax.Array, count: int) -> jax.Array:
    """[B V, ...] -> [V, B, ...]."""
    return jnp.moveaxis(values.reshape(-1, count, *values.shape[1:]), 1, 0)

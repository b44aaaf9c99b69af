"""What the methods with a decoder share: the network's pass, the error of a reconstruction, and the terms that any of
them may have."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import ObjectiveConfig
from bie_jax.losses import shape
from bie_jax.losses.reconstruction import mean_squared_error
from bie_jax.objectives.base import Aux, Batch
from bie_jax.objectives.contrast import contrast

_MATRIX_TERMS = {
    "diagonal": shape.zero_diagonal,
    "symmetry": shape.symmetry,
    "non_negativity": shape.non_negativity,
    "triangle": shape.triangle_inequality,
}


def reconstruct(
    model: nn.Module, params: Any, model_state: Any, batch: Batch, key: jax.Array, train: bool
) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    """Reconstruction, `out`, and the model's collections after the batch.

    Of another view only the embedding is needed, `out["other_embedding"]`, and nothing is learned from it twice.
    """
    variables = {"params": params, **model_state}
    mutable = list(model_state) if train else []
    (reconstruction, out), changed = model.apply(
        variables, batch.image, batch.channel_mask, train=train, rngs={"noise": key}, mutable=mutable
    )
    if batch.other_views:
        (other_view,) = batch.other_views
        (_, other), _ = model.apply(
            variables,
            other_view,
            batch.channel_mask,
            train=train,
            rngs={"noise": jax.random.fold_in(key, 1)},
            mutable=mutable,
            method="encode",
        )
        out = out | {"other_embedding": other["embedding"]}
    return reconstruction, out, changed if train else model_state


def error(config: ObjectiveConfig, batch: Batch, reconstruction: jax.Array) -> jax.Array:
    """Mean squared error of each image [B]; of a distance matrix from any start point, where that is asked for."""
    if not config.matrix.reindexed:
        return mean_squared_error(batch.image, reconstruction, batch.weight)
    return shape.reindexed_mse(batch.image[..., 0], reconstruction[..., 0])


def mean_over_images(per_image: jax.Array, batch: Batch) -> jax.Array:
    """Of the images that count."""
    counts = batch.weight.max(axis=1)
    return (counts * per_image.astype(jnp.float32)).sum() / jnp.maximum(counts.sum(), 1)


def with_shared_terms(
    loss: jax.Array,
    terms: dict[str, jax.Array],
    totals: dict[str, jax.Array],
    config: ObjectiveConfig,
    batch: Batch,
    out: dict[str, jax.Array],
    model_state: Any,
    reconstruction: jax.Array | None,
) -> tuple[jax.Array, Aux]:
    """Add the terms of a predicted distance matrix and the contrastive one where they have a weight."""
    for name, term in _MATRIX_TERMS.items():
        weight = getattr(config.matrix, name)
        if weight and reconstruction is not None:
            terms = terms | {name: mean_over_images(jax.vmap(term)(reconstruction[..., 0]), batch)}
            loss = loss + weight * terms[name]
    settings = config.contrastive
    if settings.weight:
        terms = terms | {"contrastive": contrast(settings, batch, out)}
        loss = loss + settings.weight * terms["contrastive"]
    return loss, Aux({"loss": loss, **terms}, totals, model_state, reconstruction)

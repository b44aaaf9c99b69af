"""SimCLR (Chen et al. 2020, arXiv 2002.05709): views of an image are found among those of other wells."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config, ObjectiveConfig
from bie_jax.losses.contrastive import info_nce
from bie_jax.models import build_with_head
from bie_jax.objectives.base import Aux, Batch, Method, Teacher
from bie_jax.objectives.compared_views import all_views, collapse_of_embeddings, see, there, with_reconstruction
from bie_jax.objectives.contrast import contrasted_treatment


def simclr(
    model: nn.Module,
    config: ObjectiveConfig,
    params: Any,
    model_state: Any,
    batch: Batch,
    step: jax.Array,
    key: jax.Array,
    *,
    train: bool,
    teacher: Teacher | None = None,
) -> tuple[jax.Array, Aux]:
    """L = InfoNCE of the projections of all views (Chen et al. 2020, equation 1, with cosine similarity).

    Differs from the paper in the negatives: other images of an anchor's own well are none. Arguments as `ae`.
    """
    del step, teacher
    seen = see(model, config, params, model_state, batch, key, train)
    pairs = jnp.moveaxis(seen.projection, 0, 1)  # [B, V, *]
    present = jnp.broadcast_to(there(batch)[:, None], pairs.shape[:2])
    loss = info_nce(pairs, present, batch.origin, config.simclr.temperature)
    return with_reconstruction(loss, {"info_nce": loss}, config, batch, seen)


def across_images(config: Config) -> tuple[str, ...]:
    """Negatives are of the batch."""
    del config
    return ("InfoNCE takes its negatives",)


SIMCLR = Method(
    build_with_head,
    simclr,
    other_views=all_views,
    treatment=contrasted_treatment,
    across_images=across_images,
    collapse=collapse_of_embeddings,
    needs_decoder=False,
    newest_is_best=True,
)

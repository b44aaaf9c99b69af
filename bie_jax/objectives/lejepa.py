"""LeJEPA (Balestriero & LeCun 2025, arXiv 2511.08544): views agree, and their projections are normally distributed."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config, ObjectiveConfig
from bie_jax.losses.sigreg import sigreg, view_spread
from bie_jax.models import build_with_head
from bie_jax.objectives.base import Aux, Batch, Method, Teacher
from bie_jax.objectives.compared_views import all_views, collapse_of_embeddings, see, there, with_reconstruction
from bie_jax.objectives.contrast import contrasted_treatment


def lejepa(
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
    """L = (1 - s) mean (z_v - mean_v z)^2 + s SIGReg(z), z the projections, s `config.lejepa.sigreg`.

    SIGReg is of each view by itself, along the same directions, and the mean is taken over views. Arguments as `ae`.
    """
    del step, teacher
    settings = config.lejepa
    seen = see(model, config, params, model_state, batch, key, train)
    slices = jax.random.fold_in(key, 2)
    counted = there(batch)
    spread = view_spread(seen.projection, counted)
    normality = jnp.stack([sigreg(slices, view, counted, settings.num_slices) for view in seen.projection]).mean()
    loss = (1 - settings.sigreg) * spread + settings.sigreg * normality
    return with_reconstruction(loss, {"view_spread": spread, "sigreg": normality}, config, batch, seen)


def across_images(config: Config) -> tuple[str, ...]:
    """A distribution is of the images of a batch."""
    del config
    return ("SIGReg takes the distribution of projections",)


LEJEPA = Method(
    build_with_head,
    lejepa,
    other_views=all_views,
    treatment=contrasted_treatment,
    across_images=across_images,
    collapse=collapse_of_embeddings,
    needs_decoder=False,
    newest_is_best=True,
)

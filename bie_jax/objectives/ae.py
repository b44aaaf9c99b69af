"""Autoencoder: the mean squared error of the reconstruction, and nothing else of its own."""

from typing import Any

import flax.linen as nn
import jax

from bie_jax.config.schema import ObjectiveConfig
from bie_jax.models import build_autoencoder
from bie_jax.objectives.autoencoding import error, mean_over_images, reconstruct, with_shared_terms
from bie_jax.objectives.base import Aux, Batch, Method, Teacher
from bie_jax.objectives.contrast import contrasted_across_images, contrasted_treatment, contrasted_views


def ae(
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
    """L = w mean (x - x')^2, a mean over pixels, channels and images.

    Of shapes the images are distance matrices, and x may be the best re-indexing of each (`config.matrix.reindexed`).

    Args:
        model: an autoencoder (`bie_jax.models`).
        config: the checked `objective` group; w is its `reconstruction`. Here and in all others its `contrastive` term
            and, of autoencoders, those of a predicted distance `matrix` are added where they have a weight.
        params: the network's parameters.
        model_state: its other collections.
        batch: see `Batch`.
        step: int32, the optimizer step, from 0.
        key: for what a method draws.
        train: whether batch statistics and codebooks are updated.
        teacher: None: this method has none.
    """
    del step, teacher
    reconstruction, out, model_state = reconstruct(model, params, model_state, batch, key, train)
    terms = {"recon": mean_over_images(error(config, batch, reconstruction), batch)}
    loss = config.reconstruction * terms["recon"]
    return with_shared_terms(loss, terms, {}, config, batch, out, model_state, reconstruction)


AE = Method(
    build_autoencoder,
    ae,
    other_views=contrasted_views,
    treatment=contrasted_treatment,
    across_images=contrasted_across_images,
)

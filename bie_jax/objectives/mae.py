"""Masked autoencoder (He et al. 2021, arXiv 2111.06377), with a Fourier term (Kraus et al. 2024, arXiv 2404.10242)."""

from typing import Any

import flax.linen as nn
import jax

from bie_jax.config.schema import ObjectiveConfig
from bie_jax.losses.fourier import fourier_error
from bie_jax.losses.reconstruction import masked_patch_error
from bie_jax.models import build_mae
from bie_jax.models.mae import by_channel
from bie_jax.objectives.autoencoding import mean_over_images, reconstruct, with_shared_terms
from bie_jax.objectives.base import Aux, Batch, Method, Teacher
from bie_jax.objectives.contrast import contrasted_across_images, contrasted_treatment, contrasted_views


def mae(
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
    """L = w mean over removed patches of the mean (x - x')^2 (He et al. 2021, arXiv 2111.06377) + w Fourier error.

    The Fourier term is of Kraus et al. 2024 (arXiv 2404.10242). Arguments as `ae`; `model` is an `MAE`.
    """
    del step, teacher
    reconstruction, out, model_state = reconstruct(model, params, model_state, batch, key, train)
    patch_size = model.encoder.patch_size
    prediction, target = (by_channel(out[name], batch.image.shape, patch_size) for name in ("prediction", "target"))
    removed = out["token_mask"].reshape(len(prediction), -1, prediction.shape[2])  # [B, 1 or C, N]
    removed = (removed > 0) & (batch.weight > 0)[:, :, None]
    patches = (prediction, target, removed)
    terms = {"recon": mean_over_images(masked_patch_error(*patches), batch)}
    loss = config.reconstruction * terms["recon"]
    if config.fourier_weight:
        terms["fourier"] = mean_over_images(fourier_error(*patches), batch)
        loss = loss + config.fourier_weight * terms["fourier"]
    return with_shared_terms(loss, terms, {}, config, batch, out, model_state, reconstruction)


MAE = Method(
    build_mae,
    mae,
    other_views=contrasted_views,
    treatment=contrasted_treatment,
    across_images=contrasted_across_images,
    terms=("fourier_weight",),
)

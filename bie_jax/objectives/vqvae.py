"""Vector-quantized autoencoder (van den Oord et al. 2017, arXiv 1711.00937)."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bie_jax.config.schema import Config, ObjectiveConfig
from bie_jax.models import build_autoencoder
from bie_jax.models.quantizers.lookup import capacity_bits
from bie_jax.objectives.autoencoding import error, mean_over_images, reconstruct, with_shared_terms
from bie_jax.objectives.base import Aux, Batch, Method, Teacher
from bie_jax.objectives.contrast import contrasted_across_images, contrasted_treatment, contrasted_views


def vqvae(
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
    """L = w mean (x - x')^2 + beta mean ||z_e - sg[e]||^2 (van den Oord et al. 2017, arXiv 1711.00937, eq. 3).

    A codebook that is learned by gradient adds alpha mean ||sg[z_e] - e||^2; one that is learned by moving averages
    does not. Every term is a mean over batch and positions, so the loss does not depend on the batch size. Arguments as
    `ae`.
    """
    del step, teacher
    reconstruction, out, model_state = reconstruct(model, params, model_state, batch, key, train)
    terms = {
        "recon": mean_over_images(error(config, batch, reconstruction), batch),
        "vq": mean_over_images(out["commitment"], batch),
    }
    loss = config.reconstruction * terms["recon"] + terms["vq"]
    terms["perplexity"] = out["perplexity"]
    totals = {"code_counts": out["code_counts"], "count": batch.weight.max(axis=1).sum()}
    return with_shared_terms(loss, terms, totals, config, batch, out, model_state, reconstruction)


def summarize_codes(totals: dict[str, np.ndarray]) -> dict[str, Any]:
    """`codes_used`: how many codes of a codebook occurred, mean over codebooks; `capacity_bits`: what the codes of one
    image can hold."""
    counts = totals["code_counts"]  # [G, K]
    positions = round(float(counts.sum() / len(counts) / max(float(totals["count"]), 1)))
    return {
        "codes_used": float((counts > 0).sum(axis=-1).mean()),
        "capacity_bits": capacity_bits(positions, *counts.shape),
    }


def across_images(config: Config) -> tuple[str, ...]:
    """Codebooks that are learned take vectors of the batch."""
    quantizer = config.model.quantizer
    learns = quantizer.name != "fsq"
    kmeans = ("the start from k-means takes its vectors",) if learns and quantizer.kmeans_iterations > 0 else ()
    restarts = ("restarted codes take their vectors",) if learns and quantizer.restart_threshold > 0 else ()
    return contrasted_across_images(config) + kmeans + restarts


VQVAE = Method(
    build_autoencoder,
    vqvae,
    summarize_codes,
    other_views=contrasted_views,
    treatment=contrasted_treatment,
    across_images=across_images,
    has_codes=True,
)

"""Variational autoencoder (Kingma & Welling 2013, arXiv 1312.6114)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.schema import Config, ObjectiveConfig
from bie_jax.losses.divergence import active_units, free_bits, gaussian_kl
from bie_jax.models import build_autoencoder
from bie_jax.objectives.autoencoding import error, mean_over_images, reconstruct, with_shared_terms
from bie_jax.objectives.base import Aux, Batch, Method, Teacher
from bie_jax.objectives.contrast import contrasted_across_images, contrasted_treatment, contrasted_views


def vae(
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
    """L = w / 2 sum (x - x')^2 + beta sum KL(q(z|x) || N(0, 1)), sums per image, mean over the batch, nats.

    The first term is -log p(x|z) of unit variance without its constant (Kingma & Welling 2013, arXiv 1312.6114; beta:
    Higgins et al. 2017). Each dimension's KL, its mean over the latent vectors of the batch, costs at least
    `free_nats` (Kingma et al. 2016, arXiv 1606.04934), and beta grows from 0 over `kl_warmup_steps`. An image of
    independent channels has a latent vector for each, whose KLs add up. Arguments as `ae`.
    """
    del teacher
    reconstruction, out, model_state = reconstruct(model, params, model_state, batch, key, train)
    recon = error(config, batch, reconstruction)
    values = batch.image.shape[1] * batch.image.shape[2] * batch.weight.sum(axis=1)
    # One latent vector per image, or one per channel.
    counts = batch.weight.max(axis=1) if out["mean"].ndim == 2 else batch.weight
    kl = gaussian_kl(out["mean"], out["logvar"]) * counts[..., None]
    axes = tuple(range(kl.ndim - 1))
    kl_per_dim = kl.sum(axis=axes) / jnp.maximum(counts.sum(), 1)  # [d]
    vectors_per_image = counts.sum() / jnp.maximum(batch.weight.max(axis=1).sum(), 1)
    warmup = jnp.minimum(1.0, (step + 1) / max(config.kl_warmup_steps, 1))
    nll = mean_over_images(0.5 * values * recon, batch)
    divergence = vectors_per_image * free_bits(kl_per_dim, config.free_nats)
    loss = config.reconstruction * nll + config.beta * warmup * divergence
    mean = out["mean"].astype(jnp.float32)
    totals = {
        "count": counts.sum(),
        "kl": kl.sum(axis=axes),
        "mean": (mean * counts[..., None]).sum(axis=axes),
        "mean_square": (jnp.square(mean) * counts[..., None]).sum(axis=axes),
    }
    terms = {"recon": mean_over_images(recon, batch), "nll": nll, "kl": vectors_per_image * kl_per_dim.sum()}
    return with_shared_terms(loss, terms, totals, config, batch, out, model_state, reconstruction)


def summarize_latents(totals: dict[str, np.ndarray]) -> dict[str, Any]:
    """`kl_per_dim`, nats; `active_units`: dimensions whose mean varies between images (Burda et al. 2015)."""
    mean, mean_square, count = (jnp.asarray(totals[name]) for name in ("mean", "mean_square", "count"))
    units = active_units(mean, mean_square, count)
    return {"active_units": int(units), "kl_per_dim": (totals["kl"] / totals["count"]).round(6).tolist()}


def end_of_warmup(config: ObjectiveConfig) -> int:
    """The step from which on the divergence has its full weight."""
    return config.kl_warmup_steps


def across_images(config: Config) -> tuple[str, ...]:
    """Free nats are of the batch's mean divergence."""
    free = ("the bound of free nats takes its mean divergence",) if config.objective.free_nats > 0 else ()
    return contrasted_across_images(config) + free


VAE = Method(
    build_autoencoder,
    vae,
    summarize_latents,
    other_views=contrasted_views,
    treatment=contrasted_treatment,
    settled_step=end_of_warmup,
    across_images=across_images,
    terms=("free_nats", "kl_warmup_steps"),
)

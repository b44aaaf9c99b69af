"""What each method minimizes: one pure function per method, all with one signature.

    objective(model, config, params, model_state, batch, step, key, *, train) -> (loss, Aux)

`loss` is the scalar to differentiate. A method is an entry of `METHODS`; the training loop knows nothing else about it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.losses import contrastive, shape
from bie_jax.losses.divergence import active_units, free_bits, gaussian_kl
from bie_jax.losses.fourier import fourier_error
from bie_jax.losses.reconstruction import masked_patch_error, mean_squared_error
from bie_jax.models import build_autoencoder, build_mae
from bie_jax.models.mae import by_channel
from bie_jax.models.quantizers.lookup import capacity_bits


@flax.struct.dataclass
class Batch:
    """What an objective sees of a batch.

    Attributes:
        image: [B, H, W, C] float, normalized.
        weight: [B, C] float, 1 for a channel of an image; 0 for one that the image's set does not have, and for all
            channels of what pads a last batch.
        channel_mask: `weight` > 0 for the model, or None where all channels of all images are known to be there.
        origin: of the images, for a loss that compares them.
        other_view: [B, H, W, C], another random view of the same images, for a loss that compares the two.
    """

    image: jax.Array
    weight: jax.Array
    channel_mask: jax.Array | None
    origin: contrastive.Origin
    other_view: jax.Array | None = None


def unlabeled_batch(image: jax.Array, weight: jax.Array) -> Batch:
    """Images [B, H, W, C] with their `weight` [B, C], of one plate, a well each, and of no known treatment."""
    number = jnp.arange(len(image))
    return Batch(image, weight, weight > 0, contrastive.Origin(number, number, 0 * number, 0 * number - 1))


@flax.struct.dataclass
class Aux:
    """What an objective hands back beside its loss.

    Attributes:
        metrics: scalars to log, unweighted term values under the names they get in `metrics.jsonl`.
        totals: arrays that are summed over the batches of an epoch; the method's `summarize` makes numbers of them.
        model_state: batch statistics and codebooks after this batch (unchanged when not training).
        reconstruction: [B, H, W, C] float, normalized like the input.
    """

    metrics: dict[str, jax.Array]
    totals: dict[str, jax.Array]
    model_state: Any
    reconstruction: jax.Array


class Method(NamedTuple):
    """A way to learn embeddings.

    Attributes:
        build: (checked `model` group, number of channels, *, image_size, remat, num_microbatches) -> network; see
            `models.build_autoencoder`.
        objective: see the top of this file.
        summarize: host copies of `Aux.totals` -> numbers to log.
    """

    build: Callable[..., nn.Module]
    objective: Callable[..., tuple[jax.Array, Aux]]
    summarize: Callable[[dict[str, np.ndarray]], dict[str, Any]]


def ae(
    model: nn.Module,
    config: Any,
    params: Any,
    model_state: Any,
    batch: Batch,
    step: jax.Array,
    key: jax.Array,
    *,
    train: bool,
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
    """
    reconstruction, out, model_state = _apply(model, params, model_state, batch, key, train)
    terms = {"recon": _mean(_error(config, batch, reconstruction), batch)}
    loss = config.reconstruction * terms["recon"]
    return _finish(loss, terms, {}, config, batch, out, model_state, reconstruction)


def vae(
    model: nn.Module,
    config: Any,
    params: Any,
    model_state: Any,
    batch: Batch,
    step: jax.Array,
    key: jax.Array,
    *,
    train: bool,
) -> tuple[jax.Array, Aux]:
    """L = w / 2 sum (x - x')^2 + beta sum KL(q(z|x) || N(0, 1)), sums per image, mean over the batch, nats.

    The first term is -log p(x|z) of unit variance without its constant (Kingma & Welling 2013, arXiv 1312.6114; beta:
    Higgins et al. 2017). Each dimension's KL, its mean over the latent vectors of the batch, costs at least
    `free_nats` (Kingma et al. 2016, arXiv 1606.04934), and beta grows from 0 over `kl_warmup_steps`. An image of
    independent channels has a latent vector for each, whose KLs add up. Arguments as `ae`.
    """
    reconstruction, out, model_state = _apply(model, params, model_state, batch, key, train)
    recon = _error(config, batch, reconstruction)
    values = batch.image.shape[1] * batch.image.shape[2] * batch.weight.sum(axis=1)
    # One latent vector per image, or one per channel.
    counts = batch.weight.max(axis=1) if out["mean"].ndim == 2 else batch.weight
    kl = gaussian_kl(out["mean"], out["logvar"]) * counts[..., None]
    axes = tuple(range(kl.ndim - 1))
    kl_per_dim = kl.sum(axis=axes) / jnp.maximum(counts.sum(), 1)  # [d]
    vectors_per_image = counts.sum() / jnp.maximum(batch.weight.max(axis=1).sum(), 1)
    warmup = jnp.minimum(1.0, (step + 1) / max(config.kl_warmup_steps, 1))
    nll = _mean(0.5 * values * recon, batch)
    divergence = vectors_per_image * free_bits(kl_per_dim, config.free_nats)
    loss = config.reconstruction * nll + config.beta * warmup * divergence
    mean = out["mean"].astype(jnp.float32)
    totals = {
        "count": counts.sum(),
        "kl": kl.sum(axis=axes),
        "mean": (mean * counts[..., None]).sum(axis=axes),
        "mean_square": (jnp.square(mean) * counts[..., None]).sum(axis=axes),
    }
    terms = {"recon": _mean(recon, batch), "nll": nll, "kl": vectors_per_image * kl_per_dim.sum()}
    return _finish(loss, terms, totals, config, batch, out, model_state, reconstruction)


def vqvae(
    model: nn.Module,
    config: Any,
    params: Any,
    model_state: Any,
    batch: Batch,
    step: jax.Array,
    key: jax.Array,
    *,
    train: bool,
) -> tuple[jax.Array, Aux]:
    """L = w mean (x - x')^2 + beta mean ||z_e - sg[e]||^2 (van den Oord et al. 2017, arXiv 1711.00937, eq. 3).

    A codebook that is learnt by gradient adds alpha mean ||sg[z_e] - e||^2; one that is learnt by moving averages does
    not. Every term is a mean over batch and positions, so the loss does not depend on the batch size. Arguments as
    `ae`.
    """
    reconstruction, out, model_state = _apply(model, params, model_state, batch, key, train)
    terms = {
        "recon": _mean(_error(config, batch, reconstruction), batch),
        "vq": _mean(out["commitment"], batch),
    }
    loss = config.reconstruction * terms["recon"] + terms["vq"]
    terms["perplexity"] = out["perplexity"]
    totals = {"code_counts": out["code_counts"], "count": batch.weight.max(axis=1).sum()}
    return _finish(loss, terms, totals, config, batch, out, model_state, reconstruction)


def mae(
    model: nn.Module,
    config: Any,
    params: Any,
    model_state: Any,
    batch: Batch,
    step: jax.Array,
    key: jax.Array,
    *,
    train: bool,
) -> tuple[jax.Array, Aux]:
    """L = w mean over removed patches of the mean (x - x')^2 (He et al. 2021, arXiv 2111.06377) + w Fourier error.

    The Fourier term is of Kraus et al. 2024 (arXiv 2404.10242). Arguments as `ae`; `model` is an `MAE`.
    """
    reconstruction, out, model_state = _apply(model, params, model_state, batch, key, train)
    patch_size = model.encoder.patch_size
    prediction, target = (by_channel(out[name], batch.image.shape, patch_size) for name in ("prediction", "target"))
    removed = out["token_mask"].reshape(len(prediction), -1, prediction.shape[2])  # [B, 1 or C, N]
    removed = (removed > 0) & (batch.weight > 0)[:, :, None]
    patches = (prediction, target, removed)
    terms = {"recon": _mean(masked_patch_error(*patches), batch)}
    loss = config.reconstruction * terms["recon"]
    if config.fourier_weight:
        terms["fourier"] = _mean(fourier_error(*patches), batch)
        loss = loss + config.fourier_weight * terms["fourier"]
    return _finish(loss, terms, {}, config, batch, out, model_state, reconstruction)


def no_summary(totals: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of a method that keeps no totals."""
    del totals
    return {}


def summarise_codes(totals: dict[str, np.ndarray]) -> dict[str, Any]:
    """`codes_used`: how many codes of a codebook occurred, mean over codebooks; `capacity_bits`: what the codes of one
    image can hold."""
    counts = totals["code_counts"]  # [G, K]
    positions = round(float(counts.sum() / len(counts) / max(float(totals["count"]), 1)))
    return {
        "codes_used": float((counts > 0).sum(axis=-1).mean()),
        "capacity_bits": capacity_bits(positions, *counts.shape),
    }


def summarise_latents(totals: dict[str, np.ndarray]) -> dict[str, Any]:
    """`kl_per_dim`, nats; `active_units`: dimensions whose mean varies between images (Burda et al. 2015)."""
    mean, mean_square, count = (jnp.asarray(totals[name]) for name in ("mean", "mean_square", "count"))
    units = active_units(mean, mean_square, count)
    return {"active_units": int(units), "kl_per_dim": (totals["kl"] / totals["count"]).round(6).tolist()}


METHODS = {
    "ae": Method(build_autoencoder, ae, no_summary),
    "vae": Method(build_autoencoder, vae, summarise_latents),
    "vqvae": Method(build_autoencoder, vqvae, summarise_codes),
    "mae": Method(build_mae, mae, no_summary),
}


_MATRIX_TERMS = {
    "diagonal": shape.zero_diagonal,
    "symmetry": shape.symmetry,
    "non_negativity": shape.non_negativity,
    "triangle": shape.triangle_inequality,
}


def build_model(config: Any, num_channels: int) -> nn.Module:
    """The network that a checked configuration describes, for images of `num_channels` channels."""
    method = METHODS[config.model.name]
    return method.build(
        config.model,
        num_channels,
        image_size=config.data.crop_size,
        remat=config.train.remat,
        num_microbatches=config.train.accumulate_steps,
    )


def _apply(
    model: nn.Module, params: Any, model_state: Any, batch: Batch, key: jax.Array, train: bool
) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    """Reconstruction, `out`, and the model's collections after the batch.

    Of another view only the embedding is needed, `out["other_embedding"]`, and nothing is learnt from it twice.
    """
    variables = {"params": params, **model_state}
    mutable = list(model_state) if train else []
    (reconstruction, out), changed = model.apply(
        variables, batch.image, batch.channel_mask, train=train, rngs={"noise": key}, mutable=mutable
    )
    if batch.other_view is not None:
        other_key = jax.random.fold_in(key, 1)
        (_, other), _ = model.apply(
            variables,
            batch.other_view,
            batch.channel_mask,
            train=train,
            rngs={"noise": other_key},
            mutable=mutable,
            method="encode",
        )
        out = out | {"other_embedding": other["embedding"]}
    return reconstruction, out, changed if train else model_state


def _error(config: Any, batch: Batch, reconstruction: jax.Array) -> jax.Array:
    """Mean squared error of each image [B]; of a distance matrix from any start point, where that is asked for."""
    if not config.matrix.reindexed:
        return mean_squared_error(batch.image, reconstruction, batch.weight)
    return shape.reindexed_mse(batch.image[..., 0], reconstruction[..., 0])


def _mean(per_image: jax.Array, batch: Batch) -> jax.Array:
    """Over the images that count."""
    counts = batch.weight.max(axis=1)
    return (counts * per_image.astype(jnp.float32)).sum() / jnp.maximum(counts.sum(), 1)


def _finish(
    loss: jax.Array,
    terms: dict[str, jax.Array],
    totals: dict[str, jax.Array],
    config: Any,
    batch: Batch,
    out: dict[str, jax.Array],
    model_state: Any,
    reconstruction: jax.Array,
) -> tuple[jax.Array, Aux]:
    """Add the terms that any method may have, and put everything together."""
    for name, term in _MATRIX_TERMS.items():
        weight = getattr(config.matrix, name)
        if weight:
            terms = terms | {name: _mean(jax.vmap(term)(reconstruction[..., 0]), batch)}
            loss = loss + weight * terms[name]
    settings = config.contrastive
    if settings.weight:
        terms = terms | {"contrastive": _contrast(settings, batch, out)}
        loss = loss + settings.weight * terms["contrastive"]
    return loss, Aux({"loss": loss, **terms}, totals, model_state, reconstruction)


def _contrast(settings: Any, batch: Batch, out: dict[str, jax.Array]) -> jax.Array:
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

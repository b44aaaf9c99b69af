"""Pulling together what shows the same: channels of one image, or replicates of one treatment on different plates.

InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with cosine similarity, averaged over the positives of an anchor
outside of the logarithm (Khosla et al. 2020, arXiv 2004.11362, equation 2, L_out). Everything else in the batch is a
negative, on all devices together: under `jax.jit` with a split batch the similarities are those of the global batch.
"""

import jax
import jax.numpy as jnp


def info_nce(embeddings: jax.Array, present: jax.Array, temperature: float) -> jax.Array:
    """Channels of one image are positives of each other.

    Negatives are all channels of the other images. Were they only those of the anchor's own kind, the kind alone would
    tell them from positives, and nothing about the image would have to be learnt.

    Args:
        embeddings: [B, C, D], one per channel.
        present: [B, C] bool; a channel that is not there is neither anchor, positive nor negative.
        temperature: tau, of cosine similarities.

    Returns:
        Scalar float32, nats: mean over the anchors that have a positive; 0 if none has.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_channels(embeddings, present)
    batch_size, channels, _ = embeddings.shape
    image = jnp.repeat(jnp.arange(batch_size), channels)
    same = image[:, None] == image[None, :]
    there = present.reshape(-1)
    pairs = there[:, None] & there[None, :]
    return _contrast(embeddings.reshape(batch_size * channels, -1), same & pairs, pairs, temperature)


def info_nce_replicates(embedding: jax.Array, treatment: jax.Array, plate: jax.Array, temperature: float) -> jax.Array:
    """Images of one treatment on different plates are positives of each other.

    Negatives are images of other treatments, on any plate. The same treatment on the same plate is left out: as a
    positive it could be recognised by the plate, as a negative it would push replicates apart.

    Args:
        embedding: [B, D].
        treatment: [B] int, equal for images of one treatment; -1: none, and the image is left out altogether.
        plate: [B] int, equal for images of one plate.
        temperature: tau, of cosine similarities.

    Returns:
        Scalar float32, nats: mean over the anchors that have a positive; 0 if none has.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if embedding.ndim != 2 or treatment.shape != plate.shape or treatment.shape != embedding.shape[:1]:
        raise ValueError(
            f"embedding is {embedding.shape}, treatment {treatment.shape}, plate {plate.shape}; expected [B, D], [B] "
            "and [B]"
        )
    treated = treatment >= 0
    pairs = treated[:, None] & treated[None, :]
    same_treatment = treatment[:, None] == treatment[None, :]
    positive = pairs & same_treatment & (plate[:, None] != plate[None, :])
    return _contrast(embedding, positive, positive | (pairs & ~same_treatment), temperature)


def channel_pull(embeddings: jax.Array, present: jax.Array) -> jax.Array:
    """How far the channels of an image lie apart, with nothing that holds different images apart.

    2 / (B (C - 1)) sum_bc ||z_bc - mean_c z_bc||^2: the mean squared distance between two channels of an image. Its
    optimum is a constant; it is here for comparison with `info_nce`.

    Args:
        embeddings: [B, C, D], one per channel.
        present: [B, C] bool, the channels that there are; C and the mean are those of an image's own channels, and B
            counts images that have two and more.

    Returns:
        Scalar float32; 0 if no image has two channels.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_channels(embeddings, present)
    there = present[..., None]
    embeddings = jnp.where(there, embeddings.astype(jnp.float32), 0)
    count = present.sum(axis=1)  # [B]
    mean = embeddings.sum(axis=1, keepdims=True) / jnp.maximum(count, 1)[:, None, None]
    scatter = jnp.where(there, jnp.square(embeddings - mean), 0).sum(axis=(1, 2))
    pairs = count >= 2
    apart = jnp.where(pairs, 2 * scatter / jnp.maximum(count - 1, 1), 0)
    return apart.sum() / jnp.maximum(pairs.sum(), 1)


def _contrast(embeddings: jax.Array, positive: jax.Array, compared: jax.Array, temperature: float) -> jax.Array:
    """L_out of rows.

    Args:
        embeddings: [N, D].
        positive: [N, N] bool, which columns are positives of a row.
        compared: [N, N] bool, positives and negatives, symmetric; the diagonal counts in neither.
        temperature: of cosine similarities.
    """
    others = ~jnp.eye(len(embeddings), dtype=bool)
    positive, compared = positive & others, compared & others
    # Rows that nothing is compared with may hold anything, infinity too.
    used = compared.any(axis=1, keepdims=True)
    rows = jnp.where(used, embeddings.astype(jnp.float32), 0)
    # A vector of zeros has no direction; the floor keeps it, and its gradient, finite.
    rows = rows * jax.lax.rsqrt(jnp.maximum(jnp.square(rows).sum(axis=1, keepdims=True), 1e-12))
    logits = jnp.matmul(rows, rows.T, precision="highest") / temperature
    log_sum = jax.nn.logsumexp(logits, axis=1, keepdims=True, where=compared)
    counts = positive.sum(axis=1)
    by_anchor = jnp.where(positive, log_sum - logits, 0).sum(axis=1) / jnp.maximum(counts, 1)
    return by_anchor.sum() / jnp.maximum((counts > 0).sum(), 1)


def _check_channels(embeddings: jax.Array, present: jax.Array) -> None:
    if embeddings.ndim != 3 or present.shape != embeddings.shape[:2]:
        raise ValueError(
            f"embeddings are {embeddings.shape}, present is {present.shape}; expected [B, C, D] and [B, C]"
        )

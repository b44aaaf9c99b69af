"""Pulling together what shows the same: channels of one image, or replicates of one treatment on different plates.

InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with cosine similarity, averaged over the positives of an anchor
outside of the logarithm (Khosla et al. 2020, arXiv 2004.11362, equation 2, L_out). Under `jax.jit` with a split batch
the similarities are those of the global batch, on all devices together.

What is compared with what:

- Copies. Batches run across the ends of epochs, so that an image can be in one twice. The first copy counts; the others
  are neither anchors nor positives nor negatives: a batch with copies costs what it costs without them.
- Positives are what the form says, and nothing else.
- Negatives are of another well, and where treatments are compared of another treatment too. Other images of the same
  well show the same cells under the same treatment: they are neither positives nor negatives.
- An anchor counts if it has a positive and a negative.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Origin:
    """Where images come from: numbers that are equal where the thing is the same.

    Attributes:
        image: [B] int32, of the image itself.
        well: [B] int32, of its well; of the field that it was cut from where no well is known.
        plate: [B] int32, of its plate.
        treatment: [B] int32, -1 where it is not known.
    """

    image: jax.Array
    well: jax.Array
    plate: jax.Array
    treatment: jax.Array

    @classmethod
    def of(cls, numbers: jax.Array) -> "Origin":
        """[B, 4], columns in the order of the attributes."""
        return cls(*jnp.moveaxis(numbers, -1, 0))


def info_nce(embeddings: jax.Array, present: jax.Array, origin: Origin, temperature: float) -> jax.Array:
    """Channels of one image, or its views, are positives of each other.

    Negatives are all channels of the images of other wells. Were they only those of the anchor's own kind, the kind
    alone would tell them from positives, and nothing about the image would have to be learned.

    Args:
        embeddings: [B, C, D], one per channel.
        present: [B, C] bool; a channel that is not there is neither anchor, positive nor negative.
        origin: of the images; `image` and `well` are read.
        temperature: tau, of cosine similarities.

    Returns:
        Scalar float32, nats: mean over the anchors that have a positive and a negative; 0 if none has.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_channels(embeddings, present)
    batch_size, channels, _ = embeddings.shape
    if origin.image.shape != (batch_size,) or origin.well.shape != (batch_size,):
        raise ValueError(f"image is {origin.image.shape}, well {origin.well.shape}; expected two of ({batch_size},)")
    there = (present & _first_copies(origin.image, present.any(axis=1))[:, None]).reshape(-1)
    image, well = (jnp.repeat(numbers, channels) for numbers in (jnp.arange(batch_size), origin.well))
    pairs = there[:, None] & there[None, :]
    positive = pairs & (image[:, None] == image[None, :])
    negative = pairs & (well[:, None] != well[None, :])
    return _contrast(embeddings.reshape(batch_size * channels, -1), positive, negative, temperature)


def info_nce_replicates(embedding: jax.Array, origin: Origin, temperature: float) -> jax.Array:
    """Images of one treatment on different plates are positives of each other.

    Negatives are images of other treatments in other wells, on any plate. The same treatment on the same plate is left
    out: as a positive it could be recognized by the plate, as a negative it would push replicates apart.

    Args:
        embedding: [B, D].
        origin: of the images; one of no known treatment is left out altogether.
        temperature: tau, of cosine similarities.

    Returns:
        Scalar float32, nats: mean over the anchors that have a positive and a negative; 0 if none has.

    Raises:
        ValueError: if the shapes do not fit.
    """
    shapes = {name: getattr(origin, name).shape for name in ("image", "well", "plate", "treatment")}
    if embedding.ndim != 2 or set(shapes.values()) != {embedding.shape[:1]}:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"embedding is {embedding.shape}, {told}; expected [B, D] and four of [B]")
    treated = origin.treatment >= 0
    treated = treated & _first_copies(origin.image, treated)
    pairs = treated[:, None] & treated[None, :]

    def differs(numbers: jax.Array) -> jax.Array:
        return numbers[:, None] != numbers[None, :]

    positive = pairs & ~differs(origin.treatment) & differs(origin.plate) & differs(origin.well)
    negative = pairs & differs(origin.treatment) & differs(origin.well)
    return _contrast(embedding, positive, negative, temperature)


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


def _first_copies(image: jax.Array, there: jax.Array) -> jax.Array:
    """[B] bool: whether an image that is there is the first of its number; [B] int, [B] bool."""
    place = jnp.arange(len(image))
    earlier = (image[:, None] == image[None, :]) & there[None, :] & (place[None, :] < place[:, None])
    return there & ~earlier.any(axis=1)


def _contrast(embeddings: jax.Array, positive: jax.Array, negative: jax.Array, temperature: float) -> jax.Array:
    """L_out of rows.

    Args:
        embeddings: [N, D].
        positive: [N, N] bool, symmetric, which columns are positives of a row; the diagonal does not count.
        negative: [N, N] bool, symmetric, which are negatives; no pair is both.
        temperature: of cosine similarities.
    """
    positive = positive & ~jnp.eye(len(embeddings), dtype=bool)
    compared = positive | negative
    # Rows that nothing is compared with may hold anything, infinity too.
    used = compared.any(axis=1, keepdims=True)
    rows = jnp.where(used, embeddings.astype(jnp.float32), 0)
    # A vector of zeros has no direction; the floor keeps it, and its gradient, finite.
    rows = rows * jax.lax.rsqrt(jnp.maximum(jnp.square(rows).sum(axis=1, keepdims=True), 1e-12))
    logits = jnp.matmul(rows, rows.T, precision="highest") / temperature
    log_sum = jax.nn.logsumexp(logits, axis=1, keepdims=True, where=compared)
    counts = jnp.where(negative.any(axis=1), positive.sum(axis=1), 0)
    by_anchor = jnp.where(positive, log_sum - logits, 0).sum(axis=1) / jnp.maximum(counts, 1)
    anchors = counts > 0
    return jnp.where(anchors, by_anchor, 0).sum() / jnp.maximum(anchors.sum(), 1)


def _check_channels(embeddings: jax.Array, present: jax.Array) -> None:
    if embeddings.ndim != 3 or present.shape != embeddings.shape[:2]:
        raise ValueError(
            f"embeddings are {embeddings.shape}, present is {present.shape}; expected [B, C, D] and [B, C]"
        )

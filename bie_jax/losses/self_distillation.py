"""A student says of one crop what its teacher says of another: DINO and what DINOv2 adds to it.

Caron et al. 2021, arXiv 2104.14294; Oquab et al. 2023, arXiv 2304.07193. The teacher's targets are distributions over K
prototypes. They are kept from collapsing onto one prototype by a center (`centered_targets`, `next_center`) or by equal
shares (`sinkhorn_targets`), and from becoming all alike by their low temperature. `koleo` spreads the embeddings.
`collapse_numbers` tells the two collapses apart.

Views are axis 0 of all logits and targets, images axis 1. `there` [B] bool says which images count, in all their views.
The others may hold anything, infinity and NaN too: they change neither values nor gradients. Sums are float32. Under
`jax.jit` with a split batch all means are those of the global batch, on all devices together.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class CollapseNumbers(NamedTuple):
    """Two entropies of the targets, scalar float32 in [0, log K], nats; 0 if no image is there.

    Attributes:
        entropy_of_mean: of the mean target. It falls to 0 where all images get the same prototype.
        mean_entropy: mean of the targets' own. It rises to log K where every target is uniform: all images are alike.
    """

    entropy_of_mean: jax.Array
    mean_entropy: jax.Array


def centered_targets(logits: jax.Array, center: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """softmax((g' - c) / tau'), the targets of DINO: section 3.1 of Caron et al.

    The paper writes g' + c; its code subtracts, as is done here.

    Args:
        logits: [V, B, K], the teacher's g'. An image that holds NaN gets a target of NaN, and no other does.
        center: [K], c; see `next_center`.
        temperature: tau', above 0. The paper's rises from 0.04 to 0.07 in the first epochs.

    Returns:
        [V, B, K] float32, sums over K are 1; without a gradient.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if logits.ndim != 3 or center.shape != logits.shape[-1:]:
        raise ValueError(f"logits are {logits.shape}, center is {center.shape}; expected [V, B, K] and [K]")
    centered = logits.astype(jnp.float32) - center.astype(jnp.float32)[None, None, :]
    return jax.lax.stop_gradient(jax.nn.softmax(centered / temperature, axis=-1))


def sinkhorn_targets(
    logits: jax.Array, temperature: float | jax.Array, there: jax.Array, iterations: int = 3
) -> jax.Array:
    """Targets that use all prototypes equally: Sinkhorn-Knopp over the rows of all views together.

    Starting from exp(g' / tau'), columns are scaled to equal sums and then rows to sums of 1, again and again: SwAV,
    Caron et al. 2020, arXiv 2006.09882, section 3.1; in place of the center in section 4 of Oquab et al. The last to be
    scaled are rows, so that every target is a distribution, and columns are equal only in the limit.

    Difference from the published code: that scales exponentials, where a prototype far below the largest logit
    underflows to 0 / 0. Here it is logarithms that are shifted, so that logits may be hundreds of temperatures apart.

    Args:
        logits: [V, B, K], the teacher's g'.
        temperature: tau', above 0.
        there: [B] bool. An image that is not there is left out of the columns' sums; its targets are finite and mean
            nothing.
        iterations: how often columns and rows are scaled, at least 1.

    Returns:
        [V, B, K] float32, sums over K are 1; without a gradient.

    Raises:
        ValueError: if the shapes do not fit, or there is no iteration.
    """
    _check_views("logits", logits, there)
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; after fewer than 1 the targets would be no distributions")

    def scale(_: int, log_q: jax.Array) -> jax.Array:
        log_columns = jax.nn.logsumexp(log_q, axis=(0, 1), keepdims=True, where=there[None, :, None])  # [1, 1, K]
        # Without an image there is no column to scale by: its sum is 0, and its logarithm would make all targets NaN.
        return jax.nn.log_softmax(log_q - jnp.where(there.any(), log_columns, 0), axis=-1)

    log_q = jax.lax.stop_gradient(_there_or_zero(logits, there) / temperature)
    return jnp.exp(jax.lax.fori_loop(0, iterations, scale, log_q))


def distillation(targets: jax.Array, logits: jax.Array, there: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """Cross-entropy of the student's predictions for all crops but the one that the target was made from.

    Mean over t < T and s < S, s != t, and over the images that are there, of -sum_k P'_t log softmax(g_s / tau):
    equation 3 of Caron et al., as a mean of T (S - 1) pairs. Were a crop compared with itself, a student that only
    follows its teacher would pay least.

    Args:
        targets: [T, B, K], P' of the teacher's T views; no gradient goes into them.
        logits: [S, B, K], the student's g. The first T views are the same crops as the teacher's, in the same order.
        there: [B] bool.
        temperature: tau, above 0. The paper's is 0.1.

    Returns:
        Scalar float32, nats, at least the targets' mean entropy; 0 if no image is there.

    Raises:
        ValueError: if the shapes do not fit, or one view is all that there is.
    """
    _check_views("targets", targets, there)
    _check_views("logits", logits, there)
    teachers, students = len(targets), len(logits)
    if targets.shape[1:] != logits.shape[1:] or teachers > students:
        raise ValueError(
            f"targets are {targets.shape}, logits {logits.shape}; expected [T, B, K] and [S, B, K] with T <= S: the "
            "student sees all crops, the teacher the first of them"
        )
    if students == 1:
        raise ValueError(
            "one view of the teacher and the same one of the student: a crop is never compared with itself, so there "
            "is nothing to compare; ask for two or more views of an image"
        )
    targets = jax.lax.stop_gradient(_there_or_zero(targets, there))
    log_p = jax.nn.log_softmax(_there_or_zero(logits, there) / temperature, axis=-1)
    by_image = jnp.zeros(there.shape, jnp.float32)
    # One product per student view: what it is compared with is added up before, so that nothing is [T, S, B, K].
    for s in range(students):
        others = [targets[t] for t in range(teachers) if t != s]
        if others:
            by_image = by_image - (sum(others[1:], start=others[0]) * log_p[s]).sum(axis=-1)
    return by_image.sum() / (teachers * (students - 1) * _count(there))


def next_center(center: jax.Array, logits: jax.Array, there: jax.Array, momentum: float | jax.Array) -> jax.Array:
    """c <- m c + (1 - m) mean g': equation 4 of Caron et al.

    Args:
        center: [K], c.
        logits: [V, B, K], the teacher's g'; the mean is over views and the images that are there.
        there: [B] bool.
        momentum: m in [0, 1]. The paper's is 0.9.

    Returns:
        [K] float32; the center as it was if no image is there.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_views("logits", logits, there)
    if center.shape != logits.shape[-1:]:
        raise ValueError(f"center is {center.shape}, logits are {logits.shape}; expected [K] and [V, B, K]")
    center = center.astype(jnp.float32)
    mean = _there_or_zero(logits, there).sum(axis=(0, 1)) / (len(logits) * _count(there))
    return jnp.where(there.any(), momentum * center + (1 - momentum) * mean, center)


def koleo(embedding: jax.Array, there: jax.Array, eps: float = 1e-8) -> jax.Array:
    """-mean_i log(min_j ||z_i - z_j|| + eps) of L2-normalized embeddings: spreads them over the sphere.

    The Kozachenko-Leonenko estimate of their entropy: Sablayrolles et al. 2018, arXiv 1806.03198; section 4 of Oquab
    et al. The gradient goes to both ends of a distance, and none into the choice of the neighbor, which is
    the one of the largest cosine. Rounding hides differences of 1e-7 between cosines: among neighbors nearer than about
    3e-4 any may be taken.

    Rows that are equal to the bit have distance 0 and no gradient between them: there is no direction to push in. A
    little apart, the gradient is as large as 1 / distance, and below 1 / eps.

    Difference from the published code: that adds another eps to every coordinate of a difference, and a direction with
    it.

    Args:
        embedding: [B, D], of one view: views of one image are to be near each other.
        there: [B] bool; an image that is not there is nobody's neighbor.
        eps: added to the distance, above 0.

    Returns:
        Scalar float32, at least -log(2 + eps); 0 if fewer than two images are there.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if embedding.ndim != 2 or there.shape != embedding.shape[:1]:
        raise ValueError(f"embedding is {embedding.shape}, there is {there.shape}; expected [B, D] and [B]")
    rows = jnp.where(there[:, None], embedding.astype(jnp.float32), 0)
    # A vector of zeros has no direction; the floor keeps it, and its gradient, finite.
    rows = rows * jax.lax.rsqrt(jnp.maximum(jnp.square(rows).sum(axis=1, keepdims=True), 1e-12))
    fixed = jax.lax.stop_gradient(rows)
    cosines = jnp.matmul(fixed, fixed.T, precision="highest")
    others = there[None, :] & ~jnp.eye(len(rows), dtype=bool)
    nearest = jnp.argmax(jnp.where(others, cosines, -jnp.inf), axis=1)  # [B]
    square = jnp.square(rows - rows[nearest]).sum(axis=1)
    counted = there & (there.sum() >= 2)
    # sqrt'(0) is infinite: where the distance is 0, or does not count, the root is taken of 1.
    apart = counted & (square > 0)
    distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)
    return -jnp.where(counted, jnp.log(distance + eps), 0).sum() / _count(there)


def collapse_numbers(targets: jax.Array, there: jax.Array) -> CollapseNumbers:
    """The entropies that tell the two collapses of self-distillation: section 5.3 of Caron et al.

    Their difference is how much a target tells about its image, nats.

    Args:
        targets: [T, B, K], of the teacher.
        there: [B] bool.

    Returns:
        Both without a gradient.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_views("targets", targets, there)
    targets = jax.lax.stop_gradient(_there_or_zero(targets, there))
    rows = len(targets) * _count(there)
    entropy_of_mean = jax.scipy.special.entr(targets.sum(axis=(0, 1)) / rows).sum()
    return CollapseNumbers(entropy_of_mean, jax.scipy.special.entr(targets).sum() / rows)


def _there_or_zero(views: jax.Array, there: jax.Array) -> jax.Array:
    """[V, B, K] float32, 0 for the images that are not there."""
    return jnp.where(there[None, :, None], views.astype(jnp.float32), 0)


def _count(there: jax.Array) -> jax.Array:
    """How many images are there, at least 1: what a sum of none is divided by."""
    return jnp.maximum(there.sum(), 1)


def _check_views(name: str, views: jax.Array, there: jax.Array) -> None:
    if views.ndim != 3 or there.shape != views.shape[1:2]:
        raise ValueError(f"{name} are {views.shape}, there is {there.shape}; expected [V, B, K] and [B]")

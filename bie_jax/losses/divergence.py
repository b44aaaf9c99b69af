"""Divergence of a VAE's posterior from its prior, and how many of its dimensions carry anything."""

import jax
import jax.numpy as jnp


def gaussian_kl(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of every dimension, nats.

    1/2 (mean^2 + exp(logvar) - 1 - logvar): Kingma & Welling 2013, arXiv 1312.6114, appendix B. Sum over the last axis
    for the divergence of a vector.

    Args:
        mean: [..., d].
        logvar: [..., d], natural logarithm of the variance.

    Returns:
        [..., d] float32, at least 0 but for rounding.
    """
    mean, logvar = mean.astype(jnp.float32), logvar.astype(jnp.float32)
    # expm1: near a collapsed posterior exp(logvar) - 1 alone would keep few digits.
    return 0.5 * (jnp.square(mean) + jnp.expm1(logvar) - logvar)


def free_bits(kl_per_dim: jax.Array, free_nats: float) -> jax.Array:
    """Divergence where every dimension costs at least `free_nats`.

    sum_j max(free_nats, KL_j): "free bits" of Kingma et al. 2016, arXiv 1606.04934, with one dimension per group; the
    unit here is the nat. A dimension under the bound has no gradient.

    Args:
        kl_per_dim: [d] nats, the mean over the batch (not of one image: single images may be cheaper).
        free_nats: lambda, nats per dimension; 0 gives the plain sum.

    Returns:
        Scalar, nats.
    """
    return jnp.maximum(kl_per_dim, free_nats).sum()


def active_units(
    mean_sum: jax.Array, mean_square_sum: jax.Array, count: jax.Array, threshold: float = 0.01
) -> jax.Array:
    """How many latent dimensions vary between images.

    A dimension is active if the variance over images of its posterior mean is above the threshold: Burda et al. 2015,
    arXiv 1509.00519, section 5.2. The variance is a difference of two sums: it is known to about 1e-6 of the squared
    mean, so means of 100 and more (the prior asks for 0) could hide a threshold of 0.01.

    Args:
        mean_sum: [d] sum over images of the posterior means.
        mean_square_sum: [d] sum of their squares.
        count: how many images, at least 1.
        threshold: the paper's 0.01.

    Returns:
        Integer scalar in [0, d].
    """
    mean = mean_sum / count
    variance = mean_square_sum / count - jnp.square(mean)
    return (variance > threshold).sum()

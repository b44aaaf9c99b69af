"""How far the spectrum of a reconstruction is from that of its image: Kraus et al. 2024, arXiv 2404.10242."""

import math

import jax
import jax.numpy as jnp

from bie_jax.losses.reconstruction import check_patches, mean_over_removed


def fourier_error(prediction: jax.Array, target: jax.Array, token_mask: jax.Array) -> jax.Array:
    """Mean over removed patches of mean | |F x| - |F x'| |, F the 2-D discrete Fourier transform of a patch.

    The mean is over the p^2 frequencies of every patch of every channel; F is the plain sum, without 1 / p^2, so that
    values grow with the patch size. Magnitudes forget where in a patch something lies, and ask for as much texture as
    there is, which a squared error blurs away. The paper weighs it by 0.01 (and the squared error by 0.99).

    Difference from the code published with the paper: that views the [N, P] numbers of all tokens, which lie patch by
    patch, as P images of sqrt(N) x sqrt(N), so that its transform runs across patches. Here every patch is an image.

    Args:
        prediction: [B, C, N, P] float, P = p^2 pixels of a patch of one channel, row by row.
        target: [B, C, N, P].
        token_mask: [B, C, N], as in `masked_patch_error`.

    Returns:
        [B] float32.

    Raises:
        ValueError: if the shapes differ, there is no channel axis, or P is no square.
    """
    check_patches(prediction, target, token_mask)
    side = math.isqrt(prediction.shape[-1])
    if prediction.ndim != 4 or side**2 != prediction.shape[-1]:
        raise ValueError(
            f"patches are {prediction.shape}; the Fourier error takes [B, C, N, P] with the P = p x p pixels of one "
            "channel"
        )

    def magnitude(patches: jax.Array) -> jax.Array:
        patches = patches.astype(jnp.float32).reshape(*patches.shape[:-1], side, side)
        return jnp.abs(jnp.fft.fft2(patches))

    difference = jnp.abs(magnitude(prediction) - magnitude(target))
    return mean_over_removed(difference.mean(axis=(-2, -1)), token_mask)

"""How far a reconstruction is from its image."""

import jax
import jax.numpy as jnp


def mean_squared_error(image: jax.Array, reconstruction: jax.Array, channel_weight: jax.Array) -> jax.Array:
    """Weighted mean of (x - x')^2 over pixels and channels, one value per image.

    With weights of 0 and 1, H W sum(channel_weight) / 2 of it is the negative log-likelihood of a Gaussian of unit
    variance without its constant, nats: the sum over pixels and channels that a VAE needs.

    Args:
        image: [B, H, W, C].
        reconstruction: [B, H, W, C].
        channel_weight: [B, C], 0 for a channel that does not count; an image without any costs 0.

    Returns:
        [B] float32.

    Raises:
        ValueError: if the shapes differ; broadcasting would turn a mistake into a number.
    """
    if image.shape != reconstruction.shape or channel_weight.shape != (image.shape[0], image.shape[3]):
        raise ValueError(
            f"image is {image.shape}, its reconstruction {reconstruction.shape}: they must be equal; the weights of "
            f"its channels are {channel_weight.shape}"
        )
    by_channel = jnp.square(image.astype(jnp.float32) - reconstruction.astype(jnp.float32)).mean(axis=(1, 2))
    total = channel_weight.sum(axis=1)
    return (channel_weight * by_channel).sum(axis=1) / jnp.where(total > 0, total, 1)


def masked_patch_error(prediction: jax.Array, target: jax.Array, token_mask: jax.Array) -> jax.Array:
    """Mean over removed patches of the mean of (x - x')^2 over the patch, one value per image.

    He et al. 2021, arXiv 2111.06377, section 3 ("reconstruction target").

    Args:
        prediction: [B, N, P], or [B, C, N, P] for patches of each channel.
        target: as `prediction`.
        token_mask: [B, N] or [B, C, N] as `prediction` has it: 1 for a removed patch, which counts; 0 for one that the
            encoder saw and for one of a channel that is not there. An image with zeros only costs 0.

    Returns:
        [B] float32.

    Raises:
        ValueError: if the shapes differ.
    """
    check_patches(prediction, target, token_mask)
    by_patch = jnp.square(prediction.astype(jnp.float32) - target.astype(jnp.float32)).mean(axis=-1)
    return mean_over_removed(by_patch, token_mask)


def check_patches(prediction: jax.Array, target: jax.Array, token_mask: jax.Array) -> None:
    """Raise ValueError unless the mask has the leading axes of both."""
    if prediction.shape != target.shape or token_mask.shape != prediction.shape[:-1]:
        raise ValueError(
            f"patches are {prediction.shape}, their targets {target.shape}: they must be equal; the mask is "
            f"{token_mask.shape}, it must be {prediction.shape[:-1]}"
        )


def mean_over_removed(by_patch: jax.Array, token_mask: jax.Array) -> jax.Array:
    """[B, ..., N] of a value per patch -> [B], the mean where the mask is 1; 0 where it is so nowhere."""
    axes = tuple(range(1, by_patch.ndim))
    mask = token_mask.astype(jnp.float32)
    total = mask.sum(axis=axes)
    return (mask * by_patch).sum(axis=axes) / jnp.where(total > 0, total, 1)

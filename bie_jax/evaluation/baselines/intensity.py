"""Intensity statistics of whole images; finite for every finite image: the undefined case has a stated value."""

from collections.abc import Sequence

import numpy as np

from bie_jax.evaluation.baselines.channels import check_channels

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


def intensity_names(channel_names: Sequence[str]) -> list[str]:
    """Column names of `intensity_features`, 12 per channel."""
    statistics = ["mean", "sd", "skewness", *(f"p{q}" for q in PERCENTILES)]
    return [f"intensity_{channel}_{statistic}" for channel in channel_names for statistic in statistics]


def intensity_features(images: np.ndarray, channel_names: Sequence[str]) -> np.ndarray:
    """Mean, standard deviation, skewness and nine percentiles of each channel over the whole image.

    The skewness of a constant channel is 0.

    Args:
        images: [N, H, W, C], any real dtype.
        channel_names: C names.

    Returns:
        [N, 12 C] float64, columns as `intensity_names`; all but skewness in the image's own intensity units.
    """
    check_channels(images, channel_names)
    pixels = np.moveaxis(images, -1, 1).reshape(len(images), images.shape[-1], -1).astype(np.float64)  # [N, C, H W]
    mean = pixels.mean(axis=2)
    centered = pixels - mean[..., None]
    squares = centered * centered
    variance = squares.mean(axis=2)
    third = (squares * centered).mean(axis=2)
    skewness = np.where(variance > 0, third / np.where(variance > 0, variance, 1) ** 1.5, 0.0)
    percentiles = _percentiles(np.moveaxis(images, -1, 1).reshape(*mean.shape, -1))  # [9, N, C]
    columns = np.stack([mean, np.sqrt(variance), skewness, *percentiles], axis=-1)  # [N, C, 12]
    return columns.reshape(len(images), -1)


def _percentiles(pixels: np.ndarray) -> np.ndarray:
    """PERCENTILES of the last axis, as np.percentile gives them.

    One stable sort is a radix sort for 16 bits: 5x faster.
    """
    ordered = np.sort(pixels, axis=-1, kind="stable")
    position = np.array(PERCENTILES) / 100 * (pixels.shape[-1] - 1)
    below = np.floor(position).astype(int)
    above = np.minimum(below + 1, pixels.shape[-1] - 1)
    low, high = ordered[..., below].astype(np.float64), ordered[..., above].astype(np.float64)
    return np.moveaxis(low + (high - low) * (position - below), -1, 0)

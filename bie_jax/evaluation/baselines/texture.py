"""Grey-level co-occurrence texture (Haralick et al. 1973, doi 10.1109/TSMC.1973.4309314) and correlation of channels.

Finite for every finite image: each undefined case below has a stated value.
"""

from collections.abc import Sequence

import numpy as np
import skimage.feature

from bie_jax.evaluation.baselines.channels import check_channels

# One pixel for grain and noise, six for the size of organelles at usual sampling.
DISTANCES_PX = (1, 3, 6)
PROPERTIES = ("contrast", "homogeneity", "energy", "correlation")
GREY_LEVELS = 32


def texture_names(channel_names: Sequence[str]) -> list[str]:
    """Column names of `texture_features`: 12 per channel, then one per pair of channels."""
    haralick = [
        f"texture_{channel}_{quantity}_{distance}px"
        for channel in channel_names
        for quantity in PROPERTIES
        for distance in DISTANCES_PX
    ]
    pairs = [
        f"correlation_{first}_{second}" for i, first in enumerate(channel_names) for second in channel_names[i + 1 :]
    ]
    return haralick + pairs


def texture_features(images: np.ndarray, channel_names: Sequence[str]) -> np.ndarray:
    """Grey-level co-occurrence texture of each channel at three distances, and Pearson correlation between channels.

    Co-occurrence is symmetric, normalized and averaged over four directions. A constant channel has contrast 0,
    homogeneity, energy and correlation 1 (scikit-image's convention), and Pearson correlation 0 with every other
    channel.

    Args:
        images: [N, H, W, C].
        channel_names: C names.

    Returns:
        [N, 12 C + C (C - 1) / 2] float64, columns as `texture_names`.
    """
    check_channels(images, channel_names)
    angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    count = images.shape[-1]
    first, second = np.triu_indices(count, k=1)
    rows = []
    for image in images:
        row = []
        for c in range(count):
            matrix = skimage.feature.graycomatrix(
                _grey_levels(image[..., c]),
                DISTANCES_PX,
                angles,
                GREY_LEVELS,
                symmetric=True,
                normed=True,
            ).mean(axis=3, keepdims=True)
            row += [skimage.feature.graycoprops(matrix, quantity)[:, 0] for quantity in PROPERTIES]
        centered = image.reshape(-1, count).astype(np.float64)
        centered -= centered.mean(axis=0)
        norm = np.linalg.norm(centered, axis=0)
        correlation = (centered / np.where(norm > 0, norm, 1)).T @ (centered / np.where(norm > 0, norm, 1))
        rows.append(np.concatenate([*row, correlation[first, second]]))
    return np.array(rows)


def _grey_levels(channel: np.ndarray) -> np.ndarray:
    """Quantize [H, W] to GREY_LEVELS steps between its own 1st and 99th percentile: texture apart from brightness."""
    low, high = np.percentile(channel, (1, 99))
    if high <= low:
        return np.zeros(channel.shape, np.uint8)
    scaled = (channel.astype(np.float64) - low) / (high - low) * GREY_LEVELS
    return np.clip(scaled, 0, GREY_LEVELS - 1).astype(np.uint8)

"""Pixels as features: coarse ones, whose principal components are fitted inside each training fold."""

import numpy as np


def block_averaged_pixels(images: np.ndarray, channel_scale: np.ndarray, largest_side_px: int = 64) -> np.ndarray:
    """Pixels for PCA: the center, averaged over square blocks so that no side exceeds `largest_side_px`.

    The block is the smallest that does it (1 for images that are small enough), the same for rows and columns; what is
    left over at the borders is cropped evenly. Channels are divided by their standard deviation over the whole set,
    else the brightest dye would be the first component.

    Args:
        images: [N, H, W, C].
        channel_scale: [C], standard deviations; a channel with 0 is left as it is.
        largest_side_px: pixels.

    Returns:
        [N, h w C] float32.
    """
    height, width = images.shape[1:3]
    block = -(-max(height, width) // largest_side_px)
    rows, columns = height // block, width // block
    top, left = (height - rows * block) // 2, (width - columns * block) // 2
    center = images[:, top : top + rows * block, left : left + columns * block].astype(np.float32)
    blocks = center.reshape(len(images), rows, block, columns, block, -1).mean(axis=(2, 4))  # [N, h, w, C]
    scale = np.asarray(channel_scale, dtype=np.float32)
    return (blocks / np.where(scale > 0, scale, 1)).reshape(len(images), -1)

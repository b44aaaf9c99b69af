"""Multi-channel images as color pictures: each channel in a color of its own."""

import numpy as np

# Colors that are far apart for most kinds of color vision: blue, yellow, magenta, green, orange, cyan. More channels
# start again.
CHANNEL_COLORS = ("#4d7dff", "#ffd23f", "#ff4fd8", "#3ddc84", "#ff8c42", "#46d9ff")


def channel_colors(count: int) -> list[str]:
    """Colors of `count` channels in a composite; a single channel is white."""
    if count == 1:
        return ["#ffffff"]
    return [CHANNEL_COLORS[c % len(CHANNEL_COLORS)] for c in range(count)]


def composite(images: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Color composite of all channels.

    Each channel is scaled from [low, high] to [0, 1], clipped and given its color; channels are joined by "screen",
    1 - prod_c (1 - color_c scaled_c), which unlike a sum does not burn out where many channels are bright. The same
    limits for all images keep differences of brightness visible. A channel with high <= low stays black.

    Args:
        images: [N, H, W, C].
        low, high: [C], in the units of the images.

    Returns:
        [N, H, W, 3] uint8.
    """
    span = np.where(high > low, high - low, np.inf).astype(np.float32)
    scaled = np.clip((images.astype(np.float32) - low.astype(np.float32)) / span, 0, 1)
    dark = np.ones((*images.shape[:3], 3), np.float32)
    for c, color in enumerate(channel_colors(images.shape[-1])):
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
        dark *= 1 - scaled[..., c, None] * rgb
    return np.round((1 - dark) * 255).astype(np.uint8)

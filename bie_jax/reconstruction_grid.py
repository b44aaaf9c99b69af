"""A picture of images and their reconstructions, channel by channel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw_reconstructions(
    image: np.ndarray,
    reconstruction: np.ndarray,
    channel_names: Sequence[str],
    pixel_size_um: float | None,
    title: str,
    path: Path,
) -> None:
    """Draw each image above its reconstruction, a column per channel, and save as PNG.

    Both are shown with one grey scale per channel (1st to 99.9th percentile of the images), so that brightness compares.

    Args:
        image: [N, H, W, C] float, normalised.
        reconstruction: the same shape.
        channel_names: C names.
        pixel_size_um: micrometres per pixel, for the axes; None: the axes count pixels.
        title: what was done to what.
        path: of the PNG; its folder is made.
    """
    n, height, width, channels = image.shape
    unit = "px" if pixel_size_um is None else "µm"
    extent = (0, width * (pixel_size_um or 1), height * (pixel_size_um or 1), 0)
    # A bare Figure: pyplot would keep global state and choose a window system.
    figure = Figure(figsize=(1.7 * channels + 0.8, 3.2 * n + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(2 * n, channels, squeeze=False, sharex=True, sharey=True)
    for c in range(channels):
        low, high = np.percentile(image[..., c], [1, 99.9])
        for i in range(n):
            for row, (name, pixels) in enumerate((("image", image), ("reconstruction", reconstruction))):
                axis = axes[2 * i + row, c]
                axis.imshow(pixels[i, ..., c], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), extent=extent)
                axis.tick_params(labelsize=6)
                if c == 0:
                    axis.set_ylabel(f"{name} {i}\ny ({unit})", fontsize=7)
        axes[0, c].set_title(channel_names[c], fontsize=8)
        axes[-1, c].set_xlabel(f"x ({unit})", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

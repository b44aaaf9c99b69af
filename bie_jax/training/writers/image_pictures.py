"""A picture of images and their reconstructions, channel by channel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bie_jax.files.foreign_text import MOST_OF_TITLE, in_figure, save_figure
from bie_jax.files.integrity import write_unverified

_GAP = 2  # pixels between tiles


def draw_reconstructions(
    image: np.ndarray,
    reconstruction: np.ndarray,
    channel_names: Sequence[str],
    pixel_size_um: float | None,
    title: str,
    path: Path,
) -> None:
    """Draw each image above its reconstruction, a column per channel, and save as PNG.

    Both are shown with one grey scale per channel (1st to 99.9th percentile of the images): brightness compares.

    Args:
        image: [N, H, W, C] float, normalized.
        reconstruction: the same shape.
        channel_names: C names.
        pixel_size_um: micrometers per pixel, for the axis; None: it counts pixels.
        title: what was done to what.
        path: of the PNG; its folder is made.
    """
    n, height, width, channels = image.shape
    low = np.percentile(image, 1, axis=(0, 1, 2))
    high = np.percentile(image, 99.9, axis=(0, 1, 2))
    pairs = np.stack([image, reconstruction], axis=1).reshape(2 * n, height, width, channels)
    shown = np.clip((pairs - low) / np.maximum(high - low, 1e-6), 0, 1)
    # One mosaic on one axis: 40 axes would take seconds to lay out.
    mosaic = np.ones((2 * n * (height + _GAP), channels * (width + _GAP)))
    for row in range(2 * n):
        for c in range(channels):
            top, left = row * (height + _GAP), c * (width + _GAP)
            mosaic[top : top + height, left : left + width] = shown[row, ..., c]

    figure = Figure(figsize=(1.5 * channels + 1.5, 3 * n * height / width + 0.9), layout="constrained")
    axis = figure.subplots()
    axis.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(in_figure(title, MOST_OF_TITLE), fontsize=10)
    places = [c * (width + _GAP) + width / 2 for c in range(channels)]
    axis.set_xticks(places, [in_figure(name) for name in channel_names], fontsize=8)
    names = [f"{name} {i + 1}" for i in range(n) for name in ("image", "reconstruction")]
    axis.set_yticks([row * (height + _GAP) + height / 2 for row in range(2 * n)], names, fontsize=8)
    unit = "px" if pixel_size_um is None else "µm"
    tile = f"{width * (pixel_size_um or 1):.3g} x {height * (pixel_size_um or 1):.3g} {unit}"
    axis.set_xlabel(f"channel; each tile {tile}, black and white at the images' 1 % and 99.9 %", fontsize=8)
    write_unverified(path, lambda partial: save_figure(figure, partial, dpi=110, format="png"), needed=mosaic.size)

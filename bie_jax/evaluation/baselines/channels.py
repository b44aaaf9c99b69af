"""Which channel of an image is which."""

from collections.abc import Sequence

import numpy as np


def dna_channel(channel_names: Sequence[str]) -> int:
    """Index of the channel that shows nuclei: the first one named after DNA or a DNA stain, else channel 0."""
    stains = ("dna", "dapi", "hoechst", "draq5", "nuclei", "nucleus")
    for index, name in enumerate(channel_names):
        if any(stain in name.lower() for stain in stains):
            return index
    return 0


def check_channels(images: np.ndarray, channel_names: Sequence[str]) -> None:
    """Raise ValueError unless images are [N, H, W, C] of C channels."""
    if images.ndim != 4 or images.shape[-1] != len(channel_names):
        raise ValueError(
            f"images must be [N, H, W, C] with C = {len(channel_names)} ({', '.join(channel_names)}), got "
            f"{images.shape}"
        )

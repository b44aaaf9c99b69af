"""What a validation looks like: reconstructions of images, or of outlines, as a PNG."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bie_jax.input.mixture import Mixture
from bie_jax.training.writers.image_pictures import draw_reconstructions
from bie_jax.training.writers.outline_pictures import draw_outlines


def draw_validation(seen: np.ndarray, reconstruction: np.ndarray, mixture: Mixture, workdir: Path, step: int) -> Path:
    """Draw what a network saw beside what it made of it.

    Args:
        seen: [N, H, W, C], images of the first set, or matrices, normalized.
        reconstruction: the same shape.
        mixture: the sets.
        workdir: of the run.
        step: that was validated.

    Returns:
        Where the picture lies.
    """
    path = workdir / "reconstructions" / f"step_{step:08d}.png"
    simulated = " (simulated)" if any(image_set.simulated for image_set in mixture.sets) else ""
    kind = mixture.sets[0].kind
    title = f"{mixture.name}{simulated}: validation {kind} at step {step}"
    DRAWINGS[kind](seen, reconstruction, mixture, title, path)
    return path


def _images(seen: np.ndarray, reconstruction: np.ndarray, mixture: Mixture, title: str, path: Path) -> None:
    first = mixture.sets[0]  # its images come first
    draw_reconstructions(seen, reconstruction, mixture.channel_names, first.pixel_size_um, title, path)


def _outlines(seen: np.ndarray, reconstruction: np.ndarray, mixture: Mixture, title: str, path: Path) -> None:
    del mixture  # a matrix has one channel and no scale
    draw_outlines(seen[..., 0], reconstruction[..., 0], title, path)


DRAWINGS: dict[str, Callable[..., None]] = {"images": _images, "shapes": _outlines}

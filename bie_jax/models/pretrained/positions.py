"""Learnt positions for another grid of patches, and fixed ones that must be those of the network."""

import numpy as np

from bie_jax.models.layers.positions import sincos_positions


def resize_positions(positions: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Learnt positions for another grid of patches, [h, w, D] -> [rows, columns, D].

    Bicubic with a = -0.75, half-pixel centers, borders repeated and no smoothing: what
    `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` does, and `interpolate_pos_encoding` with it.
    """
    rows, columns = (_cubic_weights(old, new) for old, new in zip(positions.shape[:2], grid, strict=True))
    return np.einsum("ri,cj,ijd->rcd", rows, columns, positions).astype(positions.dtype)


def refuse_other_positions(of_class_token: np.ndarray, of_patches: np.ndarray) -> None:
    """Positions [D] and [h, w, D] of a file, which must be those that a network computes."""
    computed = sincos_positions(of_patches.shape[:2], of_patches.shape[-1])
    # Rounded to bfloat16 a sine is off by less than this.
    if max(np.abs(of_class_token).max(), np.abs(of_patches - computed).max()) > 0.01:
        raise ValueError("model.vit.positions='sincos', and these weights need 'learnt': their positions are others")


def _cubic_weights(old: int, new: int) -> np.ndarray:
    """[new, old] float64, the share of each old position in each new one."""
    a = -0.75
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        distance = np.abs(place - (first + tap))
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        np.add.at(weights, (np.arange(new), np.clip(first + tap, 0, old - 1)), np.where(distance <= 1, near, far))
    return weights

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from bie_jax.shapes.contour import masks_to_contours

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="session")
def blobs() -> np.ndarray:
    """[40, 24, 31] float: smoothed noise, grey, with holes, several components and border contact."""
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 24, 31)), (0, 2, 2))
    return np.maximum(noise, 0) / np.abs(noise).max()


@pytest.fixture(scope="session")
def outlines(blobs) -> np.ndarray:
    """[40, 48, 2] of the blobs; none is symmetric."""
    return masks_to_contours(blobs, 48)


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    path = SHARED / "mnist" / "mnist.npz"
    if not path.exists():
        pytest.skip(f"no {path}; the generated blobs stand in for it")
    with np.load(path) as archive:
        return archive["x_test"][:200]


@pytest.fixture(scope="session")
def cells() -> list[np.ndarray]:
    path = SHARED / "osteosarcoma_cell_contours" / "cells.txt"
    if not path.exists():
        pytest.skip(f"no {path}; generated outlines stand in for it")
    blocks = path.read_text().replace("\r", "").strip().split("\n\n")
    return [np.asarray([line.split()[::-1] for line in block.splitlines()], np.float64) for block in blocks]

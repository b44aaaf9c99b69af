import numpy as np
import pytest

from bie_jax.evaluation.baselines.pixels import block_averaged_pixels


@pytest.mark.parametrize(("size", "block"), [((13, 9), 2), ((8, 8), 1), ((11, 20), 3)])
def test_block_averages_against_a_loop(size, block):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 65535, (2, *size, 2)).astype(np.uint16)
    scale = np.array([2.0, 0.0])
    got = block_averaged_pixels(images, scale, largest_side_px=8)
    rows, columns = size[0] // block, size[1] // block
    assert max(rows, columns) <= 8
    top, left = (size[0] - rows * block) // 2, (size[1] - columns * block) // 2
    expected = np.zeros((2, rows, columns, 2))
    for r in range(rows):
        for c in range(columns):
            y, x = top + r * block, left + c * block
            expected[:, r, c] = images[:, y : y + block, x : x + block].mean(axis=(1, 2)) / [2.0, 1.0]
    np.testing.assert_allclose(got, expected.reshape(2, -1), rtol=1e-6)

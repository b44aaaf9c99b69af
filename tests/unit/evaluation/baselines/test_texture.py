import numpy as np

from bie_jax.evaluation.baselines.texture import (
    DISTANCES_PX,
    GREY_LEVELS,
    _grey_levels,
    texture_features,
    texture_names,
)
from tests.unit.evaluation.baselines.conftest import NAMES


def loop_texture(grey, distance):
    """Haralick's definitions on a co-occurrence matrix counted pair by pair."""
    height, width = grey.shape
    total = np.zeros((GREY_LEVELS, GREY_LEVELS))
    for angle in (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4):
        dr, dc = round(np.sin(angle) * distance), round(np.cos(angle) * distance)
        counts = np.zeros_like(total)
        for r in range(height):
            for c in range(width):
                if 0 <= r + dr < height and 0 <= c + dc < width:
                    counts[grey[r, c], grey[r + dr, c + dc]] += 1
                    counts[grey[r + dr, c + dc], grey[r, c]] += 1
        total += counts / counts.sum() / 4
    i, j = np.mgrid[: len(total), : len(total)]
    mean = (i * total).sum()
    variance = ((i - mean) ** 2 * total).sum()
    return {
        "contrast": ((i - j) ** 2 * total).sum(),
        "homogeneity": (total / (1 + (i - j) ** 2)).sum(),
        "energy": np.sqrt((total**2).sum()),
        "correlation": ((i - mean) * (j - mean) * total).sum() / variance,
    }


def test_texture_against_counting_pairs(images):
    image = images[:1, :18, :16]
    got = dict(zip(texture_names(NAMES), texture_features(image, NAMES)[0]))
    for c, channel in enumerate(NAMES):
        grey = _grey_levels(image[0, ..., c])
        assert grey.min() == 0
        assert grey.max() == GREY_LEVELS - 1
        for distance in DISTANCES_PX:
            for quantity, value in loop_texture(grey, distance).items():
                np.testing.assert_allclose(got[f"texture_{channel}_{quantity}_{distance}px"], value, rtol=1e-6)


def test_texture_ignores_brightness_and_knows_constant_channels(images):
    plain = texture_features(images, NAMES)
    brighter = texture_features(images.astype(np.float64) * 3 + 100, NAMES)
    np.testing.assert_allclose(plain, brighter, rtol=1e-6)
    blank = dict(zip(texture_names(("a", "b")), texture_features(np.full((1, 9, 9, 2), 7), ("a", "b"))[0]))
    assert blank["texture_a_contrast_1px"] == 0
    assert (
        blank["texture_a_homogeneity_1px"] == blank["texture_a_energy_3px"] == blank["texture_a_correlation_6px"] == 1
    )
    assert blank["correlation_a_b"] == 0


def test_correlation_between_channels(images):
    got = texture_features(images, NAMES)
    names = texture_names(NAMES)
    assert got.shape[1] == len(names)
    for n in range(4):
        expected = np.corrcoef(images[n].reshape(-1, 3).T.astype(float))
        np.testing.assert_allclose(got[n, -3:], [expected[0, 1], expected[0, 2], expected[1, 2]])
    assert names[-3:] == [
        "correlation_membrane_DNA (Hoechst)",
        "correlation_membrane_RNA",
        "correlation_DNA (Hoechst)_RNA",
    ]

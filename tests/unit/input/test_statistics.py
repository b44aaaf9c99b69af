import numpy as np
import pytest

from bie_jax.input.statistics import PERCENTILES, Intensities


def _counted(images, dtype):
    found = Intensities.empty(images.shape[-1], dtype)
    for image in images:
        found.add(image)
    return found


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 12345])
def test_whole_numbers_are_exact(count):
    rng = np.random.default_rng(count)
    pixels = np.stack(
        [
            rng.integers(0, 65536, count),  # spread out, gaps between values
            rng.poisson(100, count),  # many ties
            np.full(count, 65000),  # constant and bright, where E[x^2] - E[x]^2 loses its digits
            np.zeros(count, int),
        ],
        axis=1,
    ).astype(np.uint16)
    found = _counted(pixels[None, :, None], "uint16").summary()
    assert found["count"] == count
    exact = pixels.astype(float)
    np.testing.assert_allclose(found["mean"], exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found["std"], exact.std(axis=0), rtol=1e-12)
    assert found["std"][2:] == [0.0, 0.0]
    assert found["min"] == pixels.min(axis=0).tolist()
    assert found["max"] == pixels.max(axis=0).tolist()
    for q in PERCENTILES:
        np.testing.assert_allclose(found["percentiles"][str(q)], np.percentile(exact, q, axis=0), rtol=1e-12)


FLOATS = [
    np.random.default_rng(0).normal(size=(4, 50, 40, 2)),
    np.random.default_rng(1).lognormal(sigma=8, size=(4, 50, 40, 2)),  # over 20 orders of magnitude
    -np.random.default_rng(2).uniform(1e-30, 1e30, size=(4, 50, 40, 2)),
    np.full((4, 5, 4, 2), 1e6) + np.random.default_rng(3).normal(size=(4, 5, 4, 2)),  # bright and flat
    np.zeros((4, 5, 4, 2)),
    np.full((4, 5, 4, 2), -0.0),
]


@pytest.mark.parametrize("images", FLOATS, ids=["normal", "lognormal", "negative", "flat", "zero", "minus zero"])
def test_floats_within_the_stated_error(images):
    images = images.astype(np.float32)
    found = _counted(images, "float32").summary()
    exact = images.reshape(-1, 2).astype(float)
    np.testing.assert_allclose(found["mean"], exact.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["std"], exact.std(axis=0), rtol=1e-9)
    assert found["min"] == exact.min(axis=0).tolist()
    assert found["max"] == exact.max(axis=0).tolist()
    for q in PERCENTILES:
        below = np.percentile(exact, q, axis=0, method="lower")
        above = np.percentile(exact, q, axis=0, method="higher")
        between = np.asarray(found["percentiles"][str(q)])
        assert (between >= below - np.abs(below) / 128 - 1e-37).all()
        assert (between <= above + np.abs(above) / 128 + 1e-37).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_merged_parts_are_the_whole(dtype):
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3)).astype(dtype)
    merged = Intensities.empty(3, dtype)
    for part in (images[:4], images[4:5], images[5:5], images[5:]):
        merged.merge(_counted(part, dtype))
    merged, whole = merged.summary(), _counted(images, dtype).summary()
    np.testing.assert_allclose(merged.pop("mean"), whole.pop("mean"), rtol=1e-12)
    np.testing.assert_allclose(merged.pop("std"), whole.pop("std"), rtol=1e-12)
    assert merged == whole


def test_both_zeros_are_one_value():
    """Else a channel of zeros would have a width above 0, and dividing by it would make it infinite."""
    zeros = np.zeros((4, 6, 1), np.float32)
    zeros[::2] = -0.0
    assert len({value for (value,) in _counted(zeros[None], "float32").summary()["percentiles"].values()}) == 1

import numpy as np
import pytest
import scipy.stats

from bie_jax.evaluation.baselines.intensity import PERCENTILES, intensity_features, intensity_names
from tests.unit.evaluation.baselines.conftest import NAMES


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8, np.float32])
def test_intensity_against_numpy_and_scipy(images, dtype):
    images = (images // 20).astype(dtype)
    got = intensity_features(images, NAMES)
    names = intensity_names(NAMES)
    assert got.shape == (4, 36) == (4, len(names))
    for n in range(4):
        for c, channel in enumerate(NAMES):
            pixels = images[n, ..., c].ravel().astype(float)
            expected = [pixels.mean(), pixels.std(), scipy.stats.skew(pixels)]
            expected += [np.percentile(pixels, q) for q in PERCENTILES]
            start = names.index(f"intensity_{channel}_mean")
            np.testing.assert_allclose(got[n, start : start + 12], expected, rtol=1e-9)
    assert names[15:24] == [f"intensity_DNA (Hoechst)_p{q}" for q in PERCENTILES]

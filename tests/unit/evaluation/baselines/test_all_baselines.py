import numpy as np
import pytest

from bie_jax.evaluation.baselines.intensity import intensity_features
from bie_jax.evaluation.baselines.pixels import block_averaged_pixels
from bie_jax.evaluation.baselines.regions import region_features
from bie_jax.evaluation.baselines.texture import texture_features
from tests.unit.evaluation.baselines.conftest import NAMES


def test_every_feature_of_blank_and_saturated_images_is_finite():
    images = np.zeros((4, 20, 20, 3), np.uint16)
    images[1] = 65535
    images[2, ..., 1] = 700
    images[3, 5, 5] = 65535
    for got in (
        intensity_features(images, NAMES),
        texture_features(images, NAMES),
        region_features(images, NAMES, 0.5),
        block_averaged_pixels(images, np.array([0.0, 1.0, 2.0]), 8),
    ):
        assert np.isfinite(got).all()


def test_channels_must_fit_the_images(images):
    for function in (intensity_features, texture_features):
        with pytest.raises(ValueError, match=r"C = 2 \(a, b\)"):
            function(images, ("a", "b"))

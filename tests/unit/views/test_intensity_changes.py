"""Gain, offset, gamma, focus and noise: what each leaves as it is, and how much it changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bie_jax.views import intensity_changes

BLUR = jax.jit(intensity_changes.blur, static_argnums=2)  # many small operations, compiled as one
RANDOM_BLUR = jax.jit(intensity_changes.random_blur, static_argnums=2)


def _normalized(b, h, w, c):
    return np.random.default_rng(0).normal(2, 3, (b, h, w, c)).astype(np.float32)


def test_an_offset_is_one_number_for_each_channel_of_each_image():
    image = jnp.asarray(_normalized(300, 2, 2, 12))
    added = np.asarray(intensity_changes.random_offset(jax.random.key(0), image, 0.5) - image)
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-5)
    assert -0.5 - 1e-5 <= added.min() < -0.49
    assert 0.49 < added.max() <= 0.5 + 1e-5
    assert len(np.unique(added[:, 0, 0].round(6))) > 3500


def test_gamma_keeps_darkest_and_brightest_and_their_order():
    image = _normalized(200, 6, 5, 3)
    image[..., 2] = 7  # constant
    seen = np.asarray(intensity_changes.random_gamma(jax.random.key(0), jnp.asarray(image), 0.7))
    for end in (np.min, np.max):
        np.testing.assert_allclose(end(seen, axis=(1, 2)), end(image, axis=(1, 2)), atol=1e-5)
    flat, before = (array[..., :2].reshape(200, 30, 2) for array in (seen, image))
    assert (np.diff(np.take_along_axis(flat, np.argsort(before, axis=1), axis=1), axis=1) >= 0).all()
    np.testing.assert_array_equal(seen[..., 2], 7)
    low, high = before.min(axis=1), before.max(axis=1)
    place = np.argsort(before, axis=1)[:, 15]  # away from both ends, where a power would be lost
    old, new = (np.take_along_axis(array, place[:, None], axis=1)[:, 0] for array in (before, flat))
    power = np.log((new - low) / (high - low)) / np.log((old - low) / (high - low))
    assert -0.7 - 1e-2 < np.log(power).min() < -0.65
    assert 0.65 < np.log(power).max() < 0.7 + 1e-2
    np.testing.assert_allclose(np.quantile(np.log(power), [0.25, 0.5, 0.75]), [-0.35, 0, 0.35], atol=0.1)
    one = seen[0, ..., 0], image[0, ..., 0], low[0, 0], high[0, 0]
    expected = one[2] + (one[3] - one[2]) * ((one[1] - one[2]) / (one[3] - one[2])) ** power[0, 0]
    np.testing.assert_allclose(one[0], expected, atol=1e-4)


@pytest.mark.parametrize("radius", [2, 6, 20])  # the last reaches across the image and back
def test_a_blur_is_scipys(radius):
    image, sd = _normalized(3, 9, 14, 2), np.array([0.4, 1.3, 2.0])
    seen = BLUR(image, sd, radius)
    for number in range(3):
        expected = gaussian_filter(image[number].astype(float), sd[number], axes=(0, 1), mode="reflect", radius=radius)
        np.testing.assert_allclose(seen[number], expected, atol=1e-5)


def test_a_blur_keeps_the_mean_and_is_one_for_all_channels():
    image = _normalized(100, 8, 8, 1).repeat(2, axis=-1)
    seen = np.asarray(RANDOM_BLUR(jax.random.key(0), image, 1.5))
    np.testing.assert_array_equal(seen[..., 0], seen[..., 1])
    np.testing.assert_allclose(seen.mean(axis=(1, 2)), image.mean(axis=(1, 2)), atol=1e-5)
    point = np.zeros((400, 21, 21, 1), np.float32)
    point[:, 10, 10] = 1
    spread = np.asarray(RANDOM_BLUR(jax.random.key(0), point, 1.5))[..., 0]
    assert np.abs(spread.sum(axis=(1, 2)) - 1).max() < 1e-5
    sd = np.sqrt(np.einsum("bij,i->b", spread, (np.arange(21.0) - 10) ** 2))
    assert sd.min() < 0.1
    assert 1.4 < sd.max() < 1.5
    np.testing.assert_allclose(np.quantile(sd[sd > 0.5], 0.5), 1.0, atol=0.08)


def test_a_blur_of_almost_nothing_is_nothing():
    image = _normalized(2, 5, 5, 2)
    np.testing.assert_allclose(BLUR(image, np.zeros(2), 3), image, atol=1e-6)


def test_noise_is_normal_of_a_deviation_for_each_image():
    image = jnp.asarray(_normalized(300, 16, 16, 2))
    added = np.asarray(intensity_changes.random_noise(jax.random.key(0), image, 0.4) - image)
    sd = added.std(axis=(1, 2, 3))
    assert sd.min() < 0.02
    assert 0.37 < sd.max() < 0.43
    np.testing.assert_allclose(np.quantile(sd, [0.25, 0.5, 0.75]), [0.1, 0.2, 0.3], atol=0.04)
    scaled = added[sd > 0.1] / sd[sd > 0.1, None, None, None]
    assert abs(scaled.mean()) < 0.01
    np.testing.assert_allclose((np.abs(scaled) < 1).mean(), 0.683, atol=0.01)
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.02

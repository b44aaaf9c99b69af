"""Windows of any scale, form and angle, against a float64 interpolation by scipy, and what is uniform about them."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from bie_jax.views import crops

pytestmark = pytest.mark.slow


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _window(key, image, size, area=(0.0, 0.0), aspect=1.0, rotate=False):
    """Many small operations, compiled as one."""
    return crops.random_window(key, image, size, _augment(area, aspect, rotate))


RESAMPLE = jax.jit(crops.resample, static_argnums=(4, 5))


def _augment(area=(0.0, 0.0), aspect=1.0, rotate=False):
    return types.SimpleNamespace(area=area, aspect=aspect, rotate=rotate)


def _noise(b, h, w, c, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 60000, (b, h, w, c)).astype(dtype)


def _oracle(image, center, window, angle, size, samples):
    """One image [H, W, C] in double precision; scipy's "reflect" is d c b a | a b c d | d c b a."""
    v, u = ((np.arange(n * s) + 0.5) / (n * s) - 0.5 for n, s in zip(size, samples, strict=True))
    down, right = np.meshgrid(window[0] * v, window[1] * u, indexing="ij")
    y = center[0] + np.cos(angle) * down - np.sin(angle) * right
    x = center[1] + np.sin(angle) * down + np.cos(angle) * right
    channels = np.moveaxis(image.astype(float), -1, 0)
    fine = np.stack([map_coordinates(channel, [y, x], order=1, mode="reflect") for channel in channels], axis=-1)
    return fine.reshape(size[0], samples[0], size[1], samples[1], -1).mean(axis=(1, 3))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("samples", [(1, 1), (2, 3)])
def test_a_window_is_what_double_precision_interpolates(samples, dtype):
    image = _noise(2, 9, 7, 2, dtype)
    center, window = np.array([[3.2, 2.9], [0.5, 5.0]]), np.array([[5.0, 4.0], [14.0, 9.0]])  # the second leaves it
    angle = np.array([0.7, 4.0])
    seen = RESAMPLE(image, center, window, angle, (4, 5), samples)
    expected = [_oracle(*of, (4, 5), samples) for of in zip(image, center, window, angle, strict=True)]
    assert seen.dtype == jnp.float32
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1)  # of 60000


def test_twelve_channels_are_each_seen_as_if_alone():
    image = jnp.asarray(_noise(2, 12, 12, 12))
    together = _window(jax.random.key(3), image, (8, 8), (0.2, 1.0), 1.4, True)
    for c in (0, 5, 11):
        np.testing.assert_allclose(
            together[..., c : c + 1],
            _window(jax.random.key(3), image[..., c : c + 1], (8, 8), (0.2, 1.0), 1.4, True),
            rtol=1e-6,
        )


def _geometry(size, image_size, count=600, **changes):
    """Windows of a ramp that says where each pixel is: center [B, 2], and [B, 2, 2] steps along rows and columns."""
    h, w = image_size
    ramp = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), axis=-1).astype(np.float32)
    many = jnp.asarray(np.repeat(ramp[None], count, axis=0))
    seen = np.asarray(_window(jax.random.key(0), many, size, **changes), np.float64)
    i, j = (n // 2 for n in size)
    # About the middle, where nothing is mirrored.
    down, right = seen[:, i + 1, j] - seen[:, i - 1, j], seen[:, i, j + 1] - seen[:, i, j - 1]
    middle = (seen[:, (size[0] - 1) // 2, (size[1] - 1) // 2] + seen[:, size[0] // 2, size[1] // 2]) / 2
    return middle, np.stack([down, right], axis=1) / 2


def test_the_area_is_drawn_uniformly_and_both_axes_have_one_scale():
    _, steps = _geometry((8, 8), (40, 40), area=(0.1, 0.5))
    np.testing.assert_allclose(steps[:, 0, 1], 0, atol=1e-4)
    np.testing.assert_allclose(steps[:, 0, 0], steps[:, 1, 1], rtol=1e-4)
    share = (8 * steps[:, 0, 0]) * (8 * steps[:, 1, 1]) / 1600
    assert 0.1 - 1e-4 < share.min() < 0.11
    assert 0.49 < share.max() < 0.5 + 1e-4
    np.testing.assert_allclose(np.quantile(share, [0.25, 0.5, 0.75]), [0.2, 0.3, 0.4], atol=0.03)


def test_the_aspect_is_log_uniform_as_far_as_it_asks_and_keeps_the_area():
    _, steps = _geometry((8, 8), (40, 40), area=(0.2, 0.2), aspect=2.0)
    height, width = 8 * steps[:, 0, 0], 8 * steps[:, 1, 1]
    np.testing.assert_allclose(height * width, 0.2 * 1600, rtol=1e-3)
    ratio = np.log2(height / width)
    assert -1 - 1e-3 < ratio.min() < -0.95
    assert 0.95 < ratio.max() < 1 + 1e-3
    np.testing.assert_allclose(np.quantile(ratio, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.1)


@pytest.mark.parametrize("rotate", [False, True])
def test_a_window_of_all_the_area_is_the_image_whatever_its_aspect_might_be(rotate):
    middle, steps = _geometry((10, 10), (30, 30), 50, area=(1.0, 1.0), aspect=3.0, rotate=rotate)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=2), 3, rtol=1e-3)
    np.testing.assert_allclose(middle, 14.5, atol=1e-3)
    image = jnp.asarray(_noise(1, 30, 30, 1))
    if not rotate:
        whole = _window(jax.random.key(0), image, (10, 10), (1.0, 1.0), 3.0)
        np.testing.assert_allclose(whole.mean(), image.astype(float).mean(), rtol=0.01)


def test_an_angle_is_any_and_the_scale_of_the_image_stays():
    _, steps = _geometry((8, 8), (40, 40), rotate=True)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=2), 1, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.det(steps), 1, rtol=1e-3)  # turned, not mirrored
    angle = np.arctan2(steps[:, 0, 1], steps[:, 0, 0])
    assert np.histogram(angle, bins=8, range=(-np.pi, np.pi))[0].min() > 45  # of 75 expected, 8.1 of deviation


@pytest.mark.parametrize("rotate", [False, True])
def test_places_are_uniform_and_windows_stay_in_the_image(rotate):
    middle, steps = _geometry((8, 8), (40, 40), area=(0.04, 0.04), rotate=rotate)
    reach = 4 * np.abs(steps).sum(axis=1)  # of the turned window, along both axes of the image
    low, high = middle - reach, middle + reach
    assert low.min() > -0.5 - 1e-3
    assert high.max() < 39.5 + 1e-3
    place = (low + 0.5) / (40 - 2 * reach)
    for axis in (0, 1):
        assert np.histogram(place[:, axis], bins=6, range=(0, 1))[0].min() > 65  # of 100 expected
    assert abs(np.corrcoef(place.T)[0, 1]) < 0.15


def test_every_pixel_of_an_image_is_seen_as_often_as_a_plain_window_sees_it():
    """Windows of 4 of 8 pixels: pixel k lies in 0.5, 1.5, ... of the places, symmetric, and none is left out."""
    each = jnp.asarray(np.repeat(np.eye(8, dtype=np.float32)[:, :, None, None], 100, axis=0))  # [800, 8, 1, 1]
    wide = jnp.broadcast_to(each, (800, 8, 8, 1))
    seen = np.asarray(_window(jax.random.key(1), wide, (4, 4), (0.25, 0.25)))
    often = seen.mean(axis=(2, 3)).sum(axis=1).reshape(8, 100).mean(axis=1)
    np.testing.assert_allclose(often, [1 / 8, 3 / 8, 5 / 8, 7 / 8, 7 / 8, 5 / 8, 3 / 8, 1 / 8], atol=0.15)


def test_a_constant_image_stays_what_it_is():
    image = jnp.full((20, 11, 13, 2), 60000, jnp.uint16)
    seen = _window(jax.random.key(0), image, (6, 4), (0.01, 1.0), 2.0, True)
    np.testing.assert_allclose(seen, 60000, rtol=1e-6)


def test_zoomed_out_stripes_become_their_mean_and_no_coarser_stripes():
    """Stripes of 3 pixels, seen at 3.2 pixels a pixel: a single sample a pixel would show stripes 16 pixels wide."""
    stripes = np.where(np.arange(64) % 3 == 0, 3.0, 0.0).astype(np.float32)
    image = jnp.asarray(np.broadcast_to(stripes[None, :, None, None], (4, 64, 64, 1)))
    assert crops.samples_per_pixel((64, 64), (20, 20), _augment(area=(1.0, 1.0))) == (4, 4)
    seen = np.asarray(_window(jax.random.key(0), image, (20, 20), (1.0, 1.0)))
    np.testing.assert_allclose(seen.mean(), stripes.mean(), rtol=0.02)
    assert seen.std() < 0.1 * stripes.std()
    center, window = jnp.full((4, 2), 31.5), jnp.full((4, 2), 64.0)
    single = np.asarray(RESAMPLE(image, center, window, jnp.zeros(4), (20, 20), (1, 1)))
    assert single.std() > 0.5 * stripes.std()


@pytest.mark.parametrize(
    ("area", "aspect", "expected"),
    [
        ((0.0, 0.0), 1.0, (1, 1)),  # the image's own scale
        ((0.1, 0.25), 1.0, (1, 1)),  # 16 of 32 pixels seen through 16
        ((0.1, 0.26), 1.0, (2, 2)),
        ((0.1, 0.25), 1.5, (2, 2)),  # up to 19.6 pixels long
        ((0.1, 1.0), 4.0, (2, 2)),  # never longer than the image
    ],
)
def test_samples_are_no_further_apart_than_pixels(area, aspect, expected):
    assert crops.samples_per_pixel((32, 32), (16, 16), _augment(area=area, aspect=aspect)) == expected


def test_a_window_of_another_form_than_its_image_keeps_one_scale():
    """Half as high as wide in a square image, and most of its area: mirrored, not stretched, since aspect is 1."""
    _, steps = _geometry((10, 20), (40, 40), 20, area=(0.9, 0.9))
    np.testing.assert_allclose(np.linalg.norm(steps, axis=2), np.sqrt(0.9 * 1600 / 200), rtol=1e-3)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax import augment
from configs import vqvae_idr0093

STATISTICS = {
    "overall": {
        "mean": [100.0, 7.0],
        "std": [20.0, 0.0],
        "percentiles": {"0.1": [50.0, 7.0], "99.9": [250.0, 7.0]},
    },
    "plates": {
        "a": {
            "mean": [80.0, 7.0],
            "std": [10.0, 0.0],
            "percentiles": {"0.1": [60.0, 7.0], "99.9": [100.0, 7.0]},
        }
    },
}


def _images(b=6, h=12, w=12, c=2, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 60000, (b, h, w, c)).astype(dtype)


@pytest.mark.parametrize(
    ("scale", "scope", "low", "width"),
    [
        ("zscore", "set", 100, 20),
        ("percentile", "set", 50, 200),
        ("zscore", "plate", 80, 10),
        ("percentile", "plate", 60, 40),
    ],
)
def test_normalisation_is_the_stated_one_and_a_constant_channel_is_zero(scale, scope, low, width):
    table = augment.intensity_table(STATISTICS, ["a"], scale, scope)
    image = _images()
    out = np.asarray(augment.normalize(jnp.asarray(image), table, jnp.zeros(6, jnp.int32)))
    np.testing.assert_allclose(out[..., 0], (image[..., 0].astype(float) - low) / width, rtol=1e-5)
    np.testing.assert_array_equal(out[..., 1], 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_ramp_keeps_every_step(dtype):
    """The predecessor turned 300 into 44."""
    ramp = np.arange(256 if dtype == np.uint8 else 65536).astype(dtype).reshape(1, -1, 1, 1)
    table = augment.IntensityTable(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    out = augment.normalize(jnp.asarray(ramp), table, jnp.zeros(1, jnp.int32))
    np.testing.assert_array_equal(np.asarray(out).ravel(), np.arange(ramp.size))


def test_an_unknown_plate_is_refused():
    with pytest.raises(ValueError, match="plate 'b' has no intensity statistics"):
        augment.intensity_table(STATISTICS, ["b"], "zscore", "plate")


def test_center_crop():
    x = np.arange(7 * 6).reshape(1, 7, 6, 1)
    np.testing.assert_array_equal(augment.center_crop(jnp.asarray(x), (3, 4)), x[:, 2:5, 1:5])


def test_random_crops_are_windows_and_reach_every_corner():
    image = _images(1, 6, 5, 1)
    windows = {image[0, i : i + 4, j : j + 4].tobytes() for i in range(3) for j in range(2)}
    many = jnp.asarray(np.repeat(image, 200, axis=0))
    crops = np.asarray(augment.random_crop(jax.random.key(0), many, 4))
    assert {crop.tobytes() for crop in crops} == windows


def test_flips_and_turns_are_the_eight_symmetries_and_nothing_else():
    image = _images(1, 5, 5, 2)[0].astype(np.float32)
    symmetries = {np.rot90(m, k).tobytes() for m in (image, image[::-1]) for k in range(4)}
    many = jnp.asarray(np.repeat(image[None], 400, axis=0))
    first, second = jax.random.split(jax.random.key(1))
    out = np.asarray(augment.random_rotate90(first, augment.random_flip(second, many)))
    assert {x.tobytes() for x in out} == symmetries
    turned = np.asarray(augment.random_rotate90(first, many))
    counts = [sum(x.tobytes() == np.rot90(image, k).tobytes() for x in turned) for k in range(4)]
    assert sum(counts) == 400
    assert min(counts) > 60


def test_brightness_scales_each_channel_of_each_image():
    image = jnp.ones((500, 2, 2, 3))
    factors = np.asarray(augment.random_brightness(jax.random.key(0), image, 0.2))
    np.testing.assert_array_equal(factors, np.broadcast_to(factors[:, :1, :1], factors.shape))
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2
    assert len(np.unique(factors)) == 1500


def test_train_view_is_a_function_of_its_key_and_eval_view_of_nothing_random():
    config = vqvae_idr0093.get_config("tiny").data
    config.crop_size = 8
    table = augment.intensity_table(STATISTICS, ["a"], "zscore", "set")
    image, plate = jnp.asarray(_images()), jnp.zeros(6, jnp.int32)
    views = [augment.train_view(jax.random.key(k), image, plate, table, config) for k in (0, 0, 1)]
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(np.asarray(views[0] - views[2])).max() > 0
    config.augment.flip = config.augment.rotate90 = False
    config.augment.brightness = 0.0
    config.crop_size = 12
    unchanged = augment.train_view(jax.random.key(0), image, plate, table, config)
    np.testing.assert_array_equal(unchanged, augment.eval_view(image, plate, table, (12, 12)))

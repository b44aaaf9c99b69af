import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.views import images as augment
from bie_jax.views import intensities
from configs import base

pytestmark = pytest.mark.slow

DESCRIBED = {
    "name": "set",
    "channel_names": ["x", "flat"],
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
OTHER = {
    "name": "other",
    "channel_names": ["y", "x"],
    "overall": {"mean": [1.0, 2.0], "std": [4.0, 5.0]},
    "plates": {},
}


def _config(scale, scope):
    config = base.get_config("tiny", "base").data
    config.normalization, config.normalization_scope = scale, scope
    return config


def _seen(image, scale, scope, plate=1):
    """The whole image as the network sees it."""
    table = intensities.intensity_table([DESCRIBED], ["x", "flat"], scale, scope)
    rows = jnp.full(len(image), plate, jnp.int32)
    return np.asarray(augment.eval_view(jnp.asarray(image), rows, table, image.shape[1:3], _config(scale, scope)))


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
def test_normalization_is_the_stated_one_and_a_constant_channel_is_zero(scale, scope, low, width):
    image = _images()
    out = _seen(image, scale, scope)
    np.testing.assert_allclose(out[..., 0], (image[..., 0].astype(float) - low) / width, rtol=1e-5)
    np.testing.assert_array_equal(out[..., 1], 0)


def test_clipping_cuts_what_plain_percentiles_keep():
    image = np.asarray([0, 50, 150, 250, 65535], np.uint16).reshape(1, 5, 1, 1) * np.ones(2, np.uint16)
    plain, clipped = (_seen(image, scale, "set")[0, :, 0, 0] for scale in ("percentile", "percentile_clip"))
    np.testing.assert_allclose(plain, [-0.25, 0, 0.5, 1, 327.425], rtol=1e-5)
    np.testing.assert_allclose(clipped, [0, 0, 0.5, 1, 1], rtol=1e-5)


@pytest.mark.parametrize("scale", ["zscore", "percentile", "percentile_clip"])
def test_each_image_by_its_own_numbers(scale):
    image = _images()
    image[..., 1] = 7  # constant
    image[0, ..., 0] = 60000 + image[0, ..., 0] % 3  # bright and nearly flat
    out = _seen(image, scale, "image")
    for seen, counts in zip(out[..., 0], image[..., 0].astype(float), strict=True):
        if scale == "zscore":
            expected = (counts - counts.mean()) / counts.std()
        else:
            low, high = np.percentile(counts, [0.1, 99.9])
            expected = (counts - low) / (high - low)
        if scale == "percentile_clip":
            expected = expected.clip(0, 1)
        np.testing.assert_allclose(seen, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(out[..., 1], 0)


def test_an_image_is_scaled_by_all_of_it_not_by_the_window_that_is_seen():
    config = _config("zscore", "image")
    table = intensities.intensity_table([DESCRIBED], ["x", "flat"], "zscore", "image")
    image, rows = jnp.asarray(_images()), jnp.ones(6, jnp.int32)
    whole = augment.eval_view(image, rows, table, (12, 12), config)
    middle = augment.eval_view(image, rows, table, (8, 8), config)
    np.testing.assert_array_equal(middle, whole[:, 2:10, 2:10])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_ramp_keeps_every_step(dtype):
    """The predecessor turned 300 into 44."""
    ramp = np.arange(256 if dtype == np.uint8 else 65536).astype(dtype).reshape(1, -1, 1, 1)
    out = intensities.normalize(jnp.asarray(ramp), jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)), clip=False)
    np.testing.assert_array_equal(np.asarray(out).ravel(), np.arange(ramp.size))


@pytest.mark.parametrize("scope", ["set", "image"])
def test_a_channel_that_a_set_lacks_is_zero_whatever_it_holds(scope):
    table = intensities.intensity_table([DESCRIBED, OTHER], ["x", "flat", "y"], "zscore", scope)
    image = jnp.asarray(_images(c=3))
    seen = augment.eval_view(image, jnp.full(6, 2, jnp.int32), table, (12, 12), _config("zscore", scope))
    np.testing.assert_array_equal(seen[..., 1], 0)
    assert (np.asarray(seen)[..., [0, 2]].std(axis=(1, 2)) > 0).all()


def test_the_table_of_several_sets():
    """Whole sets and their plates, in order; each set's numbers under the joined names, nothing under the others."""
    sets = [DESCRIBED, OTHER]
    assert intensities.table_rows(sets) == {("set", ""): 0, ("set", "a"): 1, ("other", ""): 2}
    unordered = {"name": "set", "plates": {"b": {}, "a": {}}}
    assert list(intensities.table_rows([unordered])) == [("set", ""), ("set", "a"), ("set", "b")]
    table = intensities.intensity_table(sets, ["x", "flat", "y"], "zscore", "plate")
    np.testing.assert_array_equal(table.present, [[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    np.testing.assert_allclose(table.offset, [[100, 7, 0], [80, 7, 0], [2, 0, 1]])
    np.testing.assert_allclose(table.gain, [[1 / 20, 0, 0], [1 / 10, 0, 0], [1 / 5, 0, 1 / 4]])


def test_center_crop():
    x = np.arange(7 * 6).reshape(1, 7, 6, 1)
    np.testing.assert_array_equal(augment.center_crop(jnp.asarray(x), (3, 4)), x[:, 2:5, 1:5])


def test_random_crops_are_windows_and_reach_every_corner():
    image = _images(1, 6, 5, 1)
    windows = {image[0, i : i + 4, j : j + 3].tobytes() for i in range(3) for j in range(3)}
    many = jnp.asarray(np.repeat(image, 200, axis=0))
    crops = np.asarray(augment.random_crop(jax.random.key(0), many, (4, 3)))
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
    config = _config("zscore", "set")
    config.crop_size = (8, 8)
    table = intensities.intensity_table([DESCRIBED], ["x", "flat"], "zscore", "set")
    image, plate = jnp.asarray(_images()), jnp.zeros(6, jnp.int32)
    views = [augment.train_view(jax.random.key(k), image, plate, table, config) for k in (0, 0, 1)]
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(np.asarray(views[0] - views[2])).max() > 0
    config.augment.flip = config.augment.rotate90 = False
    config.augment.brightness = 0.0
    config.crop_size = (12, 12)
    unchanged = augment.train_view(jax.random.key(0), image, plate, table, config)
    np.testing.assert_array_equal(unchanged, augment.eval_view(image, plate, table, (12, 12), config))


def _only(config, **changes):
    """The configuration with these augmentations and no others."""
    config.augment.update({"flip": False, "rotate90": False, "brightness": 0.0} | changes)
    return config


@pytest.mark.parametrize("scale", ["zscore", "percentile_clip"])
@pytest.mark.parametrize("scope", ["set", "image"])
def test_a_training_view_is_a_window_of_what_the_whole_image_looks_like(scale, scope):
    config = _only(_config(scale, scope))
    config.crop_size = (8, 5)
    table = intensities.intensity_table([DESCRIBED], ["x", "flat"], scale, scope)
    image, plate = jnp.asarray(_images()), jnp.zeros(6, jnp.int32)
    whole = np.asarray(augment.eval_view(image, plate, table, (12, 12), config))
    for seen, there in zip(augment.train_view(jax.random.key(0), image, plate, table, config), whole, strict=True):
        windows = [there[i : i + 8, j : j + 5] for i in range(5) for j in range(8)]
        assert any(np.array_equal(seen, window) for window in windows)


def test_a_training_view_has_the_brightness_that_is_asked_for():
    config = _only(_config("zscore", "set"), brightness=0.3)
    config.crop_size = (12, 12)
    table = intensities.intensity_table([DESCRIBED], ["x", "flat"], "zscore", "set")
    image, plate = jnp.asarray(_images()), jnp.zeros(6, jnp.int32)
    seen = augment.train_view(jax.random.key(0), image, plate, table, config)[..., 0]
    factors = np.asarray(seen / augment.eval_view(image, plate, table, (12, 12), config)[..., 0])
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1], factors.shape), rtol=1e-5)
    assert 0.7 <= factors.min() < factors.max() <= 1.3


def test_a_set_without_plates_is_the_whole_set():
    """Plate "" is the row of the whole set, and no second one."""
    nameless = DESCRIBED | {"plates": {"": DESCRIBED["plates"]["a"], "b": DESCRIBED["plates"]["a"]}}
    assert intensities.table_rows([nameless]) == {("set", ""): 0, ("set", "b"): 1}
    table = intensities.intensity_table([nameless], ["x", "flat"], "zscore", "plate")
    np.testing.assert_array_equal(table.offset, [[100, 7], [80, 7]])


OFF = {
    "area": (0.0, 0.0),
    "aspect": 1.0,
    "rotate": False,
    "offset": 0.0,
    "gamma": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "channel_dropout": 0.0,
}
# A value that changes every view, and which channels of a view it changes: all, or those that hold something.
ON = {
    "area": (0.3, 0.6),
    "rotate": True,
    "offset": 0.5,
    "gamma": 0.5,
    "blur": 2.0,
    "noise": 0.5,
    "channel_dropout": 0.5,
}


def _as_it_was(key, image, plate, table, config):
    """The view with window, flip, rotate90 and brightness alone, written out."""
    b, h, w, c = image.shape
    size = config.crop_size
    crop_key, flip_key, rotate_key, brightness_key = jax.random.split(key, 4)
    top_key, left_key = jax.random.split(crop_key)
    top = jax.random.randint(top_key, (b,), 0, h - size[0] + 1)
    left = jax.random.randint(left_key, (b,), 0, w - size[1] + 1)
    image = jnp.stack([image[n, top[n] : top[n] + size[0], left[n] : left[n] + size[1]] for n in range(b)])
    offset, gain = table.offset[plate][:, None, None, :], table.gain[plate][:, None, None, :]
    image = (image.astype(jnp.float32) - offset) * gain
    for axis, axis_key in zip((1, 2), jax.random.split(flip_key), strict=True):
        image = jnp.where(jax.random.bernoulli(axis_key, 0.5, (b, 1, 1, 1)), jnp.flip(image, axis), image)
    turns = jax.random.randint(rotate_key, (b, 1, 1, 1), 0, 4)
    image = jnp.stack([jnp.rot90(image[n], int(turns[n, 0, 0, 0])) for n in range(b)])
    factor = jax.random.uniform(brightness_key, (b, 1, 1, c), minval=0.9, maxval=1.1)
    return image * factor


def _compiled(table, config):
    """(key, image, plate) -> the view; many small operations, compiled as one."""
    return jax.jit(lambda key, image, plate: augment.train_view(key, image, plate, table, config))


def _many_channels(c):
    numbers = np.arange(c) + 1.0
    described = {
        "name": "set",
        "channel_names": [f"c{n}" for n in range(c)],
        "overall": {"mean": list(100 * numbers), "std": list(20 * numbers)},
        "plates": {},
    }
    return intensities.intensity_table([described], described["channel_names"], "zscore", "set")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_what_is_off_leaves_the_bits_that_views_had_without_it(dtype):
    config = _config("zscore", "set")
    config.crop_size = (8, 8)
    assert {key: config.augment[key] for key in OFF} == OFF
    assert (config.augment.flip, config.augment.rotate90, config.augment.brightness) == (True, True, 0.1)
    image, plate, table = jnp.asarray(_images(c=12, dtype=dtype)), jnp.zeros(6, jnp.int32), _many_channels(12)
    for number in range(3):
        key = jax.random.key(number)
        expected = np.asarray(_as_it_was(key, image, plate, table, config))
        seen = np.asarray(augment.train_view(key, image, plate, table, config))
        np.testing.assert_array_equal(seen.view(np.uint32), expected.view(np.uint32))


def test_what_is_off_is_not_computed():
    """Every change that is on begins with a `fold_in`, and a view of none has none."""
    config = _config("zscore", "set")
    config.crop_size = (8, 8)
    table, image, plate = _many_channels(2), jnp.asarray(_images()), jnp.zeros(6, jnp.int32)

    def operations():
        return str(jax.make_jaxpr(lambda key: augment.train_view(key, image, plate, table, config))(jax.random.key(0)))

    assert "random_fold_in" not in operations()
    for key, value in ON.items():
        _only(config, **OFF | {key: value})
        assert "random_fold_in" in operations(), key


@pytest.mark.parametrize("key", ON)
def test_each_change_is_of_its_key_and_of_the_place_in_the_batch_alone(key):
    config = _only(_config("zscore", "set"), **{key: ON[key]})
    config.crop_size = (8, 8)
    table, image, plate = _many_channels(3), jnp.asarray(_images(8, c=3)), jnp.zeros(8, jnp.int32)
    view = _compiled(table, config)
    first, again, other = (np.asarray(view(jax.random.key(number), image, plate)) for number in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).max(axis=(1, 2, 3)) > 0).sum() >= 6  # two channels may be left out twice
    half = np.asarray(view(jax.random.key(0), image[:4], plate[:4]))
    np.testing.assert_allclose(half, first[:4], rtol=1e-6, atol=1e-4)
    same = jnp.broadcast_to(image[:1], image.shape)
    alike = np.asarray(view(jax.random.key(0), same, plate))
    assert np.abs(alike[0] - alike[1]).max() > 0


def test_a_change_draws_the_same_numbers_whatever_else_is_on():
    """An offset apart, blurred or not."""
    table, image, plate = _many_channels(3), jnp.asarray(_images(c=3)), jnp.zeros(6, jnp.int32)
    views = {}
    for offset in (0.0, 0.5):
        for noise in (0.0, 0.2):
            config = _only(_config("zscore", "set"), offset=offset, noise=noise)
            config.crop_size = (12, 12)
            views[offset, noise] = np.asarray(_compiled(table, config)(jax.random.key(0), image, plate))
    np.testing.assert_allclose(views[0.5, 0.2] - views[0.0, 0.2], views[0.5, 0.0] - views[0.0, 0.0], atol=2e-3)
    assert np.abs(views[0.5, 0.0] - views[0.0, 0.0]).max() > 0.1


def test_keys_of_changes_are_none_that_are_taken():
    """`split(key, 4)` folds in 0 to 3, and `training.step` 1, 2, ... for further views."""
    key = jax.random.key(5)
    taken = [*jax.random.split(key, 4), *(jax.random.fold_in(key, number) for number in range(1, 100))]
    numbers = (augment._WINDOW, augment._OFFSET, augment._GAMMA, augment._BLUR, augment._NOISE, augment._DROPOUT)
    ours = [jax.random.fold_in(key, number) for number in numbers]
    assert len({*numbers}) == 6
    both = {tuple(np.asarray(jax.random.key_data(k))) for k in taken} & {
        tuple(np.asarray(jax.random.key_data(k))) for k in ours
    }
    assert not both


@pytest.mark.parametrize("scope", ["set", "image"])
def test_a_channel_of_nothing_stays_zero_under_every_change(scope):
    """Missing from the set, or constant: an offset or noise in it would be a channel that no evaluation sees."""
    config = _only(_config("zscore", scope), **ON | {"aspect": 1.5, "channel_dropout": 0.9})
    config.crop_size = (8, 8)
    table = intensities.intensity_table([DESCRIBED, OTHER], ["x", "flat", "y"], "zscore", scope)
    image = _images(c=3)
    image[..., 1] = 7
    seen = np.asarray(_compiled(table, config)(jax.random.key(0), image, jnp.zeros(6, jnp.int32)))
    np.testing.assert_array_equal(seen[..., 1:], 0)  # flat in the set, and the other set's
    assert (seen[..., 0].std(axis=(1, 2)) > 0).all()  # the one channel there is, is never left out


@pytest.mark.parametrize("scale", ["zscore", "percentile_clip"])
def test_a_resampled_view_of_flat_counts_is_their_normalized_value(scale):
    config = _only(_config(scale, "set"), area=(0.2, 0.9), aspect=1.3, rotate=True)
    config.crop_size = (6, 6)
    table = intensities.intensity_table([DESCRIBED], ["x", "flat"], scale, "set")
    image, plate = jnp.full((6, 12, 12, 2), 150, jnp.uint16), jnp.zeros(6, jnp.int32)
    seen = np.asarray(_compiled(table, config)(jax.random.key(0), image, plate))
    np.testing.assert_allclose(seen[..., 0], 2.5 if scale == "zscore" else 0.5, rtol=1e-5)

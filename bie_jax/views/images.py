"""From camera counts to what a model sees, on the device, inside the compiled step.

Two views and no flag between them: `train_view` is random, `eval_view` takes no key and so cannot be. All of it is
made for 16-bit images of any number of channels: nothing is rounded, nothing clipped to 0..255, and no channel takes
from another one. README.md beside this file shows each change.
"""

import jax

from bie_jax.config.schema import AugmentConfig, DataConfig
from bie_jax.views.channel_dropout import random_channel_dropout
from bie_jax.views.crops import center_crop, is_resampled, random_crop, random_window
from bie_jax.views.intensities import IntensityTable, normalize, scaling
from bie_jax.views.intensity_changes import random_blur, random_brightness, random_gamma, random_noise, random_offset
from bie_jax.views.orientation import random_flip, random_rotate90

# What each draw folds into the view's key. Small numbers are taken: `split(key, 4)` is the same as folding in 0 to 3,
# and a step's further views have the keys of 1, 2, ...
_WINDOW, _OFFSET, _GAMMA, _BLUR, _NOISE, _DROPOUT = range(2**16, 2**16 + 6)


def train_view(
    key: jax.Array, image: jax.Array, plate: jax.Array, table: IntensityTable, config: DataConfig
) -> jax.Array:
    """The random view that a training step sees.

    In the order of a microscope: what lies in view, focus, staining and exposure, the camera, and which of its
    channels are looked at. What the configuration leaves off costs nothing, and what is on draws the same numbers
    whatever else is on.

    Args:
        key: all randomness of this batch; image b's share depends on its place in the batch only, not on how many
            images follow (which `jax_threefry_partitionable`, jax's default, sees to).
        image: [B, H, W, C] counts.
        plate: [B] int32 rows of the table.
        table: intensities.
        config: the checked `data` group.

    Returns:
        [B, *crop_size, C] float32. Channels that are constant, or that an image's set lacks, are 0.
    """
    crop_key, flip_key, rotate_key, brightness_key = jax.random.split(key, 4)
    augment = config.augment
    offset, gain = scaling(image, plate, table, config)
    if is_resampled(augment):
        image = random_window(jax.random.fold_in(key, _WINDOW), image, config.crop_size, augment)
    else:
        image = random_crop(crop_key, image, config.crop_size)
    image = normalize(image, offset, gain, config.normalization == "percentile_clip")
    if augment.flip:
        image = random_flip(flip_key, image)
    if augment.rotate90:
        image = random_rotate90(rotate_key, image)
    image = _change_intensities(key, brightness_key, image, augment)
    if augment.offset > 0 or augment.noise > 0:
        image = image * (gain != 0)
    if augment.channel_dropout > 0:
        image = random_channel_dropout(jax.random.fold_in(key, _DROPOUT), image, gain != 0, augment.channel_dropout)
    return image


def _change_intensities(
    key: jax.Array, brightness_key: jax.Array, image: jax.Array, augment: AugmentConfig
) -> jax.Array:
    """Focus, staining and exposure, the camera: [B, *crop_size, C], normalized."""
    if augment.blur > 0:
        image = random_blur(jax.random.fold_in(key, _BLUR), image, augment.blur)
    if augment.gamma > 0:
        image = random_gamma(jax.random.fold_in(key, _GAMMA), image, augment.gamma)
    if augment.brightness > 0:
        image = random_brightness(brightness_key, image, augment.brightness)
    if augment.offset > 0:
        image = random_offset(jax.random.fold_in(key, _OFFSET), image, augment.offset)
    if augment.noise > 0:
        image = random_noise(jax.random.fold_in(key, _NOISE), image, augment.noise)
    return image


def eval_view(
    image: jax.Array, plate: jax.Array, table: IntensityTable, size: tuple[int, int], config: DataConfig
) -> jax.Array:
    """The one view of an image at validation and embedding: its middle [B, *size, C], normalized."""
    offset, gain = scaling(image, plate, table, config)
    return normalize(center_crop(image, size), offset, gain, config.normalization == "percentile_clip")

"""From camera counts to what a model sees, on the device, inside the compiled step.

Two views and no flag between them: `train_view` is random, `eval_view` takes no key and so cannot be. Every
augmentation is exact for 16-bit images of any number of channels: no interpolation, no clipping to 0..255.
"""

import jax
import jax.numpy as jnp

from bie_jax.config.schema import DataConfig
from bie_jax.views.intensities import IntensityTable, normalize, scaling


def center_crop(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The middle [B, *size, C]; one pixel nearer the origin where the margin is odd."""
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def random_crop(key: jax.Array, image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A window of [B, *size, C], drawn uniformly and for every image on its own."""
    b, h, w, c = image.shape
    top_key, left_key = jax.random.split(key)
    top = jax.random.randint(top_key, (b,), 0, h - size[0] + 1)
    left = jax.random.randint(left_key, (b,), 0, w - size[1] + 1)
    return jax.vmap(lambda x, i, j: jax.lax.dynamic_slice(x, (i, j, 0), (*size, c)))(image, top, left)


def random_flip(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirror each axis of each image with probability 1/2."""
    for axis, axis_key in zip((1, 2), jax.random.split(key), strict=True):
        chosen = jax.random.bernoulli(axis_key, 0.5, (image.shape[0], 1, 1, 1))
        image = jnp.where(chosen, jnp.flip(image, axis), image)
    return image


def random_rotate90(key: jax.Array, image: jax.Array) -> jax.Array:
    """Turn each (square) image by 0, 90, 180 or 270 degrees with equal probability."""
    turns = jax.random.randint(key, (image.shape[0], 1, 1, 1), 0, 4)
    image = jnp.where(turns >= 2, image[:, ::-1, ::-1], image)
    return jnp.where(turns % 2 == 1, jnp.swapaxes(image, 1, 2)[:, ::-1], image)


def random_brightness(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
    """Scale each channel of each normalized image by a factor from U(1 - amount, 1 + amount)."""
    b, _, _, c = image.shape
    return image * jax.random.uniform(key, (b, 1, 1, c), minval=1 - amount, maxval=1 + amount)


def train_view(
    key: jax.Array, image: jax.Array, plate: jax.Array, table: IntensityTable, config: DataConfig
) -> jax.Array:
    """The random view that a training step sees.

    Args:
        key: all randomness of this batch; image b's share depends on its place in the batch only.
        image: [B, H, W, C] counts.
        plate: [B] int32 rows of the table.
        table: intensities.
        config: the checked `data` group.

    Returns:
        [B, *crop_size, C] float32.
    """
    crop_key, flip_key, rotate_key, brightness_key = jax.random.split(key, 4)
    offset, gain = scaling(image, plate, table, config)
    image = random_crop(crop_key, image, config.crop_size)
    image = normalize(image, offset, gain, config.normalization == "percentile_clip")
    if config.augment.flip:
        image = random_flip(flip_key, image)
    if config.augment.rotate90:
        image = random_rotate90(rotate_key, image)
    if config.augment.brightness > 0:
        image = random_brightness(brightness_key, image, config.augment.brightness)
    return image


def eval_view(
    image: jax.Array, plate: jax.Array, table: IntensityTable, size: tuple[int, int], config: DataConfig
) -> jax.Array:
    """The one view of an image at validation and embedding: its middle [B, *size, C], normalized."""
    offset, gain = scaling(image, plate, table, config)
    return normalize(center_crop(image, size), offset, gain, config.normalization == "percentile_clip")

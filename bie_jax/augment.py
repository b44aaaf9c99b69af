"""From camera counts to what a model sees, on the device, inside the compiled step.

Two views and no flag between them: `train_view` is random, `eval_view` takes no key and so cannot be. Every
augmentation is exact for 16-bit images of any number of channels: no interpolation, no clipping to 0..255.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class IntensityTable:
    """How counts become model input: (counts - offset) * gain, per plate and channel.

    Attributes:
        offset: [P, C] float32, counts.
        gain: [P, C] float32, 1 / counts; 0 for a constant channel, which therefore becomes 0 everywhere, never NaN.
    """

    offset: jax.Array
    gain: jax.Array


def intensity_table(statistics: dict[str, Any], plates: list[str], scale: str, scope: str) -> IntensityTable:
    """Read offsets and gains from the statistics that were stored with a set.

    Args:
        statistics: `overall` and `plates` as in the set's `statistics.json`.
        plates: plate names, in the order of the table's rows.
        scale: "zscore": mean to 0, standard deviation to 1. "percentile": 0.1 % to 0, 99.9 % to 1, values outside kept.
        scope: "set": one row of numbers for all plates; "plate": each plate by its own numbers, which removes
            differences of staining and exposure between plates, and real differences of whole plates with them.

    Raises:
        ValueError: for a plate that has no statistics under scope "plate".
    """
    rows = []
    for plate in plates:
        if scope == "plate" and plate not in statistics["plates"]:
            raise ValueError(
                f"plate {plate!r} has no intensity statistics (there are {sorted(statistics['plates'])}); "
                "data.normalization_scope='plate' needs them, 'set' does not"
            )
        s = statistics["plates"][plate] if scope == "plate" else statistics["overall"]
        if scale == "zscore":
            low, width = np.asarray(s["mean"]), np.asarray(s["std"])
        else:
            low = np.asarray(s["percentiles"]["0.1"])
            width = np.asarray(s["percentiles"]["99.9"]) - low
        rows.append((low, np.divide(1.0, width, out=np.zeros_like(width, dtype=float), where=width > 0)))
    offset, gain = (np.stack(column).astype(np.float32) for column in zip(*rows, strict=True))
    return IntensityTable(jnp.asarray(offset), jnp.asarray(gain))


def normalize(image: jax.Array, table: IntensityTable, plate: jax.Array) -> jax.Array:
    """[B, H, W, C] counts of any dtype and [B] rows of the table -> [B, H, W, C] float32."""
    offset = table.offset[plate][:, None, None, :]
    gain = table.gain[plate][:, None, None, :]
    return (image.astype(jnp.float32) - offset) * gain


def center_crop(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The middle [B, *size, C]; one pixel nearer the origin where the margin is odd."""
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def random_crop(key: jax.Array, image: jax.Array, size: int) -> jax.Array:
    """A window of [B, size, size, C], drawn uniformly and for every image on its own."""
    b, h, w, c = image.shape
    top_key, left_key = jax.random.split(key)
    top = jax.random.randint(top_key, (b,), 0, h - size + 1)
    left = jax.random.randint(left_key, (b,), 0, w - size + 1)
    return jax.vmap(lambda x, i, j: jax.lax.dynamic_slice(x, (i, j, 0), (size, size, c)))(image, top, left)


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
    """Scale each channel of each normalised image by a factor from U(1 - amount, 1 + amount)."""
    b, _, _, c = image.shape
    return image * jax.random.uniform(key, (b, 1, 1, c), minval=1 - amount, maxval=1 + amount)


def train_view(key: jax.Array, image: jax.Array, plate: jax.Array, table: IntensityTable, config: Any) -> jax.Array:
    """The random view that a training step sees.

    Args:
        key: all randomness of this batch; image b's share depends on its place in the batch only.
        image: [B, H, W, C] counts.
        plate: [B] int32 rows of the table.
        table: intensities.
        config: the checked `data` group.

    Returns:
        [B, crop_size, crop_size, C] float32.
    """
    crop_key, flip_key, rotate_key, brightness_key = jax.random.split(key, 4)
    image = normalize(random_crop(crop_key, image, config.crop_size), table, plate)
    if config.augment.flip:
        image = random_flip(flip_key, image)
    if config.augment.rotate90:
        image = random_rotate90(rotate_key, image)
    if config.augment.brightness > 0:
        image = random_brightness(brightness_key, image, config.augment.brightness)
    return image


def eval_view(image: jax.Array, plate: jax.Array, table: IntensityTable, size: tuple[int, int]) -> jax.Array:
    """The one view of an image at validation and embedding: its middle [B, *size, C], normalised."""
    return normalize(center_crop(image, size), table, plate)

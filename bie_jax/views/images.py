"""From camera counts to what a model sees, on the device, inside the compiled step.

Two views and no flag between them: `train_view` is random, `eval_view` takes no key and so cannot be. Every
augmentation is exact for 16-bit images of any number of channels: no interpolation, no clipping to 0..255.
"""

from collections.abc import Sequence
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
        present: [P, C] float32, 1 for a channel that the plate's set has, 0 for one that only other sets have.
    """

    offset: jax.Array
    gain: jax.Array
    present: jax.Array


def table_rows(sets: Sequence[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """(set, plate) -> row of the intensity table; plate "" is the whole set, for images of no known plate.

    Args:
        sets: each with `name` and `plates`, as in `dataset.json`.
    """
    keys = [(described["name"], plate) for described in sets for plate in ("", *sorted({*described["plates"]} - {""}))]
    return {key: row for row, key in enumerate(keys)}


def intensity_table(
    sets: Sequence[dict[str, Any]], channel_names: Sequence[str], scale: str, scope: str
) -> IntensityTable:
    """Read offsets and gains from the statistics that were stored with the sets; rows as `table_rows` has them.

    Args:
        sets: each with `name`, `channel_names`, `overall` and `plates`, as in `dataset.json`.
        channel_names: C names, of all sets together.
        scale: "zscore": mean to 0, standard deviation to 1. "percentile": 0.1 % to 0, 99.9 % to 1, values outside kept.
            "percentile_clip": the same, values outside cut to 0 and 1.
        scope: "set": one row of numbers for all plates; "plate": each plate by its own numbers, which removes
            differences of staining and exposure between plates, and real differences of whole plates with them.
            "image": each image by its own; only `present` of the table is read then.
    """
    by_name = {described["name"]: described for described in sets}
    offset, gain, present = (np.zeros((len(table_rows(sets)), len(channel_names)), np.float32) for _ in range(3))
    for (name, plate), row in table_rows(sets).items():
        described = by_name[name]
        s = described["plates"][plate] if plate and scope == "plate" else described["overall"]
        if scale == "zscore":
            low, width = np.asarray(s["mean"]), np.asarray(s["std"])
        else:
            low = np.asarray(s["percentiles"]["0.1"])
            width = np.asarray(s["percentiles"]["99.9"]) - low
        columns = [list(channel_names).index(channel) for channel in described["channel_names"]]
        offset[row, columns] = low
        gain[row, columns] = np.divide(1.0, width, out=np.zeros_like(width, dtype=float), where=width > 0)
        present[row, columns] = 1
    return IntensityTable(jnp.asarray(offset), jnp.asarray(gain), jnp.asarray(present))


def scaling(image: jax.Array, plate: jax.Array, table: IntensityTable, config: Any) -> tuple[jax.Array, jax.Array]:
    """Offset and gain of each image and channel, both [B, 1, 1, C] float32.

    Args:
        image: [B, H, W, C] counts, the whole images; looked at for `config.normalization_scope = "image"`.
        plate: [B] int32 rows of the table.
        table: intensities.
        config: the checked `data` group.
    """
    if config.normalization_scope == "image":
        counts = image.astype(jnp.float32)
        if config.normalization == "zscore":
            offset = counts.mean(axis=(1, 2), keepdims=True)
            # About the mean: the mean square less the squared mean loses its digits in a bright flat image.
            width = jnp.sqrt(jnp.square(counts - offset).mean(axis=(1, 2), keepdims=True))
        else:
            offset, high = jnp.percentile(counts, jnp.asarray([0.1, 99.9]), axis=(1, 2), keepdims=True)
            width = high - offset
        gain = jnp.where(width > 0, 1 / jnp.where(width > 0, width, 1), 0)
        return offset, gain * table.present[plate][:, None, None, :]
    return table.offset[plate][:, None, None, :], table.gain[plate][:, None, None, :]


def normalize(image: jax.Array, offset: jax.Array, gain: jax.Array, clip: bool) -> jax.Array:
    """[B, H, W, C] counts of any dtype, and their `scaling` -> [B, H, W, C] float32."""
    image = (image.astype(jnp.float32) - offset) * gain
    return jnp.clip(image, 0, 1) if clip else image


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


def train_view(key: jax.Array, image: jax.Array, plate: jax.Array, table: IntensityTable, config: Any) -> jax.Array:
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
    image: jax.Array, plate: jax.Array, table: IntensityTable, size: tuple[int, int], config: Any
) -> jax.Array:
    """The one view of an image at validation and embedding: its middle [B, *size, C], normalized."""
    offset, gain = scaling(image, plate, table, config)
    return normalize(center_crop(image, size), offset, gain, config.normalization == "percentile_clip")

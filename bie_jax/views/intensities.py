"""How camera counts become model input: offsets and gains per plate and channel, from the statistics of a built set."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.config.schema import DataConfig


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


def scaling(
    image: jax.Array, plate: jax.Array, table: IntensityTable, config: DataConfig
) -> tuple[jax.Array, jax.Array]:
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

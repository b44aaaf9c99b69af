"""From a built set to batches on the devices: Grain reads, shards by process, shuffles and batches.

Pixels travel as they are stored; strings never travel, a row number does. The position in the data is a function of
the step alone, so a resumed run needs no saved iterator: it starts at the batch of its step, whatever the number of
threads.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

import grain
import jax
import numpy as np
import pandas as pd

from bie_jax.image_set import ImageSet


def split_rows(metadata: pd.DataFrame, val_fraction: float, split_by: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation; images of one group never stand on both sides.

    Groups are ordered by a hash of their name and the seed, which is the same on every machine and for every version of
    numpy, and taken into validation until the fraction is reached.

    Args:
        metadata: the set's table, with `plate` and `well`.
        val_fraction: least share of images to validate on, in (0, 1).
        split_by: "image", "well" (of a plate) or "plate".
        seed: another seed, another split.

    Returns:
        (train, val), each sorted int64 row numbers.

    Raises:
        ValueError: if there are too few groups to leave some on each side.
    """
    if split_by == "image":
        groups = pd.Series([str(row) for row in range(len(metadata))])
    elif split_by == "plate":
        groups = metadata["plate"].reset_index(drop=True)
    else:
        groups = (metadata["plate"] + "/" + metadata["well"]).reset_index(drop=True)
    sizes = groups.value_counts()
    names = sorted(sizes.index, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    images_before = np.concatenate([[0], np.cumsum([sizes[name] for name in names])[:-1]])
    held_out = [name for name, before in zip(names, images_before, strict=True) if before < val_fraction * len(groups)]
    if len(held_out) == len(names):
        raise ValueError(
            f"data.split_by={split_by!r} with data.val_fraction={val_fraction} puts all {len(names)} {split_by}s into "
            "validation; split by a finer unit or hold out less"
        )
    is_val = groups.isin(held_out).to_numpy()
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


@dataclasses.dataclass(frozen=True)
class _ReadBatch(grain.transforms.Map):
    """[B] rows -> {"image", "row"}. The set fills one array per batch, which copies every image once."""

    image_set: ImageSet

    def map(self, element: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": self.image_set.images(element), "row": element.astype(np.int32)}


def _rows(rows: np.ndarray) -> grain.MapDataset:
    """Row numbers as a dataset; pyright does not count an array among the sequences, Grain does."""
    return grain.MapDataset.source(rows)  # pyright: ignore[reportArgumentType]


def train_batches(
    image_set: ImageSet, rows: np.ndarray, batch_size: int, seed: int, start_step: int, read_threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches of this process's share, from batch number `start_step` on.

    Every epoch has its own order, given by the seed; batches run across the ends of epochs, so that none is dropped.

    Args:
        image_set: the set.
        rows: rows to train on.
        batch_size: global, over all processes.
        seed: of the order.
        start_step: how many batches were used already.
        read_threads: threads that read ahead.

    Yields:
        {"image": [B, H, W, C] in the set's dtype, "row": [B] int32} with B = batch_size / processes.
    """
    dataset = (
        _rows(rows)
        .seed(seed)
        .shuffle()[jax.process_index() :: jax.process_count()]
        .repeat()
        .batch(batch_size // jax.process_count(), drop_remainder=True)
        .map(_ReadBatch(image_set))
    )
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * read_threads)
    return iter(dataset[start_step:].to_iter_dataset(options))


def eval_batches(
    image_set: ImageSet, rows: np.ndarray, batch_size: int, read_threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """Every row once, in order; the last batch is padded with its first image and weight 0, so that all have one shape.

    Yields:
        {"image": [B, H, W, C], "row": [B] int32, "weight": [B] float32, 1 for an image, 0 for padding}.
    """
    padding = -len(rows) % batch_size
    padded = np.concatenate([rows, np.full(padding, rows[0])])
    weight = np.concatenate([np.ones(len(rows), np.float32), np.zeros(padding, np.float32)])
    dataset = _rows(padded).batch(batch_size, drop_remainder=True).map(_ReadBatch(image_set))
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * read_threads)
    for number, batch in enumerate(dataset.to_iter_dataset(options)):
        yield batch | {"weight": weight[number * batch_size : (number + 1) * batch_size]}

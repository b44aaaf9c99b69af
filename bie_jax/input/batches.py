"""From built sets to batches on the devices: Grain reads, shards by process, shuffles and batches.

Pixels travel as they are stored; strings never travel, a row number does. The position in the data is a function of
the step alone, so a resumed run needs no saved iterator: it starts at the batch of its step, whatever the number of
threads.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np

from bie_jax.input.mixture import Mixture


@dataclasses.dataclass(frozen=True)
class _ReadBatch(grain.transforms.Map):
    """[B] rows, or [B, 3] rows and places, -> {"image", "row"}. Every image is copied once."""

    mixture: Mixture

    def map(self, element: np.ndarray) -> dict[str, np.ndarray]:
        rows, places = (element, None) if element.ndim == 1 else (element[:, 0].astype(np.int64), element[:, 1:])
        return {"image": self.mixture.images(rows, places), "row": rows.astype(np.int32)}


def _place(row: np.int64, rng: np.random.Generator) -> np.ndarray:
    """A row, and where in a larger image the window is cut. Grain seeds the generator by the element's place alone."""
    return np.concatenate([[row], rng.random(2)])


def _rows(rows: np.ndarray) -> grain.MapDataset:
    """Row numbers as a dataset; pyright does not count an array among the sequences, Grain does."""
    return grain.MapDataset.source(rows)  # pyright: ignore[reportArgumentType]


def train_batches(
    mixture: Mixture,
    rows: Sequence[np.ndarray],
    weights: Sequence[float],
    batch_size: int,
    seed: int,
    start_step: int,
    read_threads: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches of this process's share, from batch number `start_step` on.

    Every epoch of a set has its own order, given by the seed; batches run across the ends of epochs, so that none is
    dropped. Several sets are mixed by their weights, evenly along the way (`grain.MapDataset.mix`).

    Args:
        mixture: the sets.
        rows: rows of each set to train on, numbered over all sets.
        weights: share of each set.
        batch_size: global, over all processes.
        seed: of the order.
        start_step: how many batches were used already.
        read_threads: threads that read ahead.

    Yields:
        {"image": [B, H, W, C] in the mixture's dtype, "row": [B] int32} with B = batch_size / processes.
    """
    shuffled = [_rows(chosen).seed(seed + member).shuffle() for member, chosen in enumerate(rows)]
    if len(shuffled) == 1:
        dataset = shuffled[0][jax.process_index() :: jax.process_count()].repeat()
    else:
        endless = [dataset.repeat() for dataset in shuffled]
        # Places are drawn before the processes share the images: a place belongs to its number in the whole order.
        placed = grain.MapDataset.mix(endless, weights).seed(seed).random_map(_place)
        dataset = placed[jax.process_index() :: jax.process_count()]
    dataset = dataset.batch(batch_size // jax.process_count(), drop_remainder=True).map(_ReadBatch(mixture))
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * read_threads)
    return iter(dataset[start_step:].to_iter_dataset(options))


def eval_batches(
    mixture: Mixture, rows: np.ndarray, batch_size: int, read_threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """Every row once, in order; the last batch is padded with its first image and weight 0, so that all have one shape.

    Yields:
        {"image": [B, H, W, C], "row": [B] int32, "weight": [B] float32, 1 for an image, 0 for padding}.
    """
    padding = -len(rows) % batch_size
    padded = np.concatenate([rows, np.full(padding, rows[0])])
    weight = np.concatenate([np.ones(len(rows), np.float32), np.zeros(padding, np.float32)])
    dataset = _rows(padded).batch(batch_size, drop_remainder=True).map(_ReadBatch(mixture))
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * read_threads)
    for number, batch in enumerate(dataset.to_iter_dataset(options)):
        yield batch | {"weight": weight[number * batch_size : (number + 1) * batch_size]}

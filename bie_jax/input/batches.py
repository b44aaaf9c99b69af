"""From built sets to batches on the devices: Grain shuffles, batches, and reads this process's share of each batch.

Pixels travel as they are stored; strings never travel, a row number does. The position in the data is a function of
the step alone, so a resumed run needs no saved iterator: it starts at the batch of its step, whatever the number of
threads.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from bie_jax.input.mixture import Mixture
from bie_jax.input.positives import Positives

_ALL = slice(None)  # places in a batch, of a process that is alone
# One image, or with a further axis a batch: `row`, `place`, `positive_row`, `positive_place`.
_Chosen = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _ReadBatch(grain.transforms.Map):
    """[B] rows, or `_Chosen` with an axis of B, -> {"image", "row"} and what is beside, of the share of the batch.

    Every image is copied once.
    """

    mixture: Mixture
    share: np.ndarray | slice

    def map(self, element: np.ndarray | _Chosen) -> dict[str, np.ndarray]:
        whole: _Chosen = element if isinstance(element, dict) else {"row": element}
        chosen = {name: values[self.share] for name, values in whole.items()}
        batch = {}
        for image, row, place in (("image", "row", "place"), ("positive", "positive_row", "positive_place")):
            if row in chosen:
                batch |= {
                    image: self.mixture.images(chosen[row], chosen.get(place)),
                    row: chosen[row].astype(np.int32),
                }
        return batch


def _place(row: np.int64, rng: np.random.Generator) -> _Chosen:
    """A row, and where in a larger image the window is cut. Grain seeds the generator by the element's place alone."""
    return {"row": row, "place": rng.random(2)}


@dataclasses.dataclass(frozen=True)
class _Beside(grain.transforms.RandomMap):
    """A row with that of its second view, and where that is cut if the first is."""

    positives: Positives

    def random_map(self, element: np.int64 | _Chosen, rng: np.random.Generator) -> _Chosen:
        chosen: _Chosen = element if isinstance(element, dict) else {"row": element}
        beside: _Chosen = {"positive_row": np.int64(self.positives.draw(int(chosen["row"]), rng))}
        if "place" in chosen:
            beside["positive_place"] = rng.random(2)
        return chosen | beside


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
    positives: Positives | None = None,
    share: np.ndarray | slice = _ALL,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless shuffled batches, from batch number `start_step` on; of each the share of this process.

    Which images are in a batch, and what is drawn for them, does not depend on who reads them.

    Every epoch of a set has its own order, given by the seed; batches run across the ends of epochs, so that none is
    dropped. Several sets are mixed by their weights, evenly along the way (`grain.MapDataset.mix`).

    Args:
        mixture: the sets.
        rows: rows of each set to train on, numbered over all sets.
        weights: share of each set.
        batch_size: over all processes.
        seed: of the order.
        start_step: how many batches were used already.
        read_threads: threads that read ahead.
        positives: what draws another image beside each; None: there is none.
        share: places in a batch that this process's devices hold (`Layout.share`).

    Yields:
        {"image": [B, H, W, C] in the mixture's dtype, "row": [B] int32} with the B images of the share; the same of the
        images beside them in "positive" and "positive_row".
    """
    shuffled = [_rows(chosen).seed(seed + member).shuffle() for member, chosen in enumerate(rows)]
    if positives is not None:
        endless = [dataset.repeat() for dataset in shuffled]
        order = (
            endless[0] if len(endless) == 1 else grain.MapDataset.mix(endless, weights).seed(seed).random_map(_place)
        )
        dataset = order.seed(seed).random_map(_Beside(positives))
    elif len(shuffled) == 1:
        dataset = shuffled[0].repeat()
    else:
        endless = [dataset.repeat() for dataset in shuffled]
        dataset = grain.MapDataset.mix(endless, weights).seed(seed).random_map(_place)
    dataset = dataset.batch(batch_size, drop_remainder=True).map(_ReadBatch(mixture, share))
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * read_threads)
    return iter(dataset[start_step:].to_iter_dataset(options))


def eval_batches(
    mixture: Mixture, rows: np.ndarray, batch_size: int, read_threads: int, share: np.ndarray | slice = _ALL
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Every row once, in order; the last batch is padded with the first image and weight 0, so that all have one shape.

    Args:
        mixture: the sets.
        rows: numbered over all sets.
        batch_size: over all processes.
        read_threads: threads that read ahead.
        share: as in `train_batches`.

    Yields:
        {"image": [B, H, W, C], "row": [B] int32, "weight": [B] float32, 1 for an image, 0 for padding} of the share,
        and the rows [n] of the images of the whole batch, without its padding.
    """
    padding = -len(rows) % batch_size
    padded = np.concatenate([rows, np.full(padding, rows[0])])
    weight = np.concatenate([np.ones(len(rows), np.float32), np.zeros(padding, np.float32)])
    dataset = _rows(padded).batch(batch_size, drop_remainder=True).map(_ReadBatch(mixture, share))
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * read_threads)
    for number, batch in enumerate(dataset.to_iter_dataset(options)):
        whole = slice(number * batch_size, (number + 1) * batch_size)
        yield batch | {"weight": weight[whole][share]}, rows[whole]

"""From built sets to batches on the devices: Grain reads, shards by process, shuffles and batches.

Pixels travel as they are stored; strings never travel, a row number does. The position in the data is a function of
the step alone, so a resumed run needs no saved iterator: it starts at the batch of its step, whatever the number of
threads.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
import pandas as pd

from bie_jax.config.schema import Config
from bie_jax.input.image_set import ImageSet
from bie_jax.input.mixture import Mixture
from bie_jax.input.wells import names_of_wells


def split_rows(
    metadata: pd.DataFrame, split_by: str, seed: int, val_fraction: float, num_folds: int = 0, fold: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation; images of one group never stand on both sides.

    Groups are ordered by a hash of their name and the seed, which is the same on every machine and for every version of
    numpy. Without folds they are taken into validation until the fraction is reached; with folds each goes, in that
    order, to the fold that has fewest images so far.

    Args:
        metadata: the set's table, with `plate`, `well`, `site`.
        split_by: "image", "site" (of a well), "well" (of a plate), "plate", or a column whose values are the groups.
        seed: another seed, another split.
        val_fraction: least share of images to validate on, in (0, 1); read when `num_folds` is 0.
        num_folds: k of k-fold cross-validation; 0: none.
        fold: which one is validated on.

    Returns:
        (train, val), each sorted int64 row numbers.

    Raises:
        ValueError: for a column that is not there, or if there are too few groups to leave some on each side.
    """
    groups = _groups(metadata, split_by)
    sizes = groups.value_counts()
    names = sorted(sizes.index, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    if num_folds:
        if len(names) < num_folds:
            raise ValueError(
                f"data.split_by={split_by!r} makes {len(names)} groups, too few for data.num_folds={num_folds}; "
                "split by a finer unit or into fewer folds"
            )
        filled = np.zeros(num_folds, int)
        held_out = []
        for name in names:
            emptiest = int(filled.argmin())
            filled[emptiest] += sizes[name]
            if emptiest == fold:
                held_out.append(name)
    else:
        before = np.concatenate([[0], np.cumsum([sizes[name] for name in names])[:-1]])
        held_out = [name for name, images in zip(names, before, strict=True) if images < val_fraction * len(groups)]
    if len(held_out) == len(names):
        raise ValueError(
            f"data.split_by={split_by!r} with data.val_fraction={val_fraction} puts all of {len(names)} groups into "
            "validation; split by a finer unit or hold out less"
        )
    is_val = groups.isin(held_out).to_numpy()
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def split_image_set(config: Config, image_set: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one set to train on and to validate on, as a configuration has it."""
    data = config.data
    return split_rows(
        image_set.metadata, data.split_by, config.train.seed, data.val_fraction, data.num_folds, data.fold
    )


def _groups(metadata: pd.DataFrame, split_by: str) -> pd.Series:
    """The group of each row, as text."""
    if split_by == "image":
        return pd.Series([str(row) for row in range(len(metadata))])
    columns = {"plate": ["plate"], "well": ["plate", "well"], "site": ["plate", "well", "site"]}.get(
        split_by, [split_by]
    )
    if split_by not in metadata and columns == [split_by]:
        raise ValueError(
            f"data.split_by={split_by!r}: expected 'image', 'site', 'well', 'plate' or one of the columns "
            f"{', '.join(metadata.columns)}"
        )
    rows = metadata[columns].astype(str).itertuples(index=False)
    return pd.Series(["/".join(row) for row in rows])


def mixed(rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows in an order of chance, the same on every machine: neighbors in a set are images of one well."""
    return np.asarray(sorted(rows, key=lambda row: hashlib.sha256(f"{seed}:{row}".encode()).digest()), np.int64)


def describe_split(metadata: pd.DataFrame, train_rows: np.ndarray, val_rows: np.ndarray) -> str:
    """One line with what stands on each side."""
    sides = []
    for side, rows in (("train", train_rows), ("validation", val_rows)):
        chosen = metadata.iloc[rows]
        wells, plates = (len(chosen[keys].drop_duplicates()) for keys in (["plate", "well"], ["plate"]))
        sides.append(f"{side} {len(rows)} images, {wells} wells, {plates} plates")
    return "; ".join(sides)


def describe_overlap(metadata: pd.DataFrame, train_rows: np.ndarray, val_rows: np.ndarray) -> list[str]:
    """What the two sides share, in one sentence or none: images of one well, crops of one field.

    Args:
        metadata: of all sets, so that a well which two sets have is seen.
        train_rows: numbered over all sets, like the next.
        val_rows: validated on.
    """
    wells = names_of_wells(metadata)
    shared = wells.iloc[val_rows].isin(set(wells.iloc[train_rows]))
    if not shared.any():
        return []
    return [
        f"{int(shared.sum())} of {len(val_rows)} validation images are of wells (or crops of fields, where no well is "
        "known) that are trained on too: they are not unseen. data.split_by='well' keeps a set's wells whole, "
        "data.split_by='plate' its plates"
    ]


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

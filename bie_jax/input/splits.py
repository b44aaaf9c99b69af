"""Which rows are trained on, which validated on, which neither; a group of images never stands on two sides."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bie_jax.config.schema import Config, DataConfig
from bie_jax.input.columns import HELD_OUT, TRAIN, VAL
from bie_jax.input.image_set import ImageSet
from bie_jax.input.stratified import folds_of_groups, validation_groups
from bie_jax.input.wells import names_of_wells


def split_rows(
    metadata: pd.DataFrame,
    split_by: str,
    seed: int,
    val_fraction: float,
    num_folds: int = 0,
    fold: int = 0,
    held_out: np.ndarray | None = None,
    stratify_by: str = "",
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation; images of one group never stand on both sides.

    Which groups are validated on is said in `stratified`.

    Args:
        metadata: the set's table, with `plate`, `well`, `site`.
        split_by: "image", "site" (of a well), "well" (of a plate), "plate", or a column whose values are the groups.
        seed: another seed, another split.
        val_fraction: share of images to validate on, in (0, 1), which whole groups reach or pass; read when `num_folds`
            is 0.
        num_folds: k of k-fold cross-validation; 0: none.
        fold: which one is validated on.
        held_out: [N] bool, rows that are on neither side, as if they were not there; None: there are none.
        stratify_by: column whose values have groups on both sides where they have two; "", or a column that this table
            does not have: none.

    Returns:
        (train, val), each sorted int64 row numbers.

    Raises:
        ValueError: for a column of groups that is not there, or if there are too few groups to leave some on each side.
    """
    rows = np.arange(len(metadata)) if held_out is None else np.flatnonzero(~held_out)
    groups = _groups(metadata, split_by).iloc[rows]
    images = _images_of_groups(groups, _labels(metadata, stratify_by).iloc[rows])
    if num_folds:
        if len(images) < num_folds:
            raise ValueError(
                f"data.split_by={split_by!r} makes {len(images)} groups, too few for data.num_folds={num_folds}; "
                "split by a finer unit or into fewer folds"
            )
        folds = folds_of_groups(images, num_folds, seed)
        validated = [name for name, number in folds.items() if number == fold]
    else:
        validated = validation_groups(images, val_fraction, seed)
    if len(validated) == len(images):
        raise ValueError(
            f"data.split_by={split_by!r} with data.val_fraction={val_fraction} puts all of {len(images)} groups into "
            "validation; split by a finer unit or hold out less"
        )
    is_val = groups.isin(validated).to_numpy()
    return rows[~is_val], rows[is_val]


def split_image_set(config: Config, image_set: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one set to train on and to validate on, as a configuration has it; what it holds out is neither."""
    data = config.data
    held_out = held_out_rows(data, image_set.metadata)
    return split_rows(
        image_set.metadata,
        data.split_by,
        config.train.seed,
        data.val_fraction,
        data.num_folds,
        data.fold,
        held_out,
        data.stratify_by,
    )


def held_out_rows(data: DataConfig, metadata: pd.DataFrame) -> np.ndarray:
    """[N] bool, the rows that `data.held_out` names; a name that the table does not have stands for none."""
    if not data.held_out:
        return np.zeros(len(metadata), bool)
    return _groups(metadata, data.held_out_by, "held_out_by").isin(data.held_out).to_numpy()


def check_held_out(data: DataConfig, tables: Sequence[pd.DataFrame]) -> None:
    """Raise ValueError for a name that none of a run's sets has."""
    if not data.held_out:
        return
    there = sorted({name for table in tables for name in _groups(table, data.held_out_by, "held_out_by")})
    missing = sorted(set(data.held_out) - set(there))
    if missing:
        more = ", ..." if len(there) > 12 else ""
        raise ValueError(
            f"data.held_out names {', '.join(missing)}, which {data.held_out_by!r} (data.held_out_by) does not have; "
            f"there are {', '.join(there[:12])}{more}"
        )


def check_stratified(data: DataConfig, tables: Sequence[pd.DataFrame]) -> None:
    """Raise ValueError for a column that none of a run's sets has."""
    if data.stratify_by and not any(data.stratify_by in table for table in tables):
        raise ValueError(
            f"data.stratify_by={data.stratify_by!r} is no column; there are {', '.join(tables[0].columns)}; '' is "
            "possible, for a division that looks at none"
        )


def sides_of(train_rows: np.ndarray, val_rows: np.ndarray, count: int) -> np.ndarray:
    """[count] str, the side of each row: `TRAIN`, `VAL` or `HELD_OUT`."""
    sides = np.full(count, HELD_OUT)
    sides[train_rows], sides[val_rows] = TRAIN, VAL
    return sides


def _groups(metadata: pd.DataFrame, split_by: str, key: str = "split_by") -> pd.Series:
    """The group of each row, as text; `key` of `config.data` is who asks."""
    if split_by == "image":
        return pd.Series([str(row) for row in range(len(metadata))])
    columns = {"plate": ["plate"], "well": ["plate", "well"], "site": ["plate", "well", "site"]}.get(
        split_by, [split_by]
    )
    if split_by not in metadata and columns == [split_by]:
        raise ValueError(
            f"data.{key}={split_by!r}: expected 'image', 'site', 'well', 'plate' or one of the columns "
            f"{', '.join(metadata.columns)}"
        )
    rows = metadata[columns].astype(str).itertuples(index=False)
    return pd.Series(["/".join(row) for row in rows])


def _labels(metadata: pd.DataFrame, stratify_by: str) -> pd.Series:
    """The label of each row, as text; "" where it has none."""
    if stratify_by not in metadata:
        return pd.Series([""] * len(metadata))
    return pd.Series(metadata[stratify_by].fillna("").astype(str).to_numpy())


def _images_of_groups(groups: pd.Series, labels: pd.Series) -> dict[str, dict[str, int]]:
    """Group -> label -> images."""
    images: dict[str, dict[str, int]] = {}
    for group, label in zip(groups, labels, strict=True):
        of_group = images.setdefault(group, {})
        of_group[label] = of_group.get(label, 0) + 1
    return images


def mixed(rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows in an order of chance, the same on every machine: neighbors in a set are images of one well."""
    return np.asarray(sorted(rows, key=lambda row: hashlib.sha256(f"{seed}:{row}".encode()).digest()), np.int64)


def describe_split(metadata: pd.DataFrame, train_rows: np.ndarray, val_rows: np.ndarray) -> str:
    """One line with what stands on each side."""
    sides = []
    rest = np.setdiff1d(np.arange(len(metadata)), np.concatenate([train_rows, val_rows]))
    for side, rows in (("train", train_rows), ("validation", val_rows), ("held out", rest)):
        if side == "held out" and not len(rows):
            continue
        chosen = metadata.iloc[rows]
        wells, plates = (len(chosen[keys].drop_duplicates()) for keys in (["plate", "well"], ["plate"]))
        sides.append(f"{side} {len(rows)} images, {wells} wells, {plates} plates")
    return "; ".join(sides)


def describe_room(data: DataConfig, metadata: pd.DataFrame, train_rows: np.ndarray, val_rows: np.ndarray) -> list[str]:
    """Which labels of several groups are not validated on, in one sentence or none.

    Args:
        data: the checked `data` group.
        metadata: of one set.
        train_rows: its rows that are trained on.
        val_rows: its rows that are validated on.
    """
    if data.num_folds:  # another fold has them
        return []
    labels, groups = _labels(metadata, data.stratify_by), _groups(metadata, data.split_by)
    validated = {"", *labels.iloc[val_rows]}
    spread = groups.iloc[train_rows].groupby(labels.iloc[train_rows]).nunique()
    without = sorted(name for name, count in spread.items() if count > 1 and name not in validated)
    if not without:
        return []
    more = f" and {len(without) - 8} more" if len(without) > 8 else ""
    return [
        f"data.stratify_by={data.stratify_by!r}: none of {', '.join(without[:8])}{more} is validated on, for which "
        f"data.val_fraction={data.val_fraction} has no room: a larger one has, or a finer data.split_by"
    ]


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

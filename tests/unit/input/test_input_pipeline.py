import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bie_jax.input.batches import eval_batches, train_batches
from bie_jax.input.splits import (
    check_held_out,
    describe_overlap,
    describe_split,
    mixed,
    sides_of,
    split_image_set,
    split_rows,
)


def _table(plates=3, wells=8, sites=4):
    rows = itertools.product(range(plates), range(wells), range(sites))
    return pd.DataFrame([{"plate": f"p{p}", "well": f"A{w:02d}", "site": s} for p, w, s in rows])


class _Images:
    """Images that say their own row."""

    def __init__(self, n):
        self._n = n

    def __len__(self):
        return self._n

    def images(self, rows, places):
        return np.stack([np.full((2, 2, 1), i, np.uint16) for i in rows])


@pytest.mark.parametrize("split_by", ["image", "site", "well", "plate", "donor"])
def test_split_is_a_partition_without_leaks(split_by):
    table = _table().assign(donor=lambda table: np.arange(len(table)) % 14)
    train, val = split_rows(table, split_by, 0, 0.2)
    assert sorted([*train, *val]) == list(range(len(table)))
    assert (
        0.2 * len(table)
        <= len(val)
        < 0.2 * len(table) + {"image": 1, "site": 1, "well": 4, "plate": 32, "donor": 7}[split_by]
    )
    keys = {"image": [], "site": ["plate", "well", "site"], "well": ["plate", "well"]}.get(split_by, [split_by])
    if keys:
        sides = [set(table.iloc[rows][keys].itertuples(index=False)) for rows in (train, val)]
        assert not sides[0] & sides[1]


def test_split_is_the_same_on_every_machine():
    """A hash decides, not a generator whose stream a new version may change; this is its answer."""
    _, val = split_rows(_table(2, 4, 1), "well", 0, 0.25)
    assert val.tolist() == EXPECTED_VALIDATION_ROWS
    assert split_rows(_table(2, 4, 1), "well", 1, 0.25)[1].tolist() != EXPECTED_VALIDATION_ROWS


EXPECTED_VALIDATION_ROWS = [1, 4]


@pytest.mark.parametrize(("split_by", "largest"), [("image", 32), ("well", 32), ("plate", 32), ("donor", 50)])
def test_folds_hold_out_every_row_once_and_are_balanced(split_by, largest):
    # One donor of 50 images and 46 donors of one: the large one is a fold, the others share the rest.
    table = _table().assign(donor=np.concatenate([np.full(50, 99), np.arange(46)]))
    held_out = [split_rows(table, split_by, 0, 0.1, num_folds=3, fold=k)[1] for k in range(3)]
    assert sorted(np.concatenate(held_out)) == list(range(len(table)))
    sizes = sorted(map(len, held_out))
    assert sizes[2] <= largest + 4
    assert sizes[1] - sizes[0] <= 4


def test_a_split_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"makes 3 groups, too few for data.num_folds=4"):
        split_rows(_table(), "plate", 0, 0.1, num_folds=4)
    with pytest.raises(
        ValueError, match=r"data.split_by='donor': expected 'image', 'site', 'well', 'plate' or .*plate"
    ):
        split_rows(_table(), "donor", 0, 0.1)


@pytest.mark.parametrize("num_folds", [0, 3])
def test_the_split_of_a_set_is_the_configured_one(num_folds):
    table = _table()
    data = SimpleNamespace(
        split_by="well", val_fraction=0.3, num_folds=num_folds, fold=num_folds // 2, held_out=(), stratify_by=""
    )
    config = SimpleNamespace(data=data, train=SimpleNamespace(seed=3))
    found = split_image_set(config, SimpleNamespace(metadata=table))
    expected = split_rows(table, "well", 3, 0.3, num_folds=num_folds, fold=num_folds // 2)
    for rows, others in zip(found, expected, strict=True):
        np.testing.assert_array_equal(rows, others)
    assert len({len(found[1]), len(split_rows(table, "well", 3, 0.05)[1])}) == 2


@pytest.mark.parametrize("num_folds", [0, 3])
@pytest.mark.parametrize(("by", "names", "count"), [("plate", ("p1",), 32), ("well", ("p0/A03", "p2/A07"), 8)])
def test_what_is_held_out_is_on_no_side_and_the_rest_is_divided_as_if_it_were_not_there(num_folds, by, names, count):
    table = _table()
    data = SimpleNamespace(
        split_by="well",
        val_fraction=0.3,
        num_folds=num_folds,
        fold=num_folds // 2,
        held_out=names,
        held_out_by=by,
        stratify_by="",
    )
    config = SimpleNamespace(data=data, train=SimpleNamespace(seed=3))
    train, val = split_image_set(config, SimpleNamespace(metadata=table))
    keys = table["plate"] if by == "plate" else table["plate"] + "/" + table["well"]
    rest = np.flatnonzero(~keys.isin(names))
    assert len(table) - len(rest) == count
    assert sorted([*train, *val]) == rest.tolist()
    alone = split_rows(table.iloc[rest].reset_index(drop=True), "well", 3, 0.3, num_folds=num_folds, fold=data.fold)
    np.testing.assert_array_equal(rest[alone[0]], train)
    np.testing.assert_array_equal(rest[alone[1]], val)
    sides = sides_of(train, val, len(table))
    assert set(np.flatnonzero(sides == "held_out")) == set(range(len(table))) - set(rest)
    assert (sides[train] == "train").all()
    assert (sides[val] == "val").all()
    assert f"held out {count} images" in describe_split(table, train, val)


def test_a_name_that_no_set_has_cannot_be_held_out():
    data = SimpleNamespace(held_out=("p1", "p7"), held_out_by="plate")
    with pytest.raises(ValueError, match=r"names p7, which 'plate' \(data.held_out_by\) does not have; there are p0"):
        check_held_out(data, [_table(), _table(2)])
    check_held_out(SimpleNamespace(held_out=("p2",), held_out_by="plate"), [_table(2), _table(3)])
    with pytest.raises(ValueError, match=r"data.held_out_by='donor': expected 'image'"):
        check_held_out(SimpleNamespace(held_out=("p2",), held_out_by="donor"), [_table()])


def test_as_many_groups_as_folds_are_enough():
    held_out = [split_rows(_table(), "plate", 0, 0.1, num_folds=3, fold=k)[1].tolist() for k in range(3)]
    assert sorted(held_out) == [list(range(start, start + 32)) for start in (0, 32, 64)]


def test_what_stands_on_each_side_is_told():
    table = _table(2, 2, 3)
    assert describe_split(table, np.arange(9), np.arange(9, 12)) == (
        "train 9 images, 3 wells, 2 plates; validation 3 images, 1 wells, 1 plates"
    )


def test_wells_on_both_sides_are_told():
    """Sites of one well, crops of one field, and the well of another set that names the same plate."""
    table = _table(2, 2, 3).assign(source=lambda table: [f"{row}.tif" for row in range(len(table))])
    assert describe_overlap(table, np.arange(9), np.arange(9, 12)) == []
    said = describe_overlap(table, np.arange(8), np.arange(8, 12))
    assert len(said) == 1
    assert said[0].startswith("1 of 4 validation images are of wells (or crops of fields, where no well is known) that")
    crops = table.assign(well="", site=1, source=lambda table: table["source"].iloc[[0] * 6 + [1] * 6].tolist())
    assert describe_overlap(crops, np.arange(6), np.arange(6, 12)) == []
    assert describe_overlap(crops, np.arange(5), np.arange(5, 12))[0].startswith("1 of 7")


def test_validation_mixes_what_lies_together_the_same_way_on_every_machine():
    rows = np.arange(20, 60)
    order = mixed(rows, 3)
    assert sorted(order) == rows.tolist()
    assert order[:6].tolist() == EXPECTED_ORDER
    assert mixed(rows, 4)[:6].tolist() != EXPECTED_ORDER


EXPECTED_ORDER = [58, 22, 41, 32, 43, 45]


def test_split_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="puts all of 1 groups into validation"):
        split_rows(_table(plates=1), "plate", 0, 0.1)


def _rows(batches, count):
    return [next(batches)["row"].tolist() for _ in range(count)]


def test_every_image_once_an_epoch_in_another_order():
    images, rows = _Images(30), np.arange(3, 27)
    batches = train_batches(images, [rows], [1.0], batch_size=8, seed=0, start_step=0, read_threads=2)
    epochs = [list(itertools.chain(*_rows(batches, 3))) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == rows.tolist()
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_run_across_epochs_and_drop_none():
    batches = train_batches(_Images(10), [np.arange(10)], [1.0], batch_size=4, seed=0, start_step=0, read_threads=1)
    seen = list(itertools.chain(*_rows(batches, 5)))
    assert sorted(seen) == sorted([*range(10), *range(10)])


def test_another_seed_or_set_is_another_order():
    orders = [
        _rows(train_batches(_Images(30), [np.arange(30)], [1.0], 10, seed, start_step=0, read_threads=1), 3)
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1]
    halves = [np.arange(15), np.arange(15, 30)]
    mixed = _rows(train_batches(_Images(30), halves, [1.0, 1.0], 10, seed=0, start_step=0, read_threads=1), 3)
    rows = np.concatenate(mixed)
    assert sorted(rows) == list(range(30))
    assert rows[rows < 15].tolist() != (rows[rows >= 15] - 15).tolist()


@pytest.mark.parametrize("sets", [1, 2])
def test_processes_share_the_batch(sets):
    rows = np.array_split(np.arange(24), sets)

    def batches(share):
        return train_batches(
            _Images(24), rows, [1.0] * sets, 8, seed=0, start_step=0, read_threads=1, share=np.asarray(share)
        )

    alone = _rows(batches(range(8)), 3)
    first, second = _rows(batches([0, 1, 2, 3]), 3), _rows(batches([4, 5, 6, 7]), 3)
    assert [[*a, *b] for a, b in zip(first, second, strict=True)] == alone


@pytest.mark.parametrize("read_threads", [1, 3])
def test_starting_at_a_step_is_going_on(read_threads):
    """Whatever the number of threads then and now."""
    straight = _rows(train_batches(_Images(30), [np.arange(30)], [1.0], 8, seed=5, start_step=0, read_threads=2), 12)
    resumed = train_batches(_Images(30), [np.arange(30)], [1.0], 8, seed=5, start_step=7, read_threads=read_threads)
    assert _rows(resumed, 5) == straight[7:]


def test_pixels_are_those_of_the_row_and_keep_their_type():
    batch = next(train_batches(_Images(30), [np.arange(30)], [1.0], 8, seed=0, start_step=0, read_threads=2))
    assert batch["image"].dtype == np.uint16
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["row"])


def test_eval_batches_have_one_shape_and_weigh_each_image_once():
    rows = np.arange(5, 15)
    batches, whole = zip(*eval_batches(_Images(30), rows, batch_size=4, read_threads=2), strict=True)
    assert np.concatenate(whole).tolist() == rows.tolist()
    assert {batch["image"].shape for batch in batches} == {(4, 2, 2, 1)}
    seen = np.concatenate([batch["row"][batch["weight"] > 0] for batch in batches])
    np.testing.assert_array_equal(seen, rows)
    assert sum(batch["weight"].sum() for batch in batches) == len(rows)
    assert batches[-1]["row"].tolist() == [13, 14, 5, 5]  # no image that was not asked for
    assert len(list(eval_batches(_Images(30), rows, batch_size=5, read_threads=2))) == 2
    share, whole = list(eval_batches(_Images(30), rows, batch_size=4, read_threads=2, share=np.asarray([1, 3])))[-1]
    assert share["row"].tolist() == [14, 5]
    assert share["weight"].tolist() == [1, 0]
    assert whole.tolist() == [13, 14]

import itertools

import numpy as np
import pandas as pd
import pytest

from bie_jax.input_pipeline import eval_batches, split_rows, train_batches


def _table(plates=3, wells=8, sites=4):
    rows = itertools.product(range(plates), range(wells), range(sites))
    return pd.DataFrame([{"plate": f"p{p}", "well": f"A{w:02d}", "site": s} for p, w, s in rows])


class _Images:
    """Images that say their own row."""

    def __init__(self, n):
        self._n = n

    def __len__(self):
        return self._n

    def images(self, rows):
        return np.stack([np.full((2, 2, 1), i, np.uint16) for i in rows])


@pytest.mark.parametrize("split_by", ["image", "well", "plate"])
def test_split_is_a_partition_without_leaks(split_by):
    table = _table()
    train, val = split_rows(table, 0.2, split_by, seed=0)
    assert sorted([*train, *val]) == list(range(len(table)))
    assert 0.2 * len(table) <= len(val) < 0.2 * len(table) + {"image": 1, "well": 4, "plate": 32}[split_by]
    keys = {"image": [], "well": ["plate", "well"], "plate": ["plate"]}[split_by]
    if keys:
        sides = [set(table.iloc[rows][keys].itertuples(index=False)) for rows in (train, val)]
        assert not sides[0] & sides[1]


def test_split_is_the_same_on_every_machine():
    """A hash decides, not a generator whose stream a new version may change; this is its answer."""
    _, val = split_rows(_table(2, 4, 1), 0.25, "well", seed=0)
    assert val.tolist() == EXPECTED_VALIDATION_ROWS
    assert split_rows(_table(2, 4, 1), 0.25, "well", seed=1)[1].tolist() != EXPECTED_VALIDATION_ROWS


EXPECTED_VALIDATION_ROWS = [1, 4]


def test_split_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="puts all 1 plates into validation"):
        split_rows(_table(plates=1), 0.1, "plate", seed=0)


def _rows(batches, count):
    return [next(batches)["row"].tolist() for _ in range(count)]


def test_every_image_once_an_epoch_in_another_order():
    images, rows = _Images(30), np.arange(3, 27)
    batches = train_batches(images, rows, batch_size=8, seed=0, start_step=0, read_threads=2)
    epochs = [list(itertools.chain(*_rows(batches, 3))) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == rows.tolist()
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_run_across_epochs_and_drop_none():
    batches = train_batches(_Images(10), np.arange(10), batch_size=4, seed=0, start_step=0, read_threads=1)
    seen = list(itertools.chain(*_rows(batches, 5)))
    assert sorted(seen) == sorted([*range(10), *range(10)])


@pytest.mark.parametrize("read_threads", [1, 3])
def test_starting_at_a_step_is_going_on(read_threads):
    """Whatever the number of threads then and now."""
    straight = _rows(train_batches(_Images(30), np.arange(30), 8, seed=5, start_step=0, read_threads=2), 12)
    resumed = train_batches(_Images(30), np.arange(30), 8, seed=5, start_step=7, read_threads=read_threads)
    assert _rows(resumed, 5) == straight[7:]


def test_pixels_are_those_of_the_row_and_keep_their_type():
    batch = next(train_batches(_Images(30), np.arange(30), 8, seed=0, start_step=0, read_threads=2))
    assert batch["image"].dtype == np.uint16
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["row"])


def test_eval_batches_have_one_shape_and_weigh_each_image_once():
    rows = np.arange(5, 15)
    batches = list(eval_batches(_Images(30), rows, batch_size=4, read_threads=2))
    assert {batch["image"].shape for batch in batches} == {(4, 2, 2, 1)}
    seen = np.concatenate([batch["row"][batch["weight"] > 0] for batch in batches])
    np.testing.assert_array_equal(seen, rows)
    assert sum(batch["weight"].sum() for batch in batches) == len(rows)

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.rules import check_config
from bie_jax.input.batches import train_batches
from bie_jax.input.positives import Positives, build_positives
from configs import simclr_idr0093

#   two plates x four wells x two sites: a gene in two wells of each plate, one on a plate of its own, one well without
ROWS = [
    (plate, well, site, gene)
    for plate, wells in (
        ("P1", {"A1": "x", "A2": "x", "A3": "y", "A4": ""}),
        ("P2", {"A1": "x", "A2": "y", "A3": "z", "A4": "z"}),
    )
    for well, gene in wells.items()
    for site in (1, 2)
]
METADATA = pd.DataFrame(ROWS, columns=["plate", "well", "site", "gene"]).assign(source="s", set="one")
ALL = np.arange(len(ROWS))


def _told(rows):
    return sorted(ROWS[row][:3] for row in rows)


def _candidates(positives, plate, well, site):
    (row,) = (number for number, known in enumerate(ROWS) if known[:3] == (plate, well, site))
    return _told(positives.candidates(row))


def test_another_site_of_the_well():
    positives = Positives(METADATA, ALL, None)
    assert _candidates(positives, "P1", "A1", 1) == [("P1", "A1", 2)]
    assert _candidates(positives, "P1", "A4", 2) == [("P1", "A4", 1)]


def test_the_treatment_on_another_plate_then_in_another_well_then_itself():
    positives = Positives(METADATA, ALL, "gene")
    assert _candidates(positives, "P1", "A1", 1) == [("P2", "A1", 1), ("P2", "A1", 2)]
    assert _candidates(positives, "P2", "A1", 1) == [("P1", "A1", 1), ("P1", "A1", 2), ("P1", "A2", 1), ("P1", "A2", 2)]
    assert _candidates(positives, "P2", "A3", 1) == [("P2", "A4", 1), ("P2", "A4", 2)]
    assert _candidates(positives, "P1", "A4", 1) == [("P1", "A4", 1)]


def test_what_is_held_out_is_never_shown():
    train = ALL[METADATA["plate"] == "P1"]
    positives = Positives(METADATA, train, "gene")
    assert _candidates(positives, "P1", "A1", 1) == [("P1", "A2", 1), ("P1", "A2", 2)]
    assert _candidates(positives, "P1", "A3", 1) == [("P1", "A3", 1)]
    without_site = ALL[METADATA["site"] == 1]
    assert _candidates(Positives(METADATA, without_site, None), "P1", "A1", 1) == [("P1", "A1", 1)]


def test_sets_are_not_mixed():
    metadata = METADATA.assign(set=np.where(METADATA["plate"] == "P1", "one", "two"))
    assert _candidates(Positives(metadata, ALL, "gene"), "P1", "A3", 1) == [("P1", "A3", 1)]


def test_every_candidate_is_as_likely():
    positives = Positives(METADATA, ALL, "gene")
    rng = np.random.default_rng(0)
    row = ROWS.index(("P2", "A1", 1, "x"))
    drawn = [positives.draw(row, rng) for _ in range(4000)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 4
    np.testing.assert_allclose(counts, 1000, atol=120)


def test_the_line_that_is_printed():
    assert Positives(METADATA, ALL, "gene").describe(ALL) == (
        "second views: 14 of 16 images have another one, 10 of them on another plate"
    )
    assert Positives(METADATA, ALL, None).describe(ALL) == "second views: 16 of 16 images have another one"


def test_as_the_configuration_says():
    config = check_config(simclr_idr0093.get_config("tiny")).data
    assert build_positives(config, METADATA, ALL) is None
    for positives, plates in (("site", {"P1"}), ("treatment", {"P2"})):
        changed = config.model_copy(update={"positives": positives, "treatment": "gene"})
        found = build_positives(changed, METADATA, ALL).candidates(0)
        assert {ROWS[row][0] for row in found} == plates


class _Images:
    """What `train_batches` asks of a mixture: an image is its row's number, cut at its place."""

    def images(self, rows, places):
        where = np.zeros(len(rows)) if places is None else np.floor(places.sum(axis=1) * 100)
        return (np.asarray(rows)[:, None, None, None] + 1000 * where[:, None, None, None]).astype(np.float32)


@pytest.mark.parametrize("sets", [1, 2])
def test_batches_hold_partners_and_go_on_at_any_step(sets):
    positives = Positives(METADATA, ALL, "gene")
    halves = [ALL] if sets == 1 else [ALL[:8], ALL[8:]]

    def batches(start, threads):
        return train_batches(_Images(), halves, [1.0] * sets, 8, 3, start, threads, positives)

    straight = [next(stream) for stream in [batches(0, 2)] for _ in range(7)]
    for batch in straight:
        np.testing.assert_array_equal(batch["positive"][:, 0, 0, 0] % 1000, batch["positive_row"])
        for row, partner in zip(batch["row"], batch["positive_row"], strict=True):
            assert partner in positives.candidates(row)
    stream = batches(4, 1)
    for expected in straight[4:]:
        got = next(stream)
        assert got.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])
    if sets == 2:  # each is cut at a place of its own
        assert (straight[0]["image"] // 1000 != straight[0]["positive"] // 1000).any()

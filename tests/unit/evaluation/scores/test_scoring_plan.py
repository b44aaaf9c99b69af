"""What can be scored is counted by hand here, and said before any feature is there."""

import numpy as np
import pandas as pd
import pytest

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.scores.folds import plan_folds
from bie_jax.evaluation.scores.keys import HELD_OUT, STRATIFIED, UNSEEN
from bie_jax.evaluation.scores.plan import NEIGHBORS, plan_scores
from configs import vqvae_idr0093

OUT = "leave_plate_out"
ALL = {STRATIFIED, OUT, UNSEEN, NEIGHBORS}


def _settings(**changes):
    config = vqvae_idr0093.get_config("tiny")
    config.eval.update({"folds": 3, "probe_control": "a"} | changes)
    return check_config(config).eval


def _set(counts, sides=None):
    """Rows of {(label, plate, well): images}, the first image of each on the side of validation."""
    rows = [(*key, number) for key, count in counts.items() for number in range(count)]
    metadata = pd.DataFrame(rows, columns=["label", "plate", "well", "site"])
    return metadata, np.where(metadata["site"] == 0, "val", "train") if sides is None else sides


def _plan(counts, sides=None, **changes):
    return plan_scores(*_set(counts, sides), _settings(**changes))


FULL = {(label, plate, well): 3 for label in "ab" for plate in ("P1", "P2") for well in (f"{label}1", f"{label}2")}


def _noted(plan, *beginnings):
    assert [note for note in plan.notes if not note.startswith("Fewer than three wells")] == [
        note for beginning in beginnings for note in plan.notes if note.startswith(beginning)
    ]
    assert len(beginnings) == len([note for note in plan.notes if not note.startswith("Fewer than three wells")])


def test_nothing_is_left_out_of_a_full_set():
    plan = _plan(FULL)
    assert set(plan.parts) == ALL
    assert all(len(part.rows) == 24 and part.left_out == {} for part in plan.parts.values())
    assert len(plan.controls) == 12
    assert plan.umap
    _noted(plan)


def test_a_class_with_fewer_images_than_folds():
    plan = _plan(FULL | {("rare", "P1", "r1"): 1, ("rare", "P2", "r1"): 1})
    assert plan.parts[STRATIFIED].left_out == {"rare": 2}
    assert plan.parts[OUT].left_out == {}
    assert plan.parts[UNSEEN].left_out == {"rare": 2}
    assert len(plan.parts[STRATIFIED].rows) == 24
    _noted(plan, "Stratified 3-fold leaves out rare (2 images)", "What the encoder never saw leaves out rare")


def test_what_is_held_out_is_in_no_score_but_its_own():
    """One of three plates: the others are as if there were no third, and it is classified by all of them."""
    three = FULL | {(label, "P3", well): 3 for label in "ab" for well in (f"{label}1", f"{label}2")}
    metadata, sides = _set(three)
    is_held_out = (metadata["plate"] == "P3").to_numpy()
    sides = np.where(is_held_out, "held_out", sides)
    plan, without = plan_scores(metadata, sides, _settings()), _plan(FULL)
    assert set(plan.parts) == ALL | {HELD_OUT}
    for name, part in without.parts.items():
        assert plan.labels[plan.parts[name].rows].tolist() == without.labels[part.rows].tolist()
        assert not is_held_out[plan.parts[name].rows].any()
    assert not is_held_out[plan.controls].any()
    assert len(plan.controls) == len(without.controls)
    (fold,) = plan_folds(plan, _settings())[HELD_OUT]
    np.testing.assert_array_equal(fold.test, np.flatnonzero(is_held_out))
    np.testing.assert_array_equal(fold.train, np.flatnonzero(~is_held_out))


def test_a_class_that_is_held_out_whole_is_not_scored_there():
    metadata, sides = _set(FULL | {(label, "P3", f"{label}1"): 3 for label in "abc"})
    plan = plan_scores(metadata, np.where(metadata["plate"] == "P3", "held_out", sides), _settings())
    assert plan.parts[HELD_OUT].left_out == {"c": 3}
    assert "c" not in plan.labels[plan.parts[STRATIFIED].rows]


def test_a_class_of_one_plate_and_one_of_one_well():
    plan = _plan(FULL | {("one", "P1", "o1"): 4, ("two", "P1", "t1"): 4, ("two", "P1", "t2"): 4})
    assert plan.parts[OUT].left_out == {"one": 4, "two": 8}
    assert plan.parts[NEIGHBORS].left_out == {"one": 4}
    assert (
        "Leave-plate-out leaves out one (4 images), two (8 images): a class needs images of two plates." in plan.notes
    )


@pytest.mark.parametrize(
    ("counts", "changes", "parts", "notes"),
    [
        (
            {("", "P1", "x"): 3, ("", "P2", "x"): 3},
            {},
            set(),
            ("6 images without a label", "The column label holds no"),
        ),
        ({("a", "P1", "x"): 3}, {}, set(), ("The column label holds a single label (a)", "Plate identity is not")),
        (
            {("a", "P1", "x"): 3, ("b", "P1", "y"): 3},
            {},
            {STRATIFIED, UNSEEN},
            ("The set has fewer", "All images come from plate P1: leaving one plate out", "1-NN", "Plate identity"),
        ),
        (
            {("a", "", ""): 3, ("b", "", ""): 3},
            {},
            {STRATIFIED, UNSEEN},
            ("The set has fewer", "No image has a plate: leaving one plate out is", "1-NN", "Plate identity"),
        ),
        ({("a", "P1", "x"): 1, ("b", "P2", "y"): 1}, {}, set(), None),  # a set of two images
        (
            FULL,
            {"probe_control": "no such"},
            ALL,
            ("Plate identity is not scored: negative controls (label = 'no such', config.eval.probe_control) come",),
        ),
        (FULL, {"folds": 13, "probe_control": ""}, {OUT, UNSEEN, NEIGHBORS}, ("Stratified 13-fold is not scored",)),
        ({("a", "P1", "x"): 3}, {"umap": True, "probe_control": ""}, set(), ("The column label", "UMAP is left out")),
        (FULL, {"umap": True, "max_report_points": 3, "probe_control": ""}, ALL, ("UMAP is left out",)),
    ],
)
def test_what_cannot_be_scored_is_said(counts, changes, parts, notes):
    plan = _plan(counts, **changes)
    assert set(plan.parts) == parts
    if notes is not None:
        assert [any(note.startswith(said) for note in plan.notes) for said in notes] == [True] * len(notes)
    assert all(note.endswith(".") and "\n" not in note for note in plan.notes)


def test_more_neighbors_than_there_are_vote_as_far_as_they_go():
    """Of 24 images and 3 in a well 21 are in others; of one of 5 in a larger well 21 of 26."""
    for counts, k, fewest in ((FULL, 21, None), (FULL, 22, 21), (FULL | {("a", "P1", "a1"): 5}, 22, 21)):
        said = [note for note in _plan(counts, knn_k=k).notes if "asks more neighbors than there are" in note]
        assert len(said) == (fewest is not None)
        assert all(note.startswith(f"{k}-NN, not same well,") and f"with {fewest} in" in note for note in said)


def test_images_without_a_plate_are_no_plate():
    plan = _plan(FULL | {("a", "", "x"): 2})
    assert len(plan.parts[OUT].rows) == 24
    assert "2 images without a plate take no part where one plate is left out." in plan.notes
    assert len(plan.controls) == 12


def test_plates_with_too_few_controls_are_left_out():
    alone = {("a", "P3", "x"): 2, ("b", "P3", "x"): 2}
    plan = _plan(FULL | alone)
    assert set(plan.plates[plan.controls]) == {"P1", "P2"}
    assert any(note.startswith("Plate identity leaves out plates with too few negative") for note in plan.notes)
    assert any(note.endswith("P3 (2) images.") for note in plan.notes)
    # A plate with one well and images enough makes folds of images, for which all need as many.
    plan = _plan(FULL | {("a", "P3", "x"): 3, ("a", "P4", "x"): 1, ("a", "P4", "y"): 1})
    assert set(plan.plates[plan.controls]) == {"P1", "P2", "P3"}


def test_many_classes_are_counted_not_listed():
    plan = _plan(FULL | {(f"gene{number:03d}", "P1", "g"): 1 for number in range(300)})
    (note,) = [note for note in plan.notes if note.startswith("Stratified")]
    assert "gene007 (1 image) and 292 more: a class needs" in note
    assert len(plan.parts[STRATIFIED].left_out) == 300


def test_a_column_that_is_not_there():
    metadata, sides = _set(FULL)
    for key in ("label", "group"):
        with pytest.raises(ConfigError, match=rf"config.eval.{key}='moa' is not a column of the metadata; there are"):
            plan_scores(metadata, sides, _settings(**{key: "moa"}))

import numpy as np
import pytest

from bie_jax.evaluation.scores.folds import describe_gaps, leave_group_out_folds, stratified_folds
from tests.unit.evaluation.scores.conftest import strings


def test_stratified_folds_partition_and_keep_shares():
    labels = np.array(["a"] * 40 + ["b"] * 20)
    folds = stratified_folds(labels, 4, seed=1)
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), np.arange(60))
    for fold in folds:
        assert not set(fold.train) & set(fold.test)
        assert (labels[fold.test] == "a").sum() == 10
        assert (labels[fold.test] == "b").sum() == 5


def test_impossible_folds_name_the_label_and_the_count():
    labels = np.array(["common"] * 20 + ["rare"] * 3)
    with pytest.raises(ValueError, match=r"\{'rare': 3\}. Leave those classes out, or set fewer --config.eval.folds"):
        stratified_folds(labels, 5, seed=0)
    with pytest.raises(ValueError, match=r"\{'only': 9\}"):
        stratified_folds(np.array(["only"] * 9), 5, seed=0)
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        stratified_folds(labels, 1, seed=0)
    with pytest.raises(ValueError, match=r"\['p'\]"):
        leave_group_out_folds(labels, np.array(["p"] * 23))
    with pytest.raises(ValueError, match=r"leaving q out.*\{'common': 18\}"):
        leave_group_out_folds(labels, np.array(["p"] * 18 + ["q"] * 5))


def test_no_plate_is_in_train_and_test_at_once():
    rng = np.random.default_rng(0)
    labels, plates = strings(rng, ["a", "b"], 90), strings(rng, ["p", "q", "r"], 90)
    folds = leave_group_out_folds(labels, plates)
    assert [fold.name for fold in folds] == ["p", "q", "r"]
    for fold in folds:
        assert set(plates[fold.test]) == {fold.name}
        assert fold.name not in set(plates[fold.train])
        assert len(fold.train) + len(fold.test) == 90


def test_gaps_between_training_and_test_are_told():
    labels = np.array(["a", "b", "a", "b", "new", "new", "a"])
    plates = np.array(["p", "p", "q", "q", "r", "r", "s"])
    notes = describe_gaps(labels, leave_group_out_folds(labels, plates))
    assert any("Held out r: new occurs nowhere" in note and "2 images" in note for note in notes)
    assert any("Held out s: it holds one class only (a)" in note for note in notes)
    assert not any("Held out p" in note for note in notes)

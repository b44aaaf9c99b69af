import numpy as np
import pytest

from bie_jax.evaluation.scores.interval import bootstrap_interval
from tests.unit.evaluation.scores.conftest import loop_scores


def loop_bootstrap(labels, predictions, wells, resamples, rng):
    """Wells drawn with replacement, within each class if each holds one, one resample and one image at a time."""
    rows_of = {well: [i for i, w in enumerate(wells) if w == well] for well in sorted(set(wells))}
    pure = all(len(set(labels[own])) == 1 for own in rows_of.values())
    strata = [[well for well, own in rows_of.items() if labels[own[0]] == name] for name in sorted(set(labels))]
    values = []
    for _ in range(resamples):
        rows = []
        for members in strata if pure else [list(rows_of)]:
            for well in rng.choice(members, len(members)):
                rows += rows_of[well]
        values.append(np.mean([f1 for *_, f1, _ in loop_scores(labels[rows], predictions[rows])[1]]))
    return np.quantile(values, [0.025, 0.975])


def test_interval_against_resampling_in_a_loop():
    rng = np.random.default_rng(0)
    wells = np.repeat(np.array([f"w{i:02d}" for i in range(24)]), 5)
    labels = np.repeat(np.array(["a", "b", "c"] * 8), 5)
    wrong = np.repeat(rng.random(24) < 0.3, 5) | (rng.random(120) < 0.1)  # whole wells go wrong together
    predictions = np.where(wrong, "a", labels)
    got = bootstrap_interval(labels, predictions, wells, 4000, seed=0)
    expected = loop_bootstrap(labels, predictions, wells, 1500, np.random.default_rng(5))
    np.testing.assert_allclose(got, expected, atol=0.015)  # the error of a 2.5 % quantile of 1500 resamples
    by_image = bootstrap_interval(labels, predictions, np.arange(120).astype(str), 4000, seed=0)
    assert got[1] - got[0] > 1.3 * (by_image[1] - by_image[0])


def test_a_class_that_a_resample_lacks_is_not_in_its_mean():
    """Wells of several classes, one of them in a single well: a third of the resamples have none of it."""
    rng = np.random.default_rng(4)
    wells = np.repeat(np.array([f"w{i:02d}" for i in range(12)]), 6)
    labels = np.where(np.arange(72) % 2, "a", "b")
    labels[:6] = "rare"
    predictions = np.where(rng.random(72) < 0.8, labels, "a")
    got = bootstrap_interval(labels, predictions, wells, 4000, seed=0)
    expected = loop_bootstrap(labels, predictions, wells, 1500, np.random.default_rng(5))
    np.testing.assert_allclose(got, expected, atol=0.015)


def test_interval_of_several_draws_is_that_of_their_mean():
    rng = np.random.default_rng(2)
    labels, wells = np.repeat(np.array(["a", "b"]), 20), np.repeat(np.arange(8), 5)
    draws = np.stack([np.where(rng.random(40) < share, labels, "a") for share in (0.9, 0.5, 0.2)])
    together = bootstrap_interval(labels, draws, wells, 2000, seed=0)
    alone = [bootstrap_interval(labels, draw, wells, 2000, seed=0) for draw in draws]
    assert bootstrap_interval(labels, draws[:1], wells, 2000, seed=0) == alone[0]
    assert bootstrap_interval(labels, draws[[1, 1, 1]], wells, 2000, seed=0) == pytest.approx(alone[1])
    low, high = np.mean(alone, axis=0)
    assert low <= together[0] < together[1] <= high  # the mean of three varies no more than they do


def test_interval_of_perfect_predictions_and_of_wells_with_mixed_labels():
    labels = np.array(["a", "b"] * 10)
    assert bootstrap_interval(labels, labels, np.repeat(np.arange(5), 4), 50, seed=0) == (1.0, 1.0)
    flipped = np.where(labels == "a", "b", "a")
    assert bootstrap_interval(labels, flipped, np.repeat(np.arange(5), 4), 50, seed=0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="got 0"):
        bootstrap_interval(labels, labels, labels, 0, seed=0)


def test_resamples_are_the_same_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    labels, guesses = (rng.choice(list("abcd"), 60) for _ in range(2))
    wells = np.arange(60) // 3
    whole = bootstrap_interval(labels, guesses, wells, 40, 0)
    monkeypatch.setattr("bie_jax.evaluation.scores.interval._NUMBERS_HELD", 20 * 7)  # seven of 20 wells at a time
    assert bootstrap_interval(labels, guesses, wells, 40, 0) == whole


def test_a_thousand_classes_are_resampled_in_little_memory():
    labels = np.repeat([f"gene{number:04d}" for number in range(3000)], 2)
    low, high = bootstrap_interval(labels, labels, np.arange(6000), 20, 0)
    assert low == high == 1.0  # a table of classes by classes for each well would take 430 GB

import numpy as np
import pytest

from bie_jax.evaluation.scores.classification import cross_validate
from bie_jax.evaluation.scores.folds import stratified_folds
from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION
from bie_jax.evaluation.scores.plate_identity import plate_identity


def plate_layout(wells_per_plate=4, images=15):
    plates = np.repeat(np.array(["p", "q", "r"]), wells_per_plate * images)
    wells = np.tile(np.repeat(np.array([f"B{w:02d}" for w in range(wells_per_plate)]), images), 3)
    return plates, wells


def test_plate_identity_finds_a_batch_effect_and_nothing_else():
    rng = np.random.default_rng(0)
    plates, wells = plate_layout()
    noise = rng.normal(size=(len(plates), 4))
    shifted = noise + 4 * np.stack([plates == "q", plates == "r", plates == "s", plates == "s"], axis=1)
    high = plate_identity(shifted, plates, wells, num_folds=5, seed=0)
    low = plate_identity(noise, plates, wells, num_folds=5, seed=0)
    assert high["macro_f1"] > 0.95
    assert abs(low["macro_f1"] - 1 / 3) < 0.12
    assert high["chance"] == 1 / 3
    assert high["split"] == "4 folds of whole wells"


def test_plate_identity_is_not_read_off_the_wells():
    """Each well has its own look, drawn alike on all plates: with wells held out, that tells nothing about plates."""
    rng = np.random.default_rng(0)
    plates, wells = plate_layout(wells_per_plate=12, images=4)
    names, index = np.unique(np.char.add(plates, wells), return_inverse=True)
    features = 5 * rng.normal(size=(len(names), 60))[index] + 0.1 * rng.normal(size=(len(plates), 60))
    grouped = plate_identity(features, plates, wells, num_folds=5, seed=0)
    assert grouped["macro_f1"] < 0.6
    folds = stratified_folds(plates, 5, seed=0)  # the same with images held out instead
    leaking = cross_validate(features, plates, folds, classifiers=(LOGISTIC_REGRESSION,))
    assert (leaking[LOGISTIC_REGRESSION].values == plates).mean() > 0.9


def test_plate_identity_with_one_control_well_says_so():
    rng = np.random.default_rng(0)
    plates, wells = plate_layout(wells_per_plate=1)
    got = plate_identity(rng.normal(size=(len(plates), 3)), plates, wells, num_folds=5, seed=0)
    assert "one control well only" in got["split"]
    with pytest.raises(ValueError, match=r"\{'p': 15\}"):
        plate_identity(np.zeros((15, 1)), plates[:15], wells[:15], num_folds=5, seed=0)
    with pytest.raises(ValueError, match=r"\{'r': 2\}"):
        plate_identity(np.zeros((32, 1)), plates[:32], wells[:32], num_folds=5, seed=0)

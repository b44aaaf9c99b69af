import numpy as np
import pandas as pd
import pytest

from bie_jax.evaluation.profiles import nearest_mechanism as module
from bie_jax.evaluation.profiles.nearest_mechanism import nearest_mechanism


@pytest.fixture
def treatments():
    """Two to three concentrations of 12 compounds of 4 mechanisms, two batches; one mechanism is in one batch alone."""
    rng = np.random.default_rng(0)
    rows = [
        {"compound": f"c{c}", "mechanism": f"m{c % 4}", "batch": f"b{0 if c % 4 == 3 else c // 4 % 2}"}
        for c in range(12)
        for _ in range(2 + c % 2)
    ]
    metadata = pd.DataFrame(rows).sample(frac=1, random_state=1)
    centers = {f"m{m}": rng.normal(size=6) for m in range(4)}
    features = np.stack([centers[m] for m in metadata["mechanism"]]) + 0.7 * rng.normal(size=(len(metadata), 6))
    return features, metadata


@pytest.mark.parametrize("across", [["compound"], ["compound", "batch"]])
@pytest.mark.parametrize("held", [2**22, 70])
def test_not_same_compound_and_batch_against_a_loop(treatments, across, held, monkeypatch):
    monkeypatch.setattr(module, "SIMILARITIES_HELD", held)
    features, metadata = treatments
    rows = metadata.to_dict("records")
    hits, chances, nearest = [], [], []
    for i, row in enumerate(rows):
        allowed = [j for j in range(len(rows)) if all(rows[j][c] != row[c] for c in across)]
        cosine = {
            j: features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j]) for j in allowed
        }
        best = max(allowed, key=lambda j: cosine[j])
        nearest.append(best)
        alike = [rows[j]["mechanism"] == row["mechanism"] for j in allowed]
        if any(alike):
            hits.append(rows[best]["mechanism"] == row["mechanism"])
            chances.append(np.mean(alike))
    found = nearest_mechanism(features, metadata, "mechanism", across)
    np.testing.assert_array_equal(found.nearest, nearest)
    np.testing.assert_allclose([found.accuracy, found.chance], [np.mean(hits), np.mean(chances)])
    assert (found.treatments, found.without_match) == (len(hits), len(rows) - len(hits))
    alone = (metadata["mechanism"] == "m3").to_numpy()
    assert found.without_match == (alone.sum() if "batch" in across else 0)
    np.testing.assert_array_equal(np.isnan(found.correct), alone & ("batch" in across))
    assert found.chance < found.accuracy < 1


def test_a_collapsed_encoder_is_right_as_often_as_chance(treatments):
    _, metadata = treatments
    features = np.full((len(metadata), 7), 0.1) * np.random.default_rng(0).uniform(1, 2, size=(len(metadata), 1))
    found = nearest_mechanism(features, metadata, "mechanism", ["compound"])
    np.testing.assert_allclose(found.accuracy, found.chance)


def test_shuffled_mechanisms_are_found_as_often_as_chance(treatments):
    """No score above chance over 40 shuffles of the mechanisms of compounds."""
    features, metadata = treatments
    compounds = [f"c{c}" for c in range(12)]
    rng = np.random.default_rng(0)
    over = []
    for _ in range(40):
        name = dict(zip(compounds, rng.permutation([f"m{c % 4}" for c in range(12)])))
        shuffled = metadata.assign(mechanism=metadata["compound"].map(name))
        found = nearest_mechanism(features, shuffled, "mechanism", ["compound"])
        over.append(found.accuracy - found.chance)
    assert abs(np.mean(over)) < 3 * np.std(over) / 40**0.5


def test_what_cannot_be_matched_is_told(treatments):
    features, metadata = treatments
    with pytest.raises(ValueError, match="no two treatments of one mechanism differ in mechanism"):
        nearest_mechanism(features, metadata, "mechanism", ["mechanism"])
    with pytest.raises(ValueError, match="at least one column in which the nearest treatment must differ"):
        nearest_mechanism(features, metadata, "mechanism", [])
    # All of one batch: nothing is allowed to anything of it, and the rest is still scored.
    metadata["batch"] = np.where(metadata["compound"] == "c0", "b1", "b0")
    found = nearest_mechanism(features, metadata, "mechanism", ["compound", "batch"])
    lone = metadata.iloc[found.nearest[(metadata["compound"] != "c0").to_numpy()]]
    assert set(lone["compound"]) == {"c0"}

import numpy as np
import pytest

from bie_jax.evaluation.profiles.confounding import in_one_batch_alone
from bie_jax.evaluation.profiles.separability import batch_separability
from tests.unit.evaluation.profiles.conftest import make_plates


def test_neighbors_of_controls_against_a_loop():
    features, metadata, controls = make_plates(controls=8)
    features = features + 1.5 * np.array([int(plate[1]) for plate in metadata["plate"]])[:, None]
    found = batch_separability(features, metadata, ("plate",), controls)
    rows, plates, hits = np.flatnonzero(controls), metadata["plate"].to_numpy(), []
    for i in rows:
        cosine = {
            j: features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j])
            for j in rows
            if j != i
        }
        hits.append(plates[max(cosine, key=lambda j: cosine[j])] == plates[i])
    np.testing.assert_allclose(found.accuracy, np.mean(hits))
    np.testing.assert_allclose(found.chance, 7 / 23)
    assert found.treatments == 24


def test_plates_that_were_treated_alike_are_told_as_often_as_chance():
    shares = []
    for seed in range(20):
        features, metadata, controls = make_plates(plates=4, controls=10, seed=seed)
        shares.append(batch_separability(features, metadata, ("plate",), controls).accuracy - 9 / 39)
    assert abs(np.mean(shares)) < 4 * np.std(shares) / np.sqrt(20)


def test_separability_needs_controls_of_two_batches():
    features, metadata, controls = make_plates()
    with pytest.raises(ValueError, match="no controls"):
        batch_separability(features, metadata, ("plate",), np.zeros(len(metadata), dtype=bool))
    one = controls & (metadata["plate"] == "p1").to_numpy()
    with pytest.raises(ValueError, match="all 6 controls are of plate p1"):
        batch_separability(features, metadata, ("plate",), one)


def test_treatments_in_one_batch_alone_are_found():
    _, metadata, controls = make_plates(treatments=4)
    treated = metadata[~controls].reset_index(drop=True)
    assert not in_one_batch_alone(treated, ("compound",), ("plate",)).any()
    # c1 keeps its wells, all of one plate; c2 has a single well, whose plate says nothing.
    treated.loc[treated["compound"] == "c1", "plate"] = "p0"
    kept = treated[(treated["compound"] != "c2") | (treated["plate"] == "p1")]
    np.testing.assert_array_equal(in_one_batch_alone(kept, ("compound",), ("plate",)), [False, True, False, False])
    assert not in_one_batch_alone(treated.assign(plate="p0"), ("compound",), ("plate",)).any()

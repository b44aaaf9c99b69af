import numpy as np
import pytest

from bie_jax.evaluation.profiles import neighbors as module
from bie_jax.evaluation.profiles.neighbors import most_similar_pairs, nearest_profiles


@pytest.mark.parametrize("held", [2**22, 30])
def test_neighbors_against_a_loop(held, monkeypatch):
    monkeypatch.setattr(module, "SIMILARITIES_HELD", held)
    features = np.random.default_rng(0).normal(size=(25, 4))
    found = nearest_profiles(features, 3)
    for i, row in enumerate(features):
        cosine = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in features]
        others = sorted((j for j in range(25) if j != i), key=lambda j: -cosine[j])[:3]
        np.testing.assert_array_equal(found.rows[i], others)
        np.testing.assert_allclose(found.similarity[i], [cosine[j] for j in others])


def test_equal_neighbors_come_in_their_order_and_no_more_than_there_are():
    found = nearest_profiles(np.ones((5, 2)), 2)
    np.testing.assert_array_equal(found.rows, [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]])
    assert nearest_profiles(np.eye(3), 9).rows.shape == (3, 2)
    with pytest.raises(ValueError, match="3 neighbors among 1 profiles"):
        nearest_profiles(np.ones((1, 2)), 3)


def test_planted_pairs_are_the_most_similar_ones():
    """Precision of the top 40 pairs: 40 pairs of treatments that do the same, among 2,000 that do nothing alike."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 64))
    features[1::50] = features[::50] + 0.3 * rng.normal(size=(40, 64))
    pairs = most_similar_pairs(nearest_profiles(features, 3), 40)
    np.testing.assert_array_equal(np.sort(pairs.rows[:, 0]), np.arange(0, 2000, 50))
    np.testing.assert_array_equal(pairs.rows[:, 1], pairs.rows[:, 0] + 1)
    assert (np.diff(pairs.similarity) <= 0).all()
    assert len(np.unique(pairs.rows, axis=0)) == 40

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from bie_jax.models.quantizers import kmeans as starts

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def kmeans():
    return jax.jit(starts.kmeans, static_argnums=(2, 3))


@pytest.mark.parametrize("offset", [0, 1000, 10_000])
def test_kmeans_finds_the_same_clusters_far_from_the_origin(kmeans, offset):
    data, _ = _clusters(16, 4000)
    far = (data + offset).astype(np.float32)
    near = (far.astype(np.float64) - offset).astype(np.float32)  # exact: what the far ones are
    expected = kmeans(jnp.asarray(near)[:, None], jnp.ones(4000), 16, 5, jax.random.key(0))
    centers, counts, distortion = kmeans(jnp.asarray(far)[:, None], jnp.ones(4000), 16, 5, jax.random.key(0))
    np.testing.assert_array_equal(counts, expected[1])
    np.testing.assert_allclose(centers - offset, expected[0], atol=2e-7 * offset + 1e-5)
    np.testing.assert_allclose(distortion, expected[2], rtol=1e-4)


def _clusters(num_codes, size, code_dim=4, seed=0):
    """Far apart and narrow; each vector's cluster."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % num_codes
    return rng.normal(size=(num_codes, code_dim))[labels] * 20 + rng.normal(size=(size, code_dim)) * 0.1, labels


def test_kmeans_splits_separate_clusters_in_every_group(kmeans):
    groups = [_clusters(32, 512, seed=seed) for seed in (1, 2)]
    vectors = jnp.asarray(np.stack([data for data, _ in groups], axis=1), jnp.float32)
    centers, counts, distortion = kmeans(vectors, jnp.ones(512), 32, 5, jax.random.key(0))
    for g, (data, labels) in enumerate(groups):
        means = np.stack([data[labels == k].mean(axis=0) for k in range(32)])
        found = np.linalg.norm(means[:, None] - np.asarray(centers)[g][None], axis=-1).min(axis=1) < 0.5
        assert found.sum() >= 30
        assert counts[g].sum() == 512
    assert (distortion < 20).all()  # squared distances between clusters are about 3,000


def test_kmeans_ends_at_means_and_as_low_as_scikit_learns(kmeans):
    data = RNG.normal(size=(400, 3)).astype(np.float32)  # no clusters at all
    centers, counts, distortion = kmeans(jnp.asarray(data)[:, None], jnp.ones(400), 8, 50, jax.random.key(0))
    nearest = np.square(data[:, None] - np.asarray(centers[0])[None]).sum(-1)
    np.testing.assert_allclose(distortion[0], nearest.min(1).mean(), rtol=1e-4)
    for k in range(8):
        mine = data[nearest.argmin(1) == k]
        assert len(mine) == counts[0, k]
        np.testing.assert_allclose(centers[0, k], mine.mean(axis=0), atol=1e-4)
    other = KMeans(8, n_init=1, random_state=0).fit(data).inertia_ / 400
    assert distortion[0] < 1.1 * other


def test_kmeans_never_looks_at_vectors_that_do_not_count(kmeans):
    data, _ = _clusters(32, 512)
    data[::2] = 1e4
    counted = jnp.asarray(np.arange(512) % 2, jnp.float32)
    centers, counts, distortion = kmeans(jnp.asarray(data, jnp.float32)[:, None], counted, 32, 5, jax.random.key(0))
    assert np.abs(centers).max() < 100
    assert counts.sum() == 256
    nearest = np.square(data[1::2, None] - np.asarray(centers[0])[None]).sum(-1).min(axis=1)
    np.testing.assert_allclose(distortion[0], nearest.mean(), rtol=1e-2)  # 0.04 of coordinates up to 50, in float32


def test_kmeans_of_fewer_vectors_than_codes_is_finite(kmeans):
    data = RNG.normal(size=(6, 1, 4)).astype(np.float32)
    data[0] = 1e4  # does not count
    centers, counts, distortion = kmeans(data, (np.arange(6) > 0).astype(np.float32), 8, 2, jax.random.key(0))
    assert counts.sum() == 5
    np.testing.assert_allclose(distortion, 0, atol=1e-5)
    distances = np.square(data[1:] - np.asarray(centers)).sum(-1)  # [5, 8]
    assert (distances.min(axis=0) < 1e-5).all()  # every center is some vector

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from bie_jax.models.quantizers import lookup

RNG = np.random.default_rng(0)


def test_relative_distances_are_squared_distances_but_for_a_number_of_each_vector():
    vectors, codebook = RNG.normal(size=(20, 2, 3)), RNG.normal(size=(2, 7, 3))
    expected = [[[sum((v - e) ** 2) for e in codebook[g]] for g, v in enumerate(parts)] for parts in vectors]
    ours = np.asarray(jax.jit(lookup.relative_distances)(vectors, codebook))
    differences = np.asarray(expected) - ours
    np.testing.assert_allclose(differences, np.broadcast_to(differences[..., :1], differences.shape), atol=1e-4)


# Vectors and codes on one side of 0, and codes that the vectors have left, or have not reached.
@pytest.mark.parametrize("code_offset", [0, 30, 1000, 10_000])
@pytest.mark.parametrize("vector_offset", [0, 30, 1000, 10_000])
def test_the_nearest_code_is_that_of_a_loop_in_float64_wherever_the_codebook_lies(look_up, vector_offset, code_offset):
    vectors = (RNG.normal(size=(300, 2, 4)) + vector_offset).astype(np.float32)
    codebook = (RNG.normal(size=(2, 32, 4)) + code_offset).astype(np.float32)
    found = look_up(vectors, np.ones(300, np.float32), codebook)
    exact = np.asarray(
        [
            [[np.square(v - e).sum() for e in codebook[g].astype(float)] for g, v in enumerate(parts)]
            for parts in vectors
        ]
    )
    # Where two codes are as near to the precision of the vectors themselves, either is right.
    excess = np.take_along_axis(exact, np.asarray(found.codes)[..., None], axis=-1)[..., 0] - exact.min(axis=-1)
    apart = np.sqrt(exact.min(axis=-1))
    assert (excess <= 1e-5 * np.maximum(apart, 1)).all()
    assert (np.asarray(found.codes) == exact.argmin(axis=-1)).mean() > 0.995
    shares = lookup.soft_shares(found.relative_distances, np.full(2, 0.5, np.float32))
    weights = np.exp(-(exact - exact.min(axis=-1, keepdims=True)) / (4 * 0.5))
    np.testing.assert_allclose(
        shares, weights / weights.sum(axis=-1, keepdims=True), atol=5e-2 if apart.max() > 99 else 1e-4
    )


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


def test_examples_that_are_not_valid_are_zeros_and_do_not_count():
    z_e = jnp.asarray([[[1.0, 2, 3, 4]] * 2, [[jnp.nan, 6, jnp.inf, 8]] * 2])  # [B, positions, G D]
    vectors, counted = lookup.as_vectors(z_e, jnp.asarray([True, False]), 2, 2)
    np.testing.assert_array_equal(vectors, [[[1, 2], [3, 4]]] * 2 + [[[0, 0], [0, 0]]] * 2)
    np.testing.assert_array_equal(counted, [1, 1, 0, 0])
    everything, counted = lookup.as_vectors(z_e, None, 2, 2)
    np.testing.assert_array_equal(everything.reshape(z_e.shape), z_e)
    np.testing.assert_array_equal(counted, [1, 1, 1, 1])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"5 numbers per vector; num_groups=2 of code_dim=3 take 6"):
        lookup.as_vectors(jnp.zeros((4, 5)), None, 2, 3)
    with pytest.raises(ValueError, match=r"valid is \(3,\) for vectors \(4, 6\)"):
        lookup.as_vectors(jnp.zeros((4, 6)), jnp.ones(3, bool), 2, 3)


def test_perplexity_is_k_for_even_use_and_one_on_collapse():
    perplexity = jax.jit(lookup.perplexity)
    for counts, expected in (
        ([[5.0, 5, 5, 5], [2, 2, 2, 2]], 4),
        ([[0, 9, 0, 0], [7, 0, 0, 0]], 1),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], 1),  # nothing was counted
        ([[4, 4, 0, 0], [1, 1, 1, 1]], (2 + 4) / 2),
    ):
        np.testing.assert_allclose(perplexity(np.asarray(counts, np.float32)), expected, rtol=1e-6)


def test_shares_are_a_softmax_in_units_of_each_groups_distortion():
    distances, distortion = RNG.uniform(size=(5, 2, 3)), np.asarray([0.1, 2.0])
    soft_shares = jax.jit(lookup.soft_shares)
    ours = soft_shares(distances, distortion)
    for m, g in np.ndindex(5, 2):
        weights = [np.exp(-d / (4 * distortion[g])) for d in distances[m, g]]
        np.testing.assert_allclose(ours[m, g], np.asarray(weights) / sum(weights), rtol=1e-5)
    distances[0, 0] = [0.0, 1.0, 1.0]
    np.testing.assert_array_equal(soft_shares(distances, np.zeros(2))[0, 0], [1, 0, 0])


def test_straight_through_is_the_code_to_the_last_bit():
    vectors, nearest = jnp.asarray([[0.1]]), jnp.asarray([[1e-5]])
    np.testing.assert_array_equal(lookup.straight_through(vectors, nearest), nearest)


def test_a_restart_takes_other_vectors_every_time_and_the_same_again():
    counts, vectors = jnp.asarray([[6.0, 0.0, 0.1, 5.9]]), jnp.asarray(RNG.normal(size=(40, 1, 2)), jnp.float32)
    counted = jnp.ones(40).at[20:].set(0)
    plans = [lookup.plan_restart(counts, vectors, counted, jnp.int32(updates), 0.05) for updates in (0, 1, 0)]
    for plan in plans:
        np.testing.assert_array_equal(plan.dead, [[False, True, True, False]])
        np.testing.assert_allclose(plan.even_share, [[3.0]])
        assert {tuple(v) for v in np.asarray(plan.vectors[0])} <= {tuple(v) for v in np.asarray(vectors[:20, 0])}
    np.testing.assert_array_equal(plans[0].vectors, plans[2].vectors)
    assert (np.asarray(plans[0].vectors) != np.asarray(plans[1].vectors)).any()


def test_without_vectors_no_code_is_dead():
    plan = lookup.plan_restart(jnp.asarray([[9.0, 0.0]]), jnp.ones((5, 1, 2)), jnp.zeros(5), jnp.int32(0), 0.05)
    assert not np.asarray(plan.dead).any()


def test_capacity():
    assert lookup.capacity_bits(7 * 7, 4, 512) == 49 * 4 * 9


def _clusters(num_codes, size, code_dim=4, seed=0):
    """Far apart and narrow; each vector's cluster."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % num_codes
    return rng.normal(size=(num_codes, code_dim))[labels] * 20 + rng.normal(size=(size, code_dim)) * 0.1, labels


@pytest.fixture(scope="module")
def look_up():
    return jax.jit(lookup.look_up)


@pytest.fixture(scope="module")
def kmeans():
    return jax.jit(lookup.kmeans, static_argnums=(2, 3))


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


def test_accumulated_calls_are_one_update():
    pending = {"sums": jnp.zeros(2)}
    total, pending, due = lookup.accumulate(pending, {"sums": jnp.asarray([1.0, 2])}, jnp.int32(4), 2)
    assert not due
    total, pending, due = lookup.accumulate(pending, {"sums": jnp.asarray([10.0, 20])}, jnp.int32(5), 2)
    assert due
    np.testing.assert_array_equal(total["sums"], [11, 22])
    np.testing.assert_array_equal(pending["sums"], [0, 0])

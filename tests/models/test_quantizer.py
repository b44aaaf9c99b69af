import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.models.quantizer import VectorQuantizer, squared_distances


def _initialised(quantizer, z, seed=0):
    return quantizer.init(jax.random.key(seed), z, train=False)


def _with_codes(codes, counts=None):
    codes = jnp.asarray(codes, jnp.float32)
    counts = jnp.ones(len(codes)) if counts is None else jnp.asarray(counts, jnp.float32)
    return {
        "codebook": {
            "codebook": codes,
            "cluster_size": counts,
            "embedding_sum": codes * counts[:, None],
            "distortion": jnp.ones(()),
            "updates": jnp.zeros((), jnp.int32),
        }
    }


def test_squared_distances_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    vectors, codebook = rng.normal(size=(50, 3)), rng.normal(size=(7, 3))
    expected = [[sum((v - e) ** 2) for e in codebook] for v in vectors]
    ours = squared_distances(jnp.asarray(vectors), jnp.asarray(codebook))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    itself = squared_distances(jnp.asarray(codebook) * 100, jnp.asarray(codebook) * 100)
    assert (itself >= 0).all()


def test_distortion_is_a_moving_average_of_the_squared_error():
    quantizer = VectorQuantizer(1, 2, ema_decay=0.9)
    _, state = quantizer.apply(
        _with_codes([[0.0, 0.0]]), jnp.asarray([[3.0, 4.0], [0.0, 1.0]]), train=True, mutable=["codebook"]
    )
    np.testing.assert_allclose(state["codebook"]["distortion"], 0.9 * 1 + 0.1 * (25 + 1) / 2, rtol=1e-6)


def test_grid_of_vectors_is_quantised_on_its_last_axis():
    z = jax.random.normal(jax.random.key(1), (2, 3, 5, 4))
    quantizer = VectorQuantizer(num_codes=6, code_dim=4)
    variables = _initialised(quantizer, z)
    z_q, out = quantizer.apply(variables, z, train=False)
    codebook = np.asarray(variables["codebook"]["codebook"])
    assert out["codes"].shape == (2, 3, 5)
    assert out["codes"].dtype == jnp.int32
    for b, i, j in np.ndindex(2, 3, 5):
        distances = ((np.asarray(z[b, i, j]) - codebook) ** 2).sum(-1)
        assert out["codes"][b, i, j] == distances.argmin()
        np.testing.assert_allclose(z_q[b, i, j], codebook[distances.argmin()], atol=1e-6)


def test_loss_is_the_mean_squared_norm_whatever_the_batch_size():
    codes = [[0.0, 0.0], [10.0, 10.0]]
    z = jnp.asarray([[1.0, 2.0]])  # ||z - e||^2 = 5
    for batch in (1, 8, 64):
        quantizer = VectorQuantizer(num_codes=2, code_dim=2, commitment_cost=0.25)
        _, out = quantizer.apply(_with_codes(codes), jnp.repeat(z, batch, axis=0), train=False)
        np.testing.assert_allclose(out["loss"], 0.25 * 5, rtol=1e-6)


def test_vectors_that_are_codes_cost_nothing():
    codes = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    _, out = VectorQuantizer(5, 3).apply(_with_codes(codes), jnp.asarray(codes), train=False)
    assert out["loss"] == 0
    np.testing.assert_array_equal(out["codes"], range(5))
    np.testing.assert_allclose(out["perplexity"], 5, rtol=1e-6)


def test_perplexity_is_one_on_collapse():
    _, out = VectorQuantizer(4, 2).apply(_with_codes(np.eye(4, 2) * 9), jnp.ones((10, 2)) * 9, train=False)
    np.testing.assert_allclose(out["perplexity"], 1, rtol=1e-6)


def test_gradient_goes_straight_through_and_commits_and_never_to_the_codebook():
    codes = np.asarray([[0.0, 0.0], [5.0, 5.0]], np.float32)
    z = jnp.asarray([[0.5, -0.25], [4.0, 6.0]])
    weight = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    quantizer = VectorQuantizer(2, 2, commitment_cost=0.25)
    variables = _with_codes(codes)

    def loss(z, codebook):
        state = {"codebook": variables["codebook"] | {"codebook": codebook}}
        z_q, out = quantizer.apply(state, z, train=False)
        return (weight * z_q).sum(), out["loss"]

    through = jax.grad(lambda z: loss(z, codes)[0])(z)
    np.testing.assert_allclose(through, weight, rtol=1e-6)
    # d/dz of 0.25 * mean over two vectors of ||z - e||^2
    nearest = codes[[0, 1]]
    commits = jax.grad(lambda z: loss(z, codes)[1])(z)
    np.testing.assert_allclose(commits, 0.25 * 2 * (np.asarray(z) - nearest) / 2, rtol=1e-6)
    for term in (0, 1):
        np.testing.assert_array_equal(jax.grad(lambda e: loss(z, e)[term])(jnp.asarray(codes)), 0)  # noqa: B023


def _ema_by_loop(codes, counts, sums, z, decay, epsilon):
    """The update of SPEC 5.1 written out one vector at a time, float64."""
    k_total = len(codes)
    n, total = np.zeros(k_total), np.zeros_like(codes)
    for v in z:
        k = ((v - codes) ** 2).sum(-1).argmin()
        n[k] += 1
        total[k] += v
    counts = decay * counts + (1 - decay) * n
    sums = decay * sums + (1 - decay) * total
    size = counts.sum()
    codes = np.stack([sums[k] / ((counts[k] + epsilon) / (size + k_total * epsilon) * size) for k in range(k_total)])
    return codes, counts, sums


def test_ema_follows_the_equations_over_several_batches():
    rng = np.random.default_rng(3)
    codes = rng.normal(size=(4, 3))
    quantizer = VectorQuantizer(4, 3, ema_decay=0.9, restart_threshold=0.0)
    state = _with_codes(codes)
    expected = (codes, np.ones(4), codes.copy())
    for _ in range(5):
        z = rng.normal(size=(20, 3))
        _, state = quantizer.apply(state, jnp.asarray(z, jnp.float32), train=True, mutable=["codebook"])
        expected = _ema_by_loop(*expected, z, 0.9, quantizer.epsilon)
    for name, value in zip(("codebook", "cluster_size", "embedding_sum"), expected, strict=True):
        np.testing.assert_allclose(state["codebook"][name], value, rtol=1e-4, atol=1e-5)


def test_smoothing_is_never_stored():
    quantizer = VectorQuantizer(3, 2, ema_decay=0.5, restart_threshold=0.0, epsilon=0.5)
    _, state = quantizer.apply(
        _with_codes(np.eye(3, 2) * 4), jnp.asarray([[4.0, 0.0]]), train=True, mutable=["codebook"]
    )
    np.testing.assert_allclose(state["codebook"]["cluster_size"], [1.0, 0.5, 0.5])


def test_identical_batches_pull_the_code_to_their_mean():
    z = jnp.asarray([[1.0, 1.0], [3.0, 3.0]])
    quantizer = VectorQuantizer(1, 2, ema_decay=0.9)
    state = _with_codes([[0.0, 0.0]])
    for _ in range(200):
        _, state = quantizer.apply(state, z, train=True, mutable=["codebook"])
    np.testing.assert_allclose(state["codebook"]["codebook"], [[2.0, 2.0]], rtol=1e-3)


def test_nothing_changes_without_train():
    z = jax.random.normal(jax.random.key(0), (30, 2))
    quantizer = VectorQuantizer(4, 2)
    before = _initialised(quantizer, z)
    _, after = quantizer.apply(before, z, train=False, mutable=["codebook"])
    jax.tree.map(np.testing.assert_array_equal, before["codebook"], after["codebook"])


def test_initialising_does_not_learn():
    z = jax.random.normal(jax.random.key(0), (30, 2))
    state = VectorQuantizer(4, 2).init(jax.random.key(0), z, train=True)["codebook"]
    np.testing.assert_array_equal(state["codebook"], state["embedding_sum"])
    assert state["updates"] == 0


def test_dead_codes_restart_at_vectors_of_the_batch_with_their_averages():
    rng = np.random.default_rng(0)
    codes = np.asarray([[0.0, 0.0], [100.0, 100.0]])
    z = rng.normal(size=(64, 2)).astype(np.float32)
    quantizer = VectorQuantizer(2, 2, ema_decay=0.99, restart_threshold=0.05)
    # the far code is counted as hardly used
    _, state = quantizer.apply(_with_codes(codes, [64.0, 0.5]), jnp.asarray(z), train=True, mutable=["codebook"])
    moved = np.asarray(state["codebook"]["codebook"][1])
    assert np.abs(z - moved).sum(axis=-1).min() < 1e-3
    counts = np.asarray(state["codebook"]["cluster_size"])
    np.testing.assert_allclose(counts[1], (0.99 * 64.5 + 0.01 * 64) / 2, rtol=1e-5)
    np.testing.assert_allclose(state["codebook"]["embedding_sum"][1], counts[1] * moved, rtol=1e-4)


@pytest.mark.parametrize(("num_codes", "dim"), [(512, 64), (16, 16), (32, 64)])
def test_codes_stay_in_use_where_the_predecessor_keeps_one(num_codes, dim):
    """With counts that start at 0, these three cases end with exactly one code in use after 100 steps.

    Normal noise has no clusters: in 64 dimensions a mean of many vectors is nearer to a new vector than any single
    vector is, so some of 512 codes stay unused for good reason, and the bound is a half.
    """
    quantizer = VectorQuantizer(num_codes, dim)
    variables = _initialised(quantizer, jnp.zeros((1, dim)))
    update = jax.jit(lambda v, z: quantizer.apply(v, z, train=True, mutable=["codebook"]))
    used = np.zeros(num_codes, bool)
    for step in range(200):
        (_, out), variables = update(variables, jax.random.normal(jax.random.key(step), (2048, dim)))
        if step >= 100:
            used |= np.asarray(out["code_counts"]) > 0
    assert used.mean() > 0.5


def test_a_codebook_finds_separate_clusters():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(16, 8)) * 10
    quantizer = VectorQuantizer(16, 8, ema_decay=0.9)
    variables = _initialised(quantizer, jnp.zeros((1, 8)))
    update = jax.jit(lambda v, z: quantizer.apply(v, z, train=True, mutable=["codebook"]))
    for _ in range(300):
        z = centres[rng.integers(16, size=512)] + rng.normal(size=(512, 8)) * 0.1
        (_, out), variables = update(variables, jnp.asarray(z, jnp.float32))
    assert (np.asarray(out["code_counts"]) > 0).sum() >= 15


def test_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"3 numbers per vector.*code_dim is 4"):
        VectorQuantizer(2, 4).init(jax.random.key(0), jnp.zeros((1, 3)), train=False)

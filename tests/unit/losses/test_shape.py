import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.losses.shape import non_negativity, reindexed_mse, symmetry, triangle_inequality, zero_diagonal


def distances(*shape: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(*shape, 2))
    return np.linalg.norm(points[..., :, None, :] - points[..., None, :, :], axis=-1)


def broken(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1, size=(*shape, shape[-1]))


def zero_diagonal_loop(d):
    return np.mean([d[i, i] ** 2 for i in range(len(d))])


def symmetry_loop(d):
    return np.mean([(d[i, j] - d[j, i]) ** 2 for i in range(len(d)) for j in range(len(d))])


def non_negativity_loop(d):
    return np.mean([max(0, -d[i, j]) ** 2 for i, j in itertools.permutations(range(len(d)), 2)])


def triangle_inequality_loop(d):
    triples = itertools.permutations(range(len(d)), 3)
    return np.mean([max(0, d[i, k] - d[i, j] - d[j, k]) for i, j, k in triples])


TERMS = [
    (zero_diagonal, zero_diagonal_loop),
    (symmetry, symmetry_loop),
    (non_negativity, non_negativity_loop),
    (triangle_inequality, triangle_inequality_loop),
]


@pytest.mark.parametrize(("term", "loop"), TERMS)
def test_terms_of_broken_matrices_equal_loops(term, loop):
    d = broken(3, 6)
    expected = np.mean([loop(one) for one in d])
    assert expected > 0.1
    found = term(jnp.asarray(d))
    assert found.shape == ()
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(expected, rel=1e-5)
    # More leading axes are more matrices.
    assert float(term(jnp.asarray(d)[:, None])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("term", "loop"), TERMS)
def test_terms_of_true_matrices_are_zero(term, loop):
    d = distances(4, 11)
    d[1] = 0  # all points in one place
    d[2] = np.abs(np.subtract.outer(np.arange(11), np.arange(11)))  # on a line: all triangles are flat
    assert float(term(jnp.asarray(d))) <= 1e-7


@pytest.mark.parametrize(("term", "loop"), TERMS)
def test_gradients_equal_finite_differences(term, loop):
    d = broken(2, 5, seed=1)
    with jax.enable_x64(True):
        gradient = np.asarray(jax.grad(term)(jnp.asarray(d)))
    for at in np.ndindex(d.shape):
        step = np.zeros_like(d)
        step[at] = 1e-6
        expected = sum(loop(a) - loop(b) for a, b in zip(d + step, d - step, strict=True)) / len(d) / 2e-6
        assert gradient[at] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("term", "loop"), TERMS)
def test_gradients_of_nothing_are_zero(term, loop):
    np.testing.assert_array_equal(jax.grad(term)(jnp.zeros((2, 5, 5))), 0)


@pytest.mark.parametrize(("term", "loop"), TERMS)
def test_half_precision_is_summed_in_single(term, loop):
    d = jnp.asarray(broken(3, 6), jnp.bfloat16)
    found = term(d)
    assert found.dtype == jnp.float32
    expected = np.mean([loop(one) for one in np.asarray(d, np.float64)])
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_diagonal_is_not_in_the_other_terms():
    d = distances(2, 5)
    d[:, range(5), range(5)] = -3
    for term in (symmetry, non_negativity, triangle_inequality):
        assert float(term(jnp.asarray(d))) <= 1e-7
    assert float(zero_diagonal(jnp.asarray(d))) == 9


def test_every_matrix_of_a_batch_counts():
    d = distances(3, 5)
    d[2, 1, 3] -= 20
    d[2, 2, 2] = 1
    for term, loop in TERMS:
        assert float(term(jnp.asarray(d))) == pytest.approx(loop(d[2]) / 3, rel=1e-5)
        assert loop(d[2]) > 0.01


@pytest.mark.parametrize("direction", ["value", "gradient"])
def test_triangles_of_256_points_need_little_memory(direction):
    function = triangle_inequality if direction == "value" else jax.grad(triangle_inequality)
    matrices = jax.ShapeDtypeStruct((2, 256, 256), jnp.float32)
    compiled = jax.jit(function).lower(matrices).compile()
    analysis = compiled.memory_analysis()
    used = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    assert used < 2 * 256**3 * 4 / 20


def test_triangles_of_many_points_are_exact():
    rng = np.random.default_rng(0)
    d = distances(1, 40) + rng.normal(0, 0.5, (1, 40, 40))
    excess = d[0][:, None, :] - d[0][:, :, None] - d[0][None, :, :]  # i, j, k
    i, j, k = np.ogrid[:40, :40, :40]
    expected = np.maximum(excess, 0)[(i != j) & (j != k) & (i != k)].mean()
    assert float(triangle_inequality(jnp.asarray(d))) == pytest.approx(expected, rel=1e-5)


def all_reindexings(d: np.ndarray) -> list[np.ndarray]:
    num_points = len(d)
    orders = [(s + sign * np.arange(num_points)) % num_points for s in range(num_points) for sign in (1, -1)]
    return [d[np.ix_(order, order)] for order in orders]


@pytest.mark.parametrize("num_points", [7, 8])
def test_reindexed_error_equals_brute_force(num_points):
    d, d_hat = distances(5, num_points), broken(5, num_points)
    expected = [min(np.square(r - h).mean() for r in all_reindexings(x)) for x, h in zip(d, d_hat, strict=True)]
    found = reindexed_mse(jnp.asarray(d), jnp.asarray(d_hat))
    assert found.shape == (5,)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    found = reindexed_mse(
        jnp.asarray(d[:4].reshape(2, 2, num_points, -1)), jnp.asarray(d_hat[:4].reshape(2, 2, num_points, -1))
    )
    np.testing.assert_allclose(found, np.reshape(expected[:4], (2, 2)), rtol=1e-5)


def test_reindexed_error_of_matrices_that_are_not_symmetric():
    """The sums of their diagonals differ between the two directions."""
    rng = np.random.default_rng(0)
    d, d_hat = rng.random((2, 20, 9, 9))
    expected = [min(np.square(r - h).mean() for r in all_reindexings(x)) for x, h in zip(d, d_hat, strict=True)]
    np.testing.assert_allclose(reindexed_mse(jnp.asarray(d), jnp.asarray(d_hat)), expected, rtol=1e-5)


def test_every_reindexing_of_a_matrix_costs_nothing():
    views = np.stack(all_reindexings(distances(9)))
    d = np.broadcast_to(distances(9), views.shape)
    np.testing.assert_allclose(reindexed_mse(jnp.asarray(d), jnp.asarray(views)), 0, atol=1e-12)
    # Not the matrix of another outline, nor any other permutation.
    other = np.stack([distances(9, seed=1), *([distances(9)[np.ix_(o, o)] for o in [[1, 0, *range(2, 9)]]])])
    assert (reindexed_mse(jnp.asarray(d[:2]), jnp.asarray(other)) > 0.01).all()


def test_reindexed_error_finds_a_small_difference_beside_a_large_mean():
    views = np.stack(all_reindexings(distances(9))) + 3000
    d = np.broadcast_to(distances(9) + 3000, views.shape)
    np.testing.assert_array_equal(reindexed_mse(jnp.asarray(d), jnp.asarray(views)), 0)


@pytest.mark.parametrize("argument", [0, 1])
def test_gradient_of_the_reindexed_error_equals_finite_differences(argument):
    pair = [distances(2, 5), broken(2, 5)]

    def least(d, d_hat):
        return sum(min(np.square(r - h).mean() for r in all_reindexings(x)) for x, h in zip(d, d_hat, strict=True))

    with jax.enable_x64(True):
        gradient = jax.grad(lambda *pair: reindexed_mse(*pair).sum(), argument)(*map(jnp.asarray, pair))
    for at in np.ndindex(2, 5, 5):
        step = [np.zeros((2, 5, 5)), np.zeros((2, 5, 5))]
        step[argument][at] = 1e-6
        higher, lower = (least(pair[0] + sign * step[0], pair[1] + sign * step[1]) for sign in (1, -1))
        assert float(gradient[at]) == pytest.approx((higher - lower) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("call", [*(term for term, _ in TERMS), lambda d: reindexed_mse(d, d)])
def test_refusals(call):
    for shape in ((2, 3, 4), (3,)):
        with pytest.raises(ValueError, match=r"\[\.\.\., P, P\], got"):
            call(jnp.zeros(shape))


def test_other_refusals():
    with pytest.raises(ValueError, match=r"about 3 points, the matrices are \(1, 2, 2\)"):
        triangle_inequality(jnp.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="must be equal"):
        reindexed_mse(jnp.zeros((2, 4, 4)), jnp.zeros((1, 4, 4)))

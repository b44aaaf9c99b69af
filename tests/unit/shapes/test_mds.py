import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.manifold import smacof as sklearn_smacof

from bie_jax.shapes import mds
from bie_jax.shapes.distance_matrix import pairwise_distances
from bie_jax.shapes.mds import classical_mds, points_of_exact, residual_energy, smacof
from bie_jax.shapes.polygon import align

pytestmark = pytest.mark.slow

POINTS = 12
ANGLE = 2 * np.pi * np.arange(POINTS) / POINTS
CIRCLE = np.stack([np.cos(ANGLE), np.sin(ANGLE)], axis=1)


def true_points() -> np.ndarray:
    """[7, 12, 2]: two clouds, a circle, an ellipse of 1 : 1000, a triangle's corners four times, a line, one place."""
    clouds = np.random.default_rng(0).normal(size=(2, POINTS, 2)) * [[[40, 40]], [[0.03, 0.01]]] + 100
    corners = np.repeat([[0, 0], [0, 3], [2, 2]], 4, axis=0)
    line = np.outer(np.arange(POINTS), [1.0, 2.0])
    return np.stack([*clouds, CIRCLE, CIRCLE * [1, 1e-3], corners, line, np.ones((POINTS, 2))])


def noisy(scale: float, seed: int = 0) -> np.ndarray:
    """[7, 12, 12]: as a network predicts them, neither symmetric nor of a zero diagonal."""
    d = pairwise_distances(true_points())
    d /= np.sqrt(np.square(d).mean(axis=(1, 2), keepdims=True)) + 1e-9
    return d + scale * np.random.default_rng(seed).normal(size=d.shape)


def gram(d: np.ndarray) -> np.ndarray:
    centering = np.eye(d.shape[-1]) - 1 / d.shape[-1]
    return -0.5 * centering @ np.square((d + np.swapaxes(d, -1, -2)) / 2) @ centering


def oracle(d: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(gram(d))
    return vectors[..., :-3:-1] * np.sqrt(np.maximum(values[..., None, :-3:-1], 0))


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_points_come_back(convert):
    points = true_points()
    back = classical_mds(convert(pairwise_distances(points)))
    assert type(back) is type(convert(0.0))
    assert back.dtype == (np.float64 if convert is np.asarray else np.float32)
    size = np.maximum(np.ptp(points, axis=1).max(axis=1), 1e-9)[:, None, None]
    error = np.abs(align(np.asarray(back, np.float64), points) - points) / size
    exact, thin = [0, 1, 2, 4, 6], [3, 5]
    assert error[exact].max() < (1e-11 if convert is np.asarray else 1e-5)
    # Points of a line lie beside it by the root of an eigenvalue's rounding.
    assert error[thin].max() < (1e-6 if convert is np.asarray else 2e-3)


@pytest.mark.parametrize("scale", [0.01, 0.3, 5.0])
def test_predicted_matrices_equal_a_full_decomposition(scale):
    d = noisy(scale)
    found = classical_mds(d)
    expected = oracle(d)
    # Up to a rotation for the circle, whose two eigenvalues are close, and to signs elsewhere.
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-7)
    np.testing.assert_allclose(classical_mds(d.reshape(7, 1, 12, 12))[:, 0], found, atol=1e-12)


def test_principal_axes_and_signs():
    found = classical_mds(noisy(0.1))
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((found[..., 0] * found[..., 1]).sum(axis=1), 0, atol=1e-10)
    assert (found[..., 0].var(axis=1) >= found[..., 1].var(axis=1)).all()
    assert (found.max(axis=1) >= -found.min(axis=1)).all()


def test_far_from_a_plane_the_largest_eigenvalues_are_still_found():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(POINTS, POINTS)))[0]
    # What the iteration starts from spans the first two axes, and is orthogonal to all others.
    phase = 2 * np.pi * (np.arange(POINTS) + 0.3) / POINTS
    start = [np.cos(phase) + 0.3 * np.cos(2 * phase), np.sin(phase) + 0.3 * np.sin(2 * phase + 1)]
    aside = np.linalg.qr(np.concatenate([np.stack(start, axis=1), basis], axis=1))[0]
    spectra = np.zeros((4, POINTS))
    spectra[0, :5] = [-9, 4, 3, 1, -2]  # the largest magnitude is negative
    spectra[1, :4] = [2, 1, 7, 5]  # beside the start lies more
    spectra[2, :5] = [5, 3, 3, 3, 1]  # no gap
    spectra[3] = -1 - np.arange(POINTS)  # nothing positive
    grams = np.stack(
        [(axes * values) @ axes.T for axes, values in zip([basis, aside, basis, basis], spectra, strict=True)]
    )
    top_two = jax.jit(mds._top_two)
    with jax.enable_x64(True):  # one by one: each of them has to be doubted for itself
        found = [top_two(jnp.asarray(one[None])) for one in grams]
    axes, values = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    np.testing.assert_allclose(values, [[4, 3], [7, 5], [5, 3], [0, 0]], atol=1e-10)
    image = np.einsum("bpq,bqi->bpi", grams, axes)
    np.testing.assert_allclose(image[:3], (axes * values[:, None])[:3], atol=1e-7)


def test_true_matrices_need_no_full_decomposition(outlines):
    with jax.enable_x64(True):
        *_, certain = jax.jit(mds._subspace_iteration)(jnp.asarray(gram(pairwise_distances(outlines))))
    assert certain.all()
    *_, certain = jax.jit(mds._subspace_iteration)(jnp.asarray(gram(pairwise_distances(outlines)), jnp.float32))
    assert certain.all()


def test_gradient_of_finite_differences():
    # A function of the points that a rotation does not change.
    weights = np.random.default_rng(1).normal(size=(POINTS, POINTS))
    weights = weights + weights.T

    def total(points):
        return (jnp.asarray(weights)[None] * pairwise_distances(points)).sum(axis=(-2, -1))

    d = np.concatenate([noisy(0.0)[:3], noisy(0.1)[:2], noisy(5.0)[:2]])
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        value = jax.jit(lambda d: total(classical_mds(d)))
        gradient = np.asarray(jax.jit(jax.grad(lambda d: total(classical_mds(d)).sum()))(jnp.asarray(d)))
        for _ in range(5):
            step = 1e-5 * rng.normal(size=d.shape)
            expected = (value(jnp.asarray(d + step)) - value(jnp.asarray(d - step))) / 2
            np.testing.assert_allclose((gradient * step).sum(axis=(1, 2)), expected, rtol=1e-4, atol=1e-9)


def test_gradients_are_finite():
    d = jnp.asarray(pairwise_distances(true_points()), jnp.float32)
    gradient = jax.jit(jax.grad(lambda d: jnp.sin(classical_mds(d)).sum()))(d)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_exact_matrices_become_points_without_iteration(unit):
    """Their distances are the matrix again; of what is thinner than 1 : 700, to that."""
    d = pairwise_distances(unit * true_points())
    points = np.asarray(jax.jit(points_of_exact)(jnp.asarray(d)))
    assert points.dtype == np.float32
    np.testing.assert_allclose(points.mean(axis=1), 0, atol=2e-5 * d.max())
    for matrix, found, tolerance in zip(d, points, [1e-5, 1e-5, 1e-5, 2e-3, 1e-5, 2e-3, 0], strict=True):
        np.testing.assert_allclose(pairwise_distances(found), matrix, atol=max(tolerance * matrix.max(), 1e-30))


@pytest.mark.parametrize("num_points", [8, 256])
def test_points_of_a_line_stay_on_it(num_points):
    """What rounding leaves beside a line may have a square below 0: divided by its root it would be anywhere."""
    place = np.random.default_rng(0).normal(size=(64, num_points))
    d = np.abs(place[:, :, None] - place[:, None]).astype(np.float32)
    points = np.asarray(points_of_exact(jnp.asarray(d)))
    np.testing.assert_allclose(pairwise_distances(points), d, atol=1e-3 * d.max())


def test_a_point_in_the_middle_tells_no_direction():
    """B v vanishes for the column of a point at the centroid: another column has to be taken."""
    half = np.random.default_rng(1).normal(size=(15, 2)) * (3, 1)
    d = pairwise_distances(np.concatenate([np.zeros((2, 2)), half, -half])[None])
    points = np.asarray(points_of_exact(jnp.asarray(d, jnp.float32)))
    np.testing.assert_allclose(pairwise_distances(points), d, atol=1e-5 * d.max())


def test_energy_outside_of_the_plane():
    np.testing.assert_allclose(residual_energy(pairwise_distances(true_points())), 0, atol=1e-20)
    d = noisy(0.3)
    values = np.linalg.eigvalsh(gram(d))
    np.testing.assert_allclose(
        residual_energy(d), np.square(values[:, :-2]).sum(axis=1) / np.square(values).sum(axis=1), rtol=1e-8
    )
    # A cube's corners have a third dimension, of the same size as the others.
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), axis=-1).reshape(8, 3)
    assert residual_energy(pairwise_distances(corners)) == pytest.approx(1 / 3)
    assert residual_energy(jnp.asarray(d)).dtype == jnp.float32


def stress(d: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.square(pairwise_distances(points) - d).sum(axis=(1, 2)) / 2


def symmetric(scale: float) -> np.ndarray:
    d = noisy(scale)
    d = np.abs(d + np.swapaxes(d, 1, 2)) / 2
    d[:, range(POINTS), range(POINTS)] = 0
    return d


def test_smacof_equals_that_of_scikit_learn():
    d = symmetric(0.1)
    start = np.random.default_rng(0).normal(size=(7, POINTS, 2))
    found = smacof(d, start, 7)
    for one, one_start, points in zip(d, start, found, strict=True):
        expected, _ = sklearn_smacof(one, init=one_start, n_init=1, max_iter=7, eps=0, normalized_stress=False)
        np.testing.assert_allclose(points, expected, atol=1e-10)


def test_no_iteration_raises_the_stress():
    d = symmetric(0.3)
    start = classical_mds(d)
    by_iteration = [stress(d, smacof(d, start, iterations)) for iterations in (0, 1, 2, 20)]
    for before, after in itertools.pairwise(by_iteration):
        assert (after < before).all()


def test_true_matrices_are_left_alone():
    d = pairwise_distances(true_points())
    points = classical_mds(d)
    np.testing.assert_allclose(smacof(d, points, 10), points, atol=1e-6)
    np.testing.assert_allclose(smacof(d, points + 7, 0), points, atol=1e-6)


def test_smacof_of_predicted_matrices_in_jax():
    d = jnp.asarray(noisy(0.3))
    start = classical_mds(d)
    found = jax.jit(functools.partial(smacof, iterations=20))(d, start)
    assert found.dtype == jnp.float32
    d_used = np.maximum(np.asarray(d + jnp.swapaxes(d, 1, 2), np.float64) / 2, 0) * ~np.eye(POINTS, dtype=bool)
    np.testing.assert_allclose(stress(d_used, found), stress(d_used, smacof(d_used, start, 20)), rtol=1e-3)
    # Points in one place stay together, and nothing becomes NaN.
    together = start.at[:, 1].set(start[:, 0])
    gradient = jax.jit(jax.grad(lambda start: jnp.sin(smacof(d, start, 3)).sum()))(together)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classical_mds(np.ones((3, 4))), r"P >= 2, got \(3, 4\)"),
        (lambda: residual_energy(np.ones((1, 1))), r"P >= 2, got \(1, 1\)"),
        (lambda: smacof(np.ones((3, 3)), np.ones((3, 3)), 1), r"start is \(3, 3\)"),
        (lambda: smacof(np.ones((3, 3)), np.ones((3, 2)), -1), "iterations is -1"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()

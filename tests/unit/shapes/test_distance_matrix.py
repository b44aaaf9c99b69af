import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bie_jax.shapes.distance_matrix import (
    canonical_start,
    cyclic_diagonal_spectrum,
    normalize_scale,
    normalized_distances,
    pairwise_distances,
    reindex,
    reindexing,
)


def random_points(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, 2))


def test_distances_of_a_loop():
    points = random_points(2, 7)
    expected = [[[np.hypot(*(p - q)) for q in outline] for p in outline] for outline in points]
    for given in (points, points.tolist(), points.astype(np.float32)):
        found = pairwise_distances(given)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = jax.jit(pairwise_distances)(jnp.asarray(points))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    rounded = jnp.asarray(points, jnp.bfloat16)
    half = pairwise_distances(rounded)
    assert half.dtype == jnp.bfloat16
    # Rounded once, at the end: to 8 bits.
    np.testing.assert_allclose(half.astype(np.float32), pairwise_distances(np.asarray(rounded, float)), rtol=2**-8)


@pytest.mark.parametrize("num_points", [5, 64, 67])
def test_symmetric_and_zero_on_the_diagonal_to_the_bit(num_points):
    points = 1e3 * random_points(3, num_points) + 1e4
    for found in (pairwise_distances(points), jax.jit(pairwise_distances)(jnp.asarray(points))):
        np.testing.assert_array_equal(found, np.swapaxes(found, -1, -2))
        np.testing.assert_array_equal(np.diagonal(found, axis1=-2, axis2=-1), 0)


def test_a_point_is_at_no_distance_from_itself_in_any_program():
    """Fused with what makes the points, and computed once for each use, 0 was sqrt(1) where two roundings disagreed."""
    points = 30 * random_points(32, 128) + 200

    @jax.jit
    def used_twice(points):
        d = normalized_distances(points.astype(jnp.float32))[0]
        return d, d.sum(axis=(1, 2)), d[:, ::-1, ::-1]

    found, _, reversed_matrix = used_twice(jnp.asarray(points))
    expected = normalized_distances(points)[0]
    np.testing.assert_array_equal(np.diagonal(found, axis1=1, axis2=2), 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(reversed_matrix, expected[:, ::-1, ::-1], atol=1e-5)


def test_whole_numbers_do_not_wrap():
    points = np.asarray([[0, 0], [200, 0]], np.uint8)
    np.testing.assert_array_equal(pairwise_distances(points), [[0, 200], [200, 0]])
    with pytest.raises(ValueError, match="cast it to a float type"):
        pairwise_distances(jnp.asarray(points))


def test_gradient_of_finite_differences_and_zero_on_coincident_points():
    points = random_points(6)
    points[4] = points[1]
    weights = np.random.default_rng(1).normal(size=(6, 6))
    weights[[1, 4], [4, 1]] = 3.0  # of the pair in one place

    def total(points):
        return (weights * pairwise_distances(points)).sum()

    with jax.enable_x64(True):
        gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(points)))
        same_place = jax.jit(jax.grad(lambda p: pairwise_distances(p).sum()))(jnp.ones((4, 2)))
    np.testing.assert_array_equal(same_place, 0)
    for i, axis in np.ndindex(6, 2):
        step = np.zeros_like(points)
        step[i, axis] = 1e-6
        # Central: |x| at 0 has the difference 0.
        expected = (total(points + step) - total(points - step)) / 2e-6
        assert gradient[i, axis] == pytest.approx(expected, abs=1e-6)


def test_distances_do_not_change_with_pose_but_with_the_start():
    points = random_points(9)
    turn = np.asarray([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    d = pairwise_distances(points)
    for moved in (points @ turn, points + np.asarray([3, -8]), points * [1, -1]):
        np.testing.assert_allclose(pairwise_distances(moved), d, atol=1e-12)
    assert np.abs(pairwise_distances(np.roll(points, 1, axis=0)) - d).max() > 0.1


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_scale(convert):
    d = convert(pairwise_distances(random_points(3, 5)) * [[[1]], [[40]], [[0]]])
    normalized, scale = normalize_scale(d)
    assert type(scale) is type(d)
    expected = [np.sqrt(np.square(one).sum()) / 5 for one in np.asarray(d)]
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    assert expected[2] == 0
    np.testing.assert_allclose(np.sqrt(np.square(normalized).sum((1, 2))), [5, 5, 0], rtol=1e-6)
    np.testing.assert_allclose(normalized * np.asarray(scale)[:, None, None], d, rtol=1e-6)
    np.testing.assert_allclose(normalize_scale(3 * d)[0], normalized, rtol=1e-6)


def test_normalized_distances_are_both_in_one():
    points = np.stack([50 * random_points(6) + 9, np.ones((6, 2))])
    expected = normalize_scale(pairwise_distances(points))
    for given in (points, jnp.asarray(points), jnp.asarray(points)[0]):
        found = normalized_distances(given)
        for one, other in zip(found, expected, strict=True):
            assert type(one) is type(given) or np.ndim(one) == 0
            np.testing.assert_allclose(one, other if given.ndim == 3 else other[0], rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: sum(x.sum() for x in normalized_distances(p))))(jnp.ones((4, 2)))
    np.testing.assert_array_equal(gradient, 0)
    with pytest.raises(ValueError, match=r"\[\.\.\., P, 2\], got"):
        normalized_distances(np.ones(4))


def test_gradient_of_the_scale_of_nothing_is_finite():
    gradient = jax.jit(jax.grad(lambda d: sum(x.sum() for x in normalize_scale(d))))(jnp.zeros((2, 3, 3)))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("num_points", [6, 7])
def test_reindex_is_the_matrix_of_the_same_outline(num_points, flip):
    points = random_points(num_points)
    for shift in range(-1, num_points + 1):
        order = [(shift - i if flip else shift + i) % num_points for i in range(num_points)]
        np.testing.assert_array_equal(reindexing(num_points, shift, flip), order)
        np.testing.assert_array_equal(
            reindex(pairwise_distances(points), shift, flip), pairwise_distances(points[order])
        )


def test_reindex_of_a_batch_has_its_own_shifts():
    d = pairwise_distances(random_points(2, 3, 5))
    shift, flip = np.asarray([[0, 1, 2], [3, 4, 5]]), np.asarray([[True, False, True], [False, True, False]])
    for found in (reindex(d, shift, flip), jax.jit(reindex)(jnp.asarray(d), shift, flip)):
        for at in np.ndindex(2, 3):
            np.testing.assert_allclose(found[at], reindex(d[at], shift[at], flip[at]), rtol=1e-6)


@jax.jit
def canonical(d):
    return reindex(d, *canonical_start(d))


@pytest.mark.parametrize(("num_points", "convert"), [(7, np.asarray), (8, np.asarray), (8, jnp.asarray)])
def test_canonical_start_is_the_same_outline_for_all_reindexings(num_points, convert):
    d = pairwise_distances(random_points(num_points))
    shift, flip = (grid.ravel() for grid in np.meshgrid(np.arange(num_points), [False, True]))
    views = convert(reindex(np.broadcast_to(d, (len(shift), *d.shape)), shift, flip))
    found = canonical(views) if convert is jnp.asarray else reindex(views, *canonical_start(views))
    assert type(found) is type(views)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:1], found.shape))
    farthest = np.asarray(found)[0].sum(axis=1)
    assert farthest.argmax() == 0
    assert farthest[1] > farthest[-1]


def test_canonical_start_sums_in_an_order_of_its_own():
    # Two points at the greatest distance in all, whose rows hold the same numbers: added up as they come, rounding
    # would choose between them, differently for every re-indexing.
    upper = np.zeros((6, 6))
    upper[np.triu_indices(6, 1)] = [0.3, 0.7, 0.3, 0.7, 0.1, 0.2, 0.7, 0.1, 0.1, 0.7, 0.4, 0.2, 0.1, 0.4, 0.4]
    d = upper + upper.T
    expected = reindex(d, *canonical_start(d))
    for shift in range(6):
        for flip in (False, True):
            view = reindex(d, shift, flip)
            np.testing.assert_array_equal(reindex(view, *canonical_start(view)), expected)


def test_canonical_start_of_a_loop():
    d = pairwise_distances(random_points(4, 6, seed=3))
    reach = np.sort(d, axis=-1).sum(axis=-1)
    for one, shift, flip in zip(reach, *canonical_start(d), strict=True):
        sequences = [tuple(one[reindexing(6, s, f)]) for f in (False, True) for s in range(6)]
        assert tuple(one[reindexing(6, shift, flip)]) == max(sequences)


def test_canonical_start_of_symmetric_outlines():
    angle = 2 * np.pi * np.arange(8) / 8
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rectangle = pairwise_distances(circle * [3, 1])
    expected = reindex(rectangle, *canonical_start(rectangle))
    for shift in range(8):
        for flip in (False, True):
            view = reindex(rectangle, shift, flip)
            np.testing.assert_allclose(reindex(view, *canonical_start(view)), expected, atol=1e-12)
    assert np.isfinite(reindex(np.zeros((3, 3)), *canonical_start(np.zeros((3, 3))))).all()


@pytest.mark.parametrize("num_points", [6, 7])
def test_spectrum_of_a_loop(num_points):
    d = pairwise_distances(random_points(num_points))
    found = cyclic_diagonal_spectrum(d)
    assert found.shape == (num_points // 2, num_points // 2 + 1)
    for k in range(1, num_points // 2 + 1):
        for w in range(num_points // 2 + 1):
            phases = [d[i, (i + k) % num_points] * np.exp(-2j * np.pi * w * i / num_points) for i in range(num_points)]
            assert found[k - 1, w] == pytest.approx(abs(sum(phases)) / num_points)


def test_spectrum_does_not_change_with_start_direction_and_pose(outlines):
    d = pairwise_distances(outlines)
    expected = cyclic_diagonal_spectrum(d)
    rng = np.random.default_rng(0)
    shift, flip = rng.integers(48, size=len(d)), rng.random(len(d)) < 0.5
    np.testing.assert_allclose(cyclic_diagonal_spectrum(reindex(d, shift, flip)), expected, atol=1e-10)
    mirrored = pairwise_distances(outlines[..., ::-1] + 5)
    np.testing.assert_allclose(cyclic_diagonal_spectrum(mirrored), expected, atol=1e-10)
    in_jax = jax.jit(cyclic_diagonal_spectrum)(jnp.asarray(d))
    assert in_jax.dtype == jnp.float32
    np.testing.assert_allclose(in_jax, expected, atol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # and does change with the shape


@pytest.mark.parametrize(
    "function", [normalize_scale, canonical_start, cyclic_diagonal_spectrum, lambda d: reindex(d, 0, False)]
)
def test_refusals(function):
    for shape in ((3, 4), (3,), (0, 0)):
        with pytest.raises(ValueError, match=r"\[\.\.\., P, P\], got"):
            function(np.ones(shape))
    with pytest.raises(ValueError, match=r"\[\.\.\., P, 2\], got"):
        pairwise_distances(np.ones(4))

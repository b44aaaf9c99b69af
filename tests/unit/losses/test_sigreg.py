from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.integrate import quad
from scipy.special import erf

from bie_jax.losses.sigreg import sigreg, view_spread

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)
SLICES = 6
THERE = np.asarray([1, 0, 1, 1, 1], bool)
ALL, NONE = np.ones(5, bool), np.zeros(5, bool)
EMBEDDING = RNG.normal(size=(5, 4))
VIEWS = RNG.normal(size=(3, 5, 4))  # V, B, D

ours = jax.jit(sigreg, static_argnames=("num_slices", "num_knots", "largest"))
ours_and_gradient = jax.jit(jax.value_and_grad(partial(sigreg, num_slices=SLICES), argnums=1))
spread = jax.jit(view_spread)
spread_and_gradient = jax.jit(jax.value_and_grad(view_spread))


def _directions(dimensions, num_slices):
    """The function draws normal vectors with its key; here they get their length in float64, one by one."""
    drawn = np.asarray(jax.random.normal(KEY, (dimensions, num_slices)), float)
    return [column / np.sqrt(sum(column**2)) for column in drawn.T]


def _sigreg_by_loops(embedding, there, num_slices=SLICES, num_knots=17, largest=3.0):
    """A trapezoid at a time, on both sides of 0."""

    def integrand(t, projections):
        mean = np.mean([np.exp(1j * t * projection) for projection in projections])
        return abs(mean - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    statistics = []
    for a in _directions(embedding.shape[1], num_slices):
        values = [integrand(t, embedding[there] @ a) for t in np.linspace(-largest, largest, 2 * num_knots - 1)]
        step = largest / (num_knots - 1)
        statistics.append(sum(step * (left + right) / 2 for left, right in pairwise(values)))
    return np.mean(statistics)


def _spread_by_loops(views, there):
    squares = [
        (views[v, i, d] - np.mean([view[i, d] for view in views])) ** 2
        for v, i, d in np.ndindex(views.shape)
        if there[i]
    ]
    return np.mean(squares)


def _integral(characteristic, largest=3.0):
    """Of a real characteristic function, by adaptive quadrature."""

    def integrand(t):
        return (characteristic(t) - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    return quad(integrand, -largest, largest)[0]


def test_sigreg_against_a_loop():
    for there in (THERE, ALL):
        np.testing.assert_allclose(ours(KEY, EMBEDDING, there, SLICES), _sigreg_by_loops(EMBEDDING, there), rtol=1e-5)
    other = {"num_slices": 3, "num_knots": 9, "largest": 4.0}
    np.testing.assert_allclose(ours(KEY, EMBEDDING, ALL, **other), _sigreg_by_loops(EMBEDDING, ALL, **other), rtol=1e-5)


def test_sigreg_of_a_constant_has_a_closed_form():
    """Integral of (1 - exp(-t^2 / 2))^2 exp(-t^2 / 2): of three normal curves."""

    def closed(largest):
        halves = [(1, 1 / 2), (-2, 1), (1, 3 / 2)]  # factor and rate of exp(-rate t^2)
        return sum(factor * np.sqrt(np.pi / rate) * erf(largest * np.sqrt(rate)) for factor, rate in halves)

    np.testing.assert_allclose(closed(3.0), _integral(lambda t: 1.0), rtol=1e-8)
    np.testing.assert_allclose(closed(np.inf), np.sqrt(2 * np.pi) * (1 - np.sqrt(2) + 1 / np.sqrt(3)), rtol=1e-12)
    zeros = np.zeros((5, 4))
    # The trapezoid of 16 steps errs by step^2 / 12 times the difference of slopes at the ends, 0.033 each.
    np.testing.assert_allclose(ours(KEY, zeros, ALL, SLICES), closed(3.0), atol=3e-4)
    np.testing.assert_allclose(ours(KEY, zeros, ALL, 2, num_knots=1025), closed(3.0), rtol=1e-5)
    np.testing.assert_allclose(ours(KEY, zeros, ALL, 2, num_knots=257, largest=12.0), closed(np.inf), rtol=1e-5)


@pytest.mark.parametrize("place", [0.5, 1.0, 2.0])
def test_sigreg_of_two_points_on_a_line(place):
    """Half at -a and half at a: the characteristic function is cos(a t), and all directions of a line are the same."""
    points = np.asarray([place, -place, place, -place])[:, None]
    there, expected = np.ones(4, bool), _integral(lambda t: np.cos(place * t))
    np.testing.assert_allclose(ours(KEY, points, there, SLICES), expected, atol=1e-3)
    np.testing.assert_allclose(ours(KEY, points, there, SLICES, num_knots=513), expected, rtol=1e-4)


def test_slices_look_from_every_side():
    """Two points on an axis of space: a component of a random unit vector is uniform in [-1, 1] (Archimedes)."""
    points = np.asarray([[0, 2.0, 0], [0, -2.0, 0]])
    expected = quad(lambda a: _integral(lambda t: np.cos(2 * a * t)), 0, 1, epsabs=1e-6)[0]
    value = ours(KEY, points, np.ones(2, bool), 4096)
    np.testing.assert_allclose(value, expected, rtol=0.04)  # three standard errors
    other = ours(jax.random.key(4), points, np.ones(2, bool), 16)
    assert other != ours(KEY, points, np.ones(2, bool), 16)


def test_normal_embeddings_cost_little():
    """In the mean integral of (1 - exp(-t^2)) exp(-t^2 / 2) / N: without the published factor N it falls with N."""
    expected = quad(lambda t: (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), -3, 3)[0]
    for count in (128, 1024):
        rows = RNG.normal(size=(count, 8))
        value = ours(KEY, rows, np.ones(count, bool), 32)
        assert 0.7 < value * count / expected < 1.4
        assert ours(KEY, 2 * rows, np.ones(count, bool), 32) > 0.05
        assert ours(KEY, rows + 1, np.ones(count, bool), 32) > 0.05


def test_twice_the_same_batch_costs_what_it_costs_once():
    twice = ours(KEY, np.tile(EMBEDDING, (2, 1)), np.ones(10, bool), SLICES)
    np.testing.assert_allclose(twice, ours(KEY, EMBEDDING, ALL, SLICES), rtol=1e-5)


def test_the_gradient_vanishes_at_a_collapse():
    def gradient(embedding):
        return np.asarray(ours_and_gradient(KEY, embedding, ALL)[1])

    zeros = np.zeros((5, 4), np.float32)
    assert ours(KEY, zeros, ALL, SLICES) > 0.2
    np.testing.assert_array_equal(gradient(zeros), 0)
    # Elsewhere a collapse is moved as a whole.
    together = gradient(zeros + 1)
    assert np.abs(together).max() > 1e-3
    np.testing.assert_allclose(together, np.broadcast_to(together[:1], (5, 4)), rtol=1e-5)
    # Rows a little apart are driven apart: downhill they gain length.
    little = 0.01 * (EMBEDDING - EMBEDDING.mean(axis=0))
    assert (gradient(little) * little).sum() < 0


def test_projections_a_period_apart_are_not_told_apart():
    points = RNG.normal(size=(5, 1))
    period = 2 * np.pi * 16 / 3
    np.testing.assert_allclose(ours(KEY, points + period, ALL, 1), ours(KEY, points, ALL, 1), rtol=1e-4)
    assert ours(KEY, points + period / 2, ALL, 1) > ours(KEY, points, ALL, 1) + 0.1


def test_the_spread_of_views_against_a_loop():
    for there in (THERE, ALL):
        np.testing.assert_allclose(spread(VIEWS, there), _spread_by_loops(VIEWS, there), rtol=1e-5)
    np.testing.assert_allclose(spread(VIEWS, ALL), np.var(VIEWS, axis=0).mean(), rtol=1e-5)
    same = np.broadcast_to(EMBEDDING, (3, 5, 4))
    np.testing.assert_allclose(spread(same, ALL), 0, atol=1e-12)


def test_gradients_are_those_of_the_definition_in_float64():
    _, by_embedding = ours_and_gradient(KEY, EMBEDDING, THERE)
    _, by_views = spread_and_gradient(VIEWS, THERE)
    cases = [
        (EMBEDDING, by_embedding, lambda x: _sigreg_by_loops(x, THERE)),
        (VIEWS, by_views, lambda x: _spread_by_loops(x, THERE)),
    ]
    for x, gradient, loop in cases:
        for i in RNG.permutation(list(np.ndindex(x.shape)))[:12]:
            change = np.zeros_like(x)
            change[tuple(i)] = 1e-6
            expected = (loop(x + change) - loop(x - change)) / 2e-6
            np.testing.assert_allclose(gradient[tuple(i)], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("missing", [np.nan, np.inf, 100.0])
def test_what_is_not_there_changes_nothing(missing):
    embedding, views = (np.where(THERE[:, None], x, missing) for x in (EMBEDDING, VIEWS))
    cases = [
        (ours_and_gradient(KEY, EMBEDDING, THERE), ours_and_gradient(KEY, embedding, THERE)),
        (spread_and_gradient(VIEWS, THERE), spread_and_gradient(views, THERE)),
    ]
    for (value, gradient), (other_value, other_gradient) in cases:
        assert value == other_value
        np.testing.assert_array_equal(gradient, other_gradient)
        np.testing.assert_array_equal(np.asarray(gradient)[..., ~THERE, :], 0)
        assert np.asarray(gradient)[..., THERE, :].all()


def test_no_image_costs_nothing_and_has_no_gradient():
    for value, gradient in (ours_and_gradient(KEY, EMBEDDING, NONE), spread_and_gradient(VIEWS, NONE)):
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


def test_the_order_of_images_does_not_matter():
    order = RNG.permutation(5)
    expected = ours(KEY, EMBEDDING, THERE, SLICES)
    np.testing.assert_allclose(ours(KEY, EMBEDDING[order], THERE[order], SLICES), expected, rtol=1e-5)
    np.testing.assert_allclose(spread(VIEWS[:, order], THERE[order]), spread(VIEWS, THERE), rtol=1e-6)


def test_half_precision_is_summed_in_float32():
    embedding, views = jnp.asarray(EMBEDDING, jnp.bfloat16), jnp.asarray(VIEWS, jnp.bfloat16)
    for value, expected in [
        (ours(KEY, embedding, ALL, SLICES), ours(KEY, embedding.astype(jnp.float32), ALL, SLICES)),
        (spread(views, ALL), spread(views.astype(jnp.float32), ALL)),
    ]:
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.eight_devices
def test_the_batch_is_that_of_all_devices():
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    images, views = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), (None, "data")))
    embedding, there = jax.device_put((EMBEDDING[:4].astype(np.float32), THERE[:4]), images)
    np.testing.assert_allclose(
        ours(KEY, embedding, there, SLICES), _sigreg_by_loops(EMBEDDING[:4], THERE[:4]), rtol=1e-5
    )
    split = jax.device_put(VIEWS[:, :4].astype(np.float32), views)
    np.testing.assert_allclose(spread(split, there), _spread_by_loops(VIEWS[:, :4], THERE[:4]), rtol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"embedding is \(5, 4\), there is \(4,\)"):
        sigreg(KEY, EMBEDDING, ALL[:4], SLICES)
    for wrong in ({"num_slices": 0}, {"num_knots": 1}, {"largest": 0.0}):
        with pytest.raises(ValueError, match="at least 1 slice, at least 2 knots and a largest above 0"):
            sigreg(KEY, EMBEDDING, ALL, **{"num_slices": SLICES, **wrong})
    with pytest.raises(ValueError, match=r"embeddings are \(5, 4\)"):
        view_spread(EMBEDDING, ALL)
    with pytest.raises(ValueError, match="1 view of an image is its own mean"):
        view_spread(VIEWS[:1], ALL)

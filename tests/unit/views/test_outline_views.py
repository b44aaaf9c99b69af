"""The two views of an outline, held against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from bie_jax.losses.shape import reindexed_mse
from bie_jax.shapes.polygon import signed_area
from bie_jax.shapes.resample import resample_contour
from bie_jax.views import outlines as outline_views

pytestmark = pytest.mark.slow

POINTS = 64


def _config(points=16, **changes):
    settings = {"reindex": "none", "noise": 0.0, "stretch": 0.0, "unevenness": 0.0} | changes
    return ConfigDict({"crop_size": (points, points), "outline": settings})


@pytest.fixture(scope="module")
def outlines():
    """[6, 64, 2, 1]: bent ellipses with a bump, at equal steps."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(400) / 400
    made = []
    for _ in range(6):
        waves = [rng.uniform(0, 8) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 4)]
        radius = 25 + sum(waves)
        points = np.stack([radius * np.sin(angle), rng.uniform(1, 2.5) * radius * np.cos(angle)], axis=1)
        made.append(resample_contour(points + rng.normal(0, 100, 2), POINTS))
    return jnp.asarray(np.stack(made)[..., None], jnp.float32)


def _train(outlines, seed=0, **changes):
    return np.asarray(outline_views.train_view(jax.random.key(seed), outlines, None, None, _config(**changes)))


def _eval(outlines):
    return np.asarray(outline_views.eval_view(outlines, None, None, (16, 16), _config()))


def test_the_view_of_validation_is_the_distance_matrix_of_every_fourth_point(outlines):
    points = np.asarray(outlines)[:, ::4, :, 0].astype(np.float64)
    loops = np.asarray([[[np.hypot(*(p - q)) for q in outline] for p in outline] for outline in points])
    loops /= np.sqrt(np.mean(loops**2, axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(_eval(outlines)[..., 0], loops, atol=2e-5)


def test_without_changes_both_views_are_one(outlines):
    np.testing.assert_allclose(_train(outlines), _eval(outlines), atol=2e-5)


@pytest.mark.parametrize(
    "change", [{"reindex": "start"}, {"noise": 0.01}, {"stretch": 0.01}, {"unevenness": 0.01}], ids=str
)
def test_each_change_that_is_asked_for_is_made(outlines, change):
    assert np.abs(_train(outlines, **change) - _eval(outlines)).max() > 1e-3


def test_only_the_form_is_seen(outlines):
    """Moved, turned, mirrored and enlarged outlines are the same to a network."""
    turn = np.array([[0.6, 0.8], [0.8, -0.6]], np.float32)  # a reflection
    other = jnp.asarray(3 * np.asarray(outlines)[..., 0] @ turn + 50)[..., None]
    np.testing.assert_allclose(_eval(other), _eval(outlines), atol=1e-4)


def test_reindexing_really_shifts_and_reverses(outlines):
    """Each view is one of the outline's own: from another point, in one of both directions, never the same for all."""
    seen = _train(outlines, reindex="start_and_direction")
    assert np.abs(seen - _eval(outlines)).max() > 0.1
    fine = np.asarray(outline_views.eval_view(outlines, None, None, (64, 64), None))[..., 0]
    directions = set()
    for view, matrix in zip(seen[..., 0], fine, strict=True):
        errors = {
            (shift, sign): np.abs(view - matrix[np.ix_(order, order)]).max()
            for shift in range(64)
            for sign in (1, -1)
            for order in [(shift + sign * 4 * np.arange(16)) % 64]
        }
        best = min(errors, key=errors.get)
        assert errors[best] < 0.1  # starts lie between points; other indexings are several tenths away
        directions.add(best)
    assert len({sign for _, sign in directions}) == 2
    assert len(directions) == len(seen)


def test_a_random_start_keeps_the_direction(outlines):
    """Of every view, the same point order the other way round is further away."""
    fine = np.asarray(outline_views.eval_view(outlines, None, None, (64, 64), None))[..., 0]
    for seed in range(3):
        for view, matrix in zip(_train(outlines, seed, reindex="start")[..., 0], fine, strict=True):
            order = np.arange(64)[:, None] + 4 * np.arange(16)
            errors = {
                sign: min(np.abs(view - matrix[np.ix_(sign * at % 64, sign * at % 64)]).max() for at in order)
                for sign in (1, -1)
            }
            assert errors[1] < 0.7 * errors[-1]  # a start lies between points


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.9])
def test_uneven_points_keep_their_order_and_their_steps_their_bounds(amount):
    moved = np.asarray(outline_views.uneven_places(jax.random.key(1), 200, 64, amount)) + np.arange(64) / 64
    steps = np.diff(np.concatenate([moved, moved[:, :1] + 1], axis=1)) * 64
    assert steps.min() >= 1 - amount - 1e-3
    assert steps.max() <= 1 + amount + 1e-3
    assert steps.std() > 0.1 * amount


def test_a_stretch_keeps_the_area_and_the_axes_bound_it(outlines):
    points = outlines[..., 0]
    stretched = outline_views.random_stretch(jax.random.key(2), points, 0.3)
    np.testing.assert_allclose(signed_area(np.asarray(stretched)), signed_area(np.asarray(points)), rtol=1e-4)
    matrices = [
        np.linalg.lstsq(np.asarray(a) - np.asarray(a).mean(0), np.asarray(b) - np.asarray(b).mean(0))[0]
        for a, b in zip(points, stretched, strict=True)
    ]
    for matrix in matrices:
        large, small = np.linalg.svd(matrix)[1]
        assert large * small == pytest.approx(1, abs=1e-3)
        assert large <= np.exp(0.3) + 1e-3
    assert len({round(float(np.linalg.svd(matrix)[1][0]), 3) for matrix in matrices}) > 3


def test_noise_has_the_size_it_is_said_to_have():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 7, (500, 64, 2))
    points = jnp.asarray(points - points.mean(axis=1, keepdims=True), jnp.float32)
    moved = outline_views.random_noise(jax.random.key(3), points, 0.05)
    radius = np.sqrt(np.square(points).sum(-1).mean(-1))[:, None, None]
    change = np.asarray(moved - points) / radius
    assert change.std() == pytest.approx(0.05, rel=0.05)
    np.testing.assert_allclose(change.mean(axis=1), 0, atol=1e-4)  # it moves nothing as a whole
    neighbors = (change[:, 1:] * change[:, :-1]).mean() / np.square(change).mean()
    assert neighbors > 0.8  # smooth


def test_views_are_drawn_by_the_key_alone(outlines):
    settings = {"points": 64, "reindex": "start_and_direction", "noise": 0.01, "stretch": 0.02, "unevenness": 0.1}
    one, same, other = (_train(outlines, seed, **settings) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    # A view is still of its own outline: nearer to it than to the others, up to its indexing.
    clean = outline_views.eval_view(outlines, None, None, (64, 64), None)[..., 0]
    error = np.asarray([reindexed_mse(jnp.broadcast_to(view, clean.shape), clean) for view in one[..., 0]])
    assert (error.argmin(axis=1) == np.arange(6)).all()

import itertools

import numpy as np
import pytest

from bie_jax.shapes.polygon import signed_area
from bie_jax.shapes.resample import resample_contour, resample_linear

SQUARE = np.asarray([[0, 0], [0, 3], [3, 3], [3, 0]], float)  # clockwise on the screen


def walked(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Points at lengths of arc from the first point, segment by segment."""
    closed = [*points, points[0]]
    found = []
    for target in targets:
        for a, b in itertools.pairwise(closed):
            length = np.hypot(*(b - a))
            if target <= length:
                found.append(a + (b - a) * (target / length if length else 0))
                break
            target -= length
    return np.asarray(found)


def length(points: np.ndarray) -> float:
    return np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1).sum()


def test_square_by_hand():
    expected = [[0, 0], [0, 2], [1, 3], [3, 3], [3, 1], [2, 0]]
    np.testing.assert_allclose(resample_contour(SQUARE, 6), expected, atol=1e-12)


def test_linear_equals_a_walk():
    points = np.random.default_rng(0).normal(size=(17, 2))
    points = points if signed_area(points) > 0 else points[::-1]
    expected = walked(points, length(points) * np.arange(23) / 23)
    np.testing.assert_allclose(resample_contour(points, 23), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "spline", "ray"])
def test_same_outline_however_it_is_written(outlines, method):
    points = outlines[1]
    expected = resample_contour(points, 20, method)
    assert expected.shape == (20, 2)
    assert expected.dtype == np.float64
    np.testing.assert_allclose(expected[0], points[0], atol=1e-9)
    reverse = np.concatenate([points[:1], points[:0:-1]])
    closed = np.concatenate([points, points[:1]])
    repeated = np.repeat(points, 3, axis=0)
    for other in (reverse, closed, repeated, closed[::-1], points.astype(np.float32).tolist()):
        np.testing.assert_allclose(resample_contour(other, 20, method), expected, atol=1e-4)


@pytest.mark.parametrize("method", ["linear", "spline"])
def test_first_point_is_not_repeated_and_steps_are_equal(method):
    angle = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 400))
    circle = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    points = resample_contour(circle, 50, method)
    steps = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    np.testing.assert_allclose(steps, 2 * np.sin(np.pi / 50), rtol=2e-3)


def test_spline_comes_nearer_to_a_curve_than_chords():
    angle = 2 * np.pi * np.arange(12) / 12
    circle = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    radius = {m: np.linalg.norm(resample_contour(circle, 100, m), axis=1) for m in ("linear", "spline")}
    assert np.abs(radius["spline"] - 1).max() < 1e-3  # fourth order: (2 pi / 12)^4 / 384 = 2e-4
    assert np.abs(radius["linear"] - 1).max() > 0.03


def test_spline_steps_are_equal_where_knots_are_not():
    angle = np.asarray([0, 0.3, 0.6, 0.9, 2.5, 2.6, 2.7, 4.6])
    points = resample_contour(np.stack([np.sin(angle), 3 * np.cos(angle)], axis=1), 1000, "spline")
    steps = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=5e-3)


def test_spline_has_no_seam():
    # The same circle from another start: the curve does not know where it begins.
    angle = 2 * np.pi * np.arange(8) / 8
    ellipse = np.stack([np.sin(angle), 3 * np.cos(angle)], axis=1)
    points = resample_contour(ellipse, 64, "spline")
    shifted = resample_contour(np.roll(ellipse, -2, axis=0), 64, "spline")
    np.testing.assert_allclose(np.roll(points, -16, axis=0), shifted, atol=1e-3)


def test_rays_meet_an_ellipse_where_they_should():
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    ellipse = np.stack([2 * np.sin(angle) + 7, 5 * np.cos(angle) - 3], axis=1)
    points = resample_contour(ellipse, 36, "ray") - [7, -3]
    ray = 2 * np.pi * np.arange(36) / 36
    np.testing.assert_allclose(np.arctan2(points[:, 0], points[:, 1]) % (2 * np.pi), ray, atol=1e-6)
    radius = 10 / np.hypot(2 * np.cos(ray), 5 * np.sin(ray))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), radius, rtol=1e-5)


def test_rays_end_at_the_last_crossing():
    # A staple open downwards: the centroid is between its legs, outside, and a ray down meets nothing.
    staple = np.asarray([[0, 0], [0, 6], [9, 6], [9, 5], [1, 5], [1, 1], [9, 1], [9, 0]], float)
    points = resample_contour(staple, 3600, "ray")
    center = np.asarray([(6 * 0.5 + 16 * 5) / 22, 3])
    offset = points - center
    right, down = (
        np.argmin(np.linalg.norm(offset / np.linalg.norm(offset + 1e-12, axis=1)[:, None] - d, axis=1))
        for d in ([0, 1], [1, 0])
    )
    np.testing.assert_allclose(points[right], [center[0], 6], atol=0.02)
    assert (np.linalg.norm(offset, axis=1) < 1e-12).sum() > 100
    assert offset[down, 0] < 9 - center[0] + 1e-9


@pytest.mark.parametrize("method", ["linear", "spline", "ray"])
@pytest.mark.parametrize(
    "points",
    [
        SQUARE[:3],
        np.asarray([[0, 0], [4, 4], [0, 0]], float),  # a line, closed
        np.asarray([[0, 0], [1, 0], [2, 0], [1, 0]], float),
        np.asarray([[0, 0], [4, 4], [0, 4], [4, 0]], float),  # crosses itself; its area is zero
        SQUARE + 1e6,
    ],
)
def test_ordinary_trouble_gives_points(points, method):
    found = resample_contour(points, 16, method)
    assert found.shape == (16, 2)
    assert np.isfinite(found).all()
    reach = np.ptp(points, axis=0).max()
    assert (found >= points.min(axis=0) - reach).all()
    assert (found <= points.max(axis=0) + reach).all()


@pytest.mark.parametrize("method", ["linear", "spline", "ray"])
def test_a_hundred_thousand_points(method):
    angle = 2 * np.pi * np.arange(100_000) / 100_000
    radius = 100 * (1 + 0.2 * np.cos(3 * angle))
    points = resample_contour(np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1), 64, method)
    at = np.arctan2(points[:, 0], points[:, 1])
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 100 * (1 + 0.2 * np.cos(3 * at)), rtol=1e-6)


def test_many_polygons_at_once():
    rng = np.random.default_rng(0)
    polygons = [rng.normal(size=(count, 2)) for count in (3, 1, 40, 7)]
    found = resample_linear(np.concatenate(polygons), np.asarray([3, 1, 40, 7]), 11)
    for points, polygon in zip(found, polygons, strict=True):
        expected = (
            np.repeat(polygon, 11, 0) if len(polygon) == 1 else walked(polygon, length(polygon) * np.arange(11) / 11)
        )
        np.testing.assert_allclose(points, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("points", "num_points", "method", "message"),
    [
        (SQUARE, 8, "splin", "'splin', must be one of linear, spline, ray"),
        (SQUARE, 2, "linear", "num_points is 2"),
        (SQUARE.T, 8, "linear", r"\[V, 2\] with at least 3 points, got \(2, 4\)"),
        (SQUARE[:2], 8, "linear", r"at least 3 points, got \(2, 2\)"),
        (np.full((4, 2), 3.0), 8, "spline", r"no length: its 4 points are all at \[3.0, 3.0\]"),
        (np.asarray([[0, 0], [0, np.nan], [1, 1]]), 8, "linear", "not finite"),
    ],
)
def test_refusals(points, num_points, method, message):
    with pytest.raises(ValueError, match=message):
        resample_contour(points, num_points, method)

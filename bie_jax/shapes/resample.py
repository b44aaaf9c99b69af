"""A fixed number of points along a closed outline.

"linear" walks along the polygon itself, "spline" along the periodic cubic spline through its points; both place point
k at k L / N of the length L, k = 0 .. N - 1, so that the first point is not repeated. "ray" casts N rays from the
centroid, as StarDist does (Schmidt et al. 2018, arXiv 1806.03535).
"""

import collections.abc

import numpy as np
import scipy.interpolate

from bie_jax.shapes.polygon import centroid, signed_area

METHODS = ("linear", "spline", "ray")
# The length of a spline is that of so many chords at least: of all of it, and of each piece.
_CHORDS = 8192
_CHORDS_PER_PIECE = 16


def resample_contour(points: np.ndarray, num_points: int = 256, method: str = "linear") -> np.ndarray:
    """N points along an outline, clockwise on the screen, from where its first point is.

    Args:
        points: [V, 2] (row, column) px, V >= 3; open or closed (the first point repeated at the end), with repeated
            points or without, in either direction: the sign of the shoelace area decides, and points that enclose no
            area keep their direction.
        num_points: N, at least 3.
        method: "linear", "spline" or "ray". "linear" cuts corners that lie between two of its points and nothing
            else. "spline" rounds corners, and overshoots where long and short steps meet. "ray" is about the centroid:
            ray k points k 360 / N degrees on from the first point and ends where the outline is crossed last, so that
            all that lies behind another part of the outline is lost (bays, hooks, spirals), long thin arms get few
            points, and rays that meet nothing, as from a centroid outside of the object, end at the centroid.

    Returns:
        [N, 2] float64.

    Raises:
        ValueError: if points are not [V, 2], fewer than three, not finite, or all in one place; if there is no such
            method; if `num_points` is below 3.
    """
    check_resampling(num_points, method)
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"an outline is [V, 2] with at least 3 points, got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("an outline has coordinates that are not finite")
    if (points == points[0]).all():
        raise ValueError(f"an outline has no length: its {len(points)} points are all at {points[0].tolist()}")
    if signed_area(points) < 0:
        points = np.concatenate([points[:1], points[:0:-1]])
    if method == "linear":
        return resample_linear(points, np.asarray([len(points)]), num_points)[0]
    return resample_curve(points, num_points, method)


def check_resampling(num_points: int, method: str) -> None:
    """Raise ValueError unless there is such a method and N is at least 3."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, must be one of {', '.join(METHODS)}")
    if num_points < 3:
        raise ValueError(f"num_points is {num_points}, an outline needs at least 3")


def resample_linear(points: np.ndarray, lengths: np.ndarray, num_points: int) -> np.ndarray:
    """Many polygons at once.

    Args:
        points: [V, 2] float64, the polygons one after the other.
        lengths: [n] int, points of each; none is empty.
        num_points: N.

    Returns:
        [n, N, 2] float64; N copies of a point for a polygon without length.
    """
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    step = np.empty_like(points)
    step[:-1] = points[1:] - points[:-1]
    step[last] = points[first] - points[last]
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(step[:, 0], step[:, 1]))])  # arc[v]: up to point v
    start, total = arc[first], arc[last + 1] - arc[first]
    target = start[:, None] + total[:, None] * (np.arange(num_points) / num_points)
    segment = np.searchsorted(arc, target, side="right") - 1
    # Rounding must not lead into a neighbor's polygon.
    segment = np.clip(segment, first[:, None], last[:, None])
    segment_length = arc[segment + 1] - arc[segment]
    share = np.where(segment_length > 0, (target - arc[segment]) / np.where(segment_length > 0, segment_length, 1.0), 0)
    return points[segment] + share[..., None] * step[segment]


def resample_curve(points: np.ndarray, num_points: int, method: str) -> np.ndarray:
    """One outline [V, 2] of finite points that are not all equal, by "spline" or "ray": [N, 2] float64."""
    # Of equal neighbors the last one stays: a closing point goes, and not the start.
    points = points[(points != np.roll(points, -1, axis=0)).any(axis=1)]
    curves: dict[str, collections.abc.Callable[[np.ndarray, int], np.ndarray]] = {"spline": _spline, "ray": _rays}
    return curves[method](points, num_points)


def _spline(points: np.ndarray, num_points: int) -> np.ndarray:
    closed = np.concatenate([points, points[:1]])
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    curve = scipy.interpolate.CubicSpline(knots, closed, bc_type="periodic")
    chords = max(_CHORDS_PER_PIECE, -(-_CHORDS // len(points)))
    parts = np.arange(chords) / chords
    parameter = np.append((knots[:-1, None] + np.diff(knots)[:, None] * parts).ravel(), knots[-1])
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve(parameter), axis=0), axis=1))])
    return curve(np.interp(arc[-1] * np.arange(num_points) / num_points, arc, parameter))


def _rays(points: np.ndarray, num_points: int) -> np.ndarray:
    """Farthest crossing of each ray, or the centroid."""
    center = centroid(points)
    a = points - center
    b = np.roll(a, -1, axis=0)
    angle = np.arctan2(a[:, 0], a[:, 1])  # rows downwards: grows clockwise
    spacing = 2 * np.pi / num_points
    # In units of the spacing from the first point's ray. Every segment covers the rays between its ends.
    begin = (angle - angle[0]) / spacing
    sweep = (np.remainder(np.roll(angle, -1) - angle + np.pi, 2 * np.pi) - np.pi) / spacing
    # A hair wider: the ray through a point that two segments share must not slip between them.
    low = np.ceil(np.minimum(begin, begin + sweep) - 1e-9).astype(int)
    count = np.maximum(np.floor(np.maximum(begin, begin + sweep) + 1e-9).astype(int) - low + 1, 0)
    segment = np.repeat(np.arange(len(a)), count)
    ray = low[segment] + np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    ray_angle = angle[0] + ray * spacing
    sine, cosine = np.sin(ray_angle), np.cos(ray_angle)
    p, step = a[segment], (b - a)[segment]
    # On the line p + t step the part across the ray is zero; a segment along the ray ends at its farther end.
    across, slope = p[:, 0] * cosine - p[:, 1] * sine, step[:, 0] * cosine - step[:, 1] * sine
    along = np.abs(slope) <= 1e-12 * np.linalg.norm(step, axis=1)
    share = np.clip(-across / np.where(along, 1.0, slope), 0.0, 1.0)
    hit = p + share[:, None] * step
    reach = hit[:, 0] * sine + hit[:, 1] * cosine
    ends = b[segment]
    reach = np.where(
        along, np.maximum(p[:, 0] * sine + p[:, 1] * cosine, ends[:, 0] * sine + ends[:, 1] * cosine), reach
    )
    radius = np.zeros(num_points)
    np.maximum.at(radius, ray % num_points, reach)
    directions = angle[0] + spacing * np.arange(num_points)
    return center + radius[:, None] * np.stack([np.sin(directions), np.cos(directions)], axis=1)

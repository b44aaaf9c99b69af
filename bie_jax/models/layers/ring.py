"""A distance matrix as signals on the ring of its points: how long chords are, and how the outline turns."""

import jax
import jax.numpy as jnp
import numpy as np

from bie_jax.shapes.mds import points_of_exact

# Of outlines of RMS 1: area (a circle has 1.6) and length below which a direction would be one of rounding.
_NO_AREA = 5e-3
_NO_LENGTH = 1e-3


def chords(d: jax.Array) -> jax.Array:
    """How far points lie apart that are some steps apart, beside a circle.

    Args:
        d: [B, P, P] distances of outlines, of RMS 1.

    Returns:
        [B, P, K]: D[i, i + k] over the chord of k steps in a circle of the same RMS, less 1, at point i, for the steps
        of `ring_steps`. A short chord is a hundredth of a long one and tells as much: so scaled, all count alike.
    """
    num_points = d.shape[1]
    steps = ring_steps(num_points)
    circle = np.sqrt(2) * np.sin(np.pi * steps / num_points)
    return _at_steps(d, steps) / jnp.asarray(circle, d.dtype)[None, None] - 1


def turns(d: jax.Array) -> jax.Array:
    """How the outline turns at each point, inwards or outwards, beside a circle.

    Distances alone do not say at once whether a bend is a bump or a bay; together they do: they fix the points, but for
    a motion and a reflection. The sine is that of the points, times the sign of the area that they enclose. The other
    direction changes the sign of both factors, and so does a reflection: their product stays.

    Args:
        d: [B, P, P] distances of outlines, of RMS 1.

    Returns:
        [B, P, K']: sine of the angle between the ways from point i - k to i and from i to i + k, positive where the
        outline is convex, less that of a circle, for the steps up to P // 4. Where an outline encloses no area, or
        points coincide, it is as if it ran straight.
    """
    num_points = d.shape[1]
    points = points_of_exact(d)
    area = _cross(points, jnp.roll(points, -1, axis=1)).sum(axis=1) / 2  # [B]
    side = area / jnp.maximum(jnp.abs(area), _NO_AREA)  # 1, -1, or between them where there is hardly any area
    steps = ring_steps(num_points)
    steps = steps[steps <= num_points // 4]
    point = np.arange(num_points)[:, None]
    before, after = (point - steps) % num_points, (point + steps) % num_points
    here = points[:, :, None]
    lengths = d[:, before, point] * d[:, point, after]
    sine = _cross(here - points[:, before], points[:, after] - here) / jnp.maximum(lengths, _NO_LENGTH**2)
    circle = np.sin(2 * np.pi * steps / num_points)
    return sine * side[:, None, None] - jnp.asarray(circle, d.dtype)[None, None]


def _cross(u: jax.Array, v: jax.Array) -> jax.Array:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def ring_steps(num_points: int) -> np.ndarray:
    """Steps along the ring that are looked at, each about sqrt 2 times the one before: 1, 2, 3, 4, 6, 8 ... P // 2."""
    return np.unique(np.round(2 ** np.arange(0, np.log2(num_points // 2) + 0.01, 0.5)).astype(int))


def _at_steps(d: jax.Array, steps: np.ndarray) -> jax.Array:
    """[B, P, P] -> [B, P, K]: D[i, (i + k) mod P]."""
    start = np.arange(d.shape[1])[:, None]
    return d[:, start, (start + steps) % d.shape[1]]

"""Distance matrices of outlines, their 2 P re-indexings, and what does not change under these.

D_ij = ||p_i - p_j|| does not change when the outline is moved, turned or mirrored: chirality is lost. It does change
with the start point and the direction in which the outline is walked, which re-index it: D[pi(i), pi(j)] with
pi(i) = shift + i, or shift - i, modulo P.

Every function takes jax arrays, and then works in jax (compiled, differentiated, in their own precision), or anything
else, and then works in numpy in float64.
"""

import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import scipy.spatial


def pairwise_distances(points: typing.Any) -> typing.Any:
    """Euclidean distances between all points of each outline.

    Zero on the diagonal to the bit, and symmetric: to the bit alone, to rounding inside a larger compiled program. The
    gradient of the distance of coincident points is zero.

    Args:
        points: [..., P, 2]; other numbers of coordinates than 2 work as well.

    Returns:
        [..., P, P] in the unit of the points; float64 for numpy, the points' own float type for jax, computed in
        float32 at least.

    Raises:
        ValueError: if there are fewer than two axes.
    """
    points, xp = _namespace(points)
    if points.ndim < 2:
        raise ValueError(f"points are [..., P, 2], got {points.shape}")
    if xp is np:
        d = np.empty((*points.shape[:-1], points.shape[-2]))
        for at in np.ndindex(points.shape[:-2]):
            scipy.spatial.distance.cdist(points[at], points[at], out=d[at])
        return d
    dtype = points.dtype
    points = _at_least_float32(points, xp)
    # Coordinate by coordinate: no [..., P, P, 2] in memory.
    squared = sum(
        jnp.square(points[..., :, None, axis] - points[..., None, :, axis]) for axis in range(points.shape[-1])
    )
    # Inside a larger program a difference may be contracted with what made the points (a b - c d in one rounding): a
    # point is then at some 1e-8 from itself.
    itself = jnp.eye(points.shape[-2], dtype=bool)
    return _root(jnp.where(itself, 0, squared), xp).astype(dtype)


def normalize_scale(d: typing.Any) -> tuple[typing.Any, typing.Any]:
    """Matrices of one size: D P / ||D||_F, so that the root mean square of all P^2 entries is 1.

    Args:
        d: [..., P, P].

    Returns:
        The normalized matrices [..., P, P], and the scale [...] = ||D||_F / P in the unit of D; their product is D. A
        matrix of zeros (all points in one place) stays as it is and has the scale 0.

    Raises:
        ValueError: if d is not [..., P, P].
    """
    d, xp = _namespace(d)
    _check_square(d)
    dtype = d.dtype
    d = _at_least_float32(d, xp)
    # einsum would be a product of matrices to jax, of less precision on some devices; numpy it saves a copy.
    squares = jnp.square(d).sum(axis=(-2, -1)) if xp is jnp else np.einsum("...ij,...ij->...", d, d)
    scale = _root(squares / d.shape[-1] ** 2, xp)
    normalized = d / xp.where(scale > 0, scale, 1)[..., None, None]
    return normalized.astype(dtype), scale.astype(dtype)


def normalized_distances(points: typing.Any) -> tuple[typing.Any, typing.Any]:
    """`normalize_scale(pairwise_distances(points))`, to rounding, in half the time.

    ||D||_F^2 is 2 P times the sum of the points' squared distances from their mean, so that the points can be brought
    to size before there is a matrix.

    Args:
        points: [..., P, 2].

    Returns:
        The normalized matrices [..., P, P], and the scale [...] in the unit of the points.

    Raises:
        ValueError: if there are fewer than two axes.
    """
    points, xp = _namespace(points)
    if points.ndim < 2:
        raise ValueError(f"points are [..., P, 2], got {points.shape}")
    dtype = points.dtype
    points = _at_least_float32(points, xp)
    points = points - points.mean(axis=-2, keepdims=True)
    scale = _root(2 * xp.square(points).sum(axis=-1).mean(axis=-1), xp)
    points = points / xp.where(scale > 0, scale, 1)[..., None, None]
    return pairwise_distances(points).astype(dtype), scale.astype(dtype)


def reindex(d: typing.Any, shift: typing.Any, flip: typing.Any) -> typing.Any:
    """The matrix of the same outline from another start point, in the same or the other direction.

    The result at [i, j] is d[pi(i), pi(j)], pi(i) = shift + i, with flip shift - i, modulo P: `shift` is the point that
    comes first. `pairwise_distances(points[reindexing(P, shift, flip)])` is the same.

    Args:
        d: [..., P, P].
        shift: [...] int, or one number for all.
        flip: [...] bool, or one for all.

    Returns:
        [..., P, P].

    Raises:
        ValueError: if d is not [..., P, P].
    """
    d, xp = _namespace(d)
    _check_square(d)
    batch = d.shape[:-2]
    order = reindexing(d.shape[-1], xp.asarray(shift), xp.asarray(flip))
    order = xp.broadcast_to(order.reshape((1,) * (len(batch) + 1 - order.ndim) + order.shape), (*batch, d.shape[-1]))
    d = xp.take_along_axis(d, order[..., :, None], axis=-2)
    return xp.take_along_axis(d, order[..., None, :], axis=-1)


def reindexing(num_points: int, shift: typing.Any, flip: typing.Any) -> typing.Any:
    """pi of `reindex` as indices.

    Args:
        num_points: P.
        shift: [...] int.
        flip: [...] bool.

    Returns:
        [..., P] int.
    """
    xp = jnp if isinstance(shift, jax.Array) or isinstance(flip, jax.Array) else np
    shift, flip = xp.asarray(shift)[..., None], xp.asarray(flip)[..., None]
    steps = xp.arange(num_points).reshape((1,) * (max(shift.ndim, flip.ndim) - 1) + (num_points,))
    return (shift + xp.where(flip, -steps, steps)) % num_points


def canonical_start(d: typing.Any) -> tuple[typing.Any, typing.Any]:
    """One of the 2 P re-indexings, the same one of the outline for each of them.

    Every point has a number, the sum of its distances to all points. Of the 2 P cyclic sequences of these numbers the
    lexicographically greatest is taken: it starts at the point that lies farthest out, and goes on towards the farther
    one of its neighbors. The choice is exact: `reindex(d, *canonical_start(d))` is the same to the bit for all
    re-indexings of d, as sums are taken in an order that does not depend on the index. It is not continuous: where two
    points lie almost equally far out, a small change of the outline moves the start to the other one. Where two
    sequences are equal (symmetric outlines) they are taken as the same outline.

    Args:
        d: [..., P, P], symmetric.

    Returns:
        shift [...] int and flip [...] bool for `reindex`.

    Raises:
        ValueError: if d is not [..., P, P].
    """
    d, xp = _namespace(d)
    _check_square(d)
    num_points = d.shape[-1]
    reach = xp.sort(d, axis=-1).sum(axis=-1)
    shifts = np.concatenate([np.arange(num_points)] * 2)
    directions = np.repeat([1, -1], num_points)

    def narrow(step: typing.Any, best: typing.Any) -> typing.Any:
        """Drop the sequences whose element is less than that of another one still there."""
        value = xp.where(best, reach[..., (shifts + step * directions) % num_points], -xp.inf)
        return value == value.max(axis=-1, keepdims=True)

    best = xp.ones((*d.shape[:-2], 2 * num_points), bool)
    if xp is jnp:
        best = jax.lax.fori_loop(0, num_points, narrow, best)
    else:
        for step in range(num_points):
            best = narrow(step, best)
    chosen = best.argmax(axis=-1)
    return chosen % num_points, chosen >= num_points


def cyclic_diagonal_spectrum(d: typing.Any) -> typing.Any:
    """Magnitudes of the Fourier transforms along the cyclic diagonals of symmetric matrices.

    The cyclic diagonal k is a_k(i) = D[i, i + k], the chord from each point to the k-th next. Another start shifts all
    of them in i, the other direction reverses and shifts them, and neither changes |F a_k|: the summary is equal for
    all 2 P re-indexings, to rounding. Relations between the phases of different diagonals are lost.

    Args:
        d: [..., P, P], symmetric: the diagonals k and P - k are the same numbers then, and one of them is given.

    Returns:
        [..., P // 2, P // 2 + 1]: diagonal k = 1, 2, ... by frequency 0, 1, ...; divided by P, so that frequency 0
        is the mean chord.

    Raises:
        ValueError: if d is not [..., P, P].
    """
    d, xp = _namespace(d)
    _check_square(d)
    num_points = d.shape[-1]
    start = np.arange(num_points)
    offset = np.arange(1, num_points // 2 + 1)[:, None]
    diagonals = _at_least_float32(d[..., start, (start + offset) % num_points], xp)
    return (abs(xp.fft.rfft(diagonals, axis=-1)) / num_points).astype(d.dtype)


def _namespace(array: typing.Any) -> tuple[typing.Any, types.ModuleType]:
    """(array, jax.numpy) for jax arrays, traced ones too; (float64 array, numpy) for everything else."""
    if isinstance(array, jax.Array):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"a jax array of {array.dtype} has no distances; cast it to a float type")
        return array, jnp
    return np.asarray(array, np.float64), np


def _root(squares: typing.Any, xp: types.ModuleType) -> typing.Any:
    """Square root, with the derivative 0 at 0: it is infinite, and infinity times the zero inside would be NaN.

    What stands in for 0 is itself next to nothing: a compiler that computes `squares` twice, and rounds them otherwise
    the second time, may find them positive in one place alone.
    """
    positive = squares > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, squares, xp.finfo(squares.dtype).tiny)), 0)


def _at_least_float32(array: typing.Any, xp: types.ModuleType) -> typing.Any:
    """Half precision keeps two or three digits, too few for squares and sums."""
    return array.astype(xp.promote_types(array.dtype, xp.float32))


def _check_square(d: typing.Any) -> None:
    if d.ndim < 2 or d.shape[-1] != d.shape[-2] or not d.shape[-1]:
        raise ValueError(f"distance matrices are [..., P, P], got {d.shape}")

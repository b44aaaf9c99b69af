"""Distance matrices back to points: classical multidimensional scaling, SMACOF to improve on it where matrices are not
exact, and a way without iteration for those that are.

Classical scaling (Torgerson 1952, doi 10.1007/BF02288916): B = -1/2 J D^2 J, J = I - 1/P, D^2 element by element, is
the Gram matrix of the centered points, whose two largest eigenvalues and their vectors are the points. It is exact for
distances in the plane, up to rotation, translation and reflection.

Functions take jax arrays, and then give jax arrays of the same type, or anything else, and then compute and give
float64.
"""

import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np

# Share of all points' squared distances from the mean, below which a second coordinate is one of rounding.
_NO_WIDTH = 2e-6
# Subspace iteration converges by |lambda_3 / lambda_2| a step: at once on true matrices, and where so many steps do
# not do it, a full decomposition costs about as much.
_MAX_STEPS = 30


def classical_mds(d: typing.Any) -> typing.Any:
    """Points in the plane whose distances are D, or come near it.

    Points are centered and in their principal axes: the first coordinate has the larger variance, and of each
    coordinate the element of greatest magnitude is positive. The matrix is taken as (D + D^T) / 2, so that each of a
    predicted matrix's two values for a distance counts the same; eigenvalues below 0 count as 0.

    The gradient is that of the points up to a common rotation (a change of the matrix that only turns the principal
    axes moves nothing). It is exact for all functions of the points that a rotation does not change, such as their
    distances, and finite where principal axes are not determined, as for a circle, or do not exist, as for points on a
    line or in one place.

    Args:
        d: [..., P, P] distances.

    Returns:
        [..., P, 2] in the unit of D.

    Raises:
        ValueError: if d is not [..., P, P] with P >= 2.
    """
    return _in_jax(_classical_mds, d)


def points_of_exact(d: jax.Array) -> jax.Array:
    """Points in the plane whose distances are D, which must be true distances in the plane.

    B has rank 2 then. Any v makes one coordinate, B v / sqrt(v . B v), and what is left of B the other: a Cholesky
    factorisation, with v for the unit vector. v is the column of the greatest pivot, so that B v averages over all
    points what was lost in rounding.

    Nothing is iterated, and no matrix of a batch makes the others wait for its full decomposition, as one of points on
    a line does in `classical_mds`: that took 1.2 to 2 times as long for outlines of 64 and 256 points, and 8 to 20
    times with one line among them. In return points are in some position and of some hand, and of what is not exact
    they are no best fit.

    Args:
        d: [B, P, P] distances.

    Returns:
        [B, P, 2] in the unit of D, centered, float32 at least. Where all points are on a line, or in one place, one
        coordinate or both are rounding or 0.
    """
    left = _gram(d)
    energy = jnp.trace(left, axis1=1, axis2=2)[:, None]
    least = jnp.maximum(_NO_WIDTH * energy, jnp.finfo(left.dtype).tiny)
    coordinates = []
    for _ in range(2):
        pivot = jnp.diagonal(left, axis1=1, axis2=2).argmax(axis=1)[:, None, None]
        v = jnp.take_along_axis(left, pivot, axis=2)[..., 0]
        v *= jax.lax.rsqrt(jnp.maximum(jnp.square(v).sum(axis=1, keepdims=True), jnp.finfo(left.dtype).tiny))
        column = jnp.einsum("bij,bj->bi", left, v, precision="highest")
        squares = (v * column).sum(axis=1, keepdims=True)  # of the coordinate, summed over the points
        coordinates.append(column * jax.lax.rsqrt(jnp.maximum(squares, least)))
        left -= coordinates[-1][:, :, None] * coordinates[-1][:, None]
    return jnp.stack(coordinates, axis=-1)


def residual_energy(d: typing.Any) -> typing.Any:
    """How much of a matrix is not in the plane: sum of the other eigenvalues' squares of B, over that of all.

    Args:
        d: [..., P, P] distances.

    Returns:
        [...] in [0, 1]; 0 for true distance matrices in the plane, and for a matrix of zeros.

    Raises:
        ValueError: as `classical_mds`.
    """
    return _in_jax(_residual_energy, d)


def smacof(d: typing.Any, start: typing.Any, iterations: int) -> typing.Any:
    """Improve points by majorisation of the stress, sum_ij (||x_i - x_j|| - D_ij)^2, which no iteration raises.

    x <- 1/P B(x) x with the Guttman transform B_ij = -D_ij / ||x_i - x_j||, diagonal minus the sum of the row (de Leeuw
    1977; Borg & Groenen 2005, equation 8.28). Classical scaling weighs squares of distances and is the natural start.

    Args:
        d: [..., P, P] distances, as predicted: taken as (D + D^T) / 2 without diagonal, and 0 where negative.
        start: [..., P, 2], points that do not all coincide.
        iterations: how many.

    Returns:
        [..., P, 2], centered.

    Raises:
        ValueError: if the shapes do not fit, or `iterations` is negative.
    """
    if iterations < 0:
        raise ValueError(f"iterations is {iterations}, must be at least 0")
    if np.shape(start) != (*np.shape(d)[:-1], 2):
        raise ValueError(f"d is {np.shape(d)}, start is {np.shape(start)}; expected [..., P, P] and [..., P, 2]")
    return _in_jax(functools.partial(_smacof, iterations=iterations), d, start)


def _in_jax(function: typing.Any, d: typing.Any, *others: typing.Any) -> typing.Any:
    """Call with jax arrays; in float64 and back to numpy unless d is a jax array."""
    if np.ndim(d) < 2 or np.shape(d)[-1] != np.shape(d)[-2] or np.shape(d)[-1] < 2:
        raise ValueError(f"distance matrices are [..., P, P] with P >= 2, got {np.shape(d)}")
    if isinstance(d, jax.Array):
        return function(d, *others)
    with jax.enable_x64(True):
        return np.asarray(function(*(jnp.asarray(np.asarray(array, np.float64)) for array in (d, *others))))


@jax.jit
def _classical_mds(d: jax.Array) -> jax.Array:
    batch, num_points = d.shape[:-2], d.shape[-1]
    return (
        _principal_points(_gram(d).reshape(-1, num_points, num_points)).reshape(*batch, num_points, 2).astype(d.dtype)
    )


@jax.jit
def _residual_energy(d: jax.Array) -> jax.Array:
    num_points = d.shape[-1]
    gram = _gram(d).reshape(-1, num_points, num_points)
    axes, eigenvalues = _top_two(gram)
    kept = jnp.einsum("bpi,bi,bqi->bpq", axes, eigenvalues, axes, precision="highest")
    total, rest = jnp.square(gram).sum(axis=(1, 2)), jnp.square(gram - kept).sum(axis=(1, 2))
    share = jnp.where(total > 0, rest / jnp.where(total > 0, total, 1), 0)
    return share.reshape(d.shape[:-2]).astype(d.dtype)


@functools.partial(jax.jit, static_argnames="iterations")
def _smacof(d: jax.Array, start: jax.Array, *, iterations: int) -> jax.Array:
    dtype = d.dtype
    d, start = (array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in (d, start))
    num_points = d.shape[-1]
    off_diagonal = ~np.eye(num_points, dtype=bool)
    d = jnp.where(off_diagonal, jnp.maximum((d + jnp.swapaxes(d, -1, -2)) / 2, 0), 0)

    def transform(points: jax.Array, _: None) -> tuple[jax.Array, None]:
        squared = sum(jnp.square(points[..., :, None, axis] - points[..., None, :, axis]) for axis in range(2))
        apart = squared > 0
        # Points in one place have no direction to part in; theirs is a summand of zero.
        ratio = jnp.where(apart, d * jax.lax.rsqrt(jnp.where(apart, squared, 1)), 0)
        moved = ratio.sum(axis=-1, keepdims=True) * points - jnp.matmul(ratio, points, precision="highest")
        return moved / num_points, None

    points, _ = jax.lax.scan(transform, start - start.mean(axis=-2, keepdims=True), length=iterations)
    return points.astype(dtype)


def _gram(d: jax.Array) -> jax.Array:
    """B = -1/2 J D^2 J in float32 at least."""
    d = d.astype(jnp.promote_types(d.dtype, jnp.float32))
    squared = -0.5 * jnp.square((d + jnp.swapaxes(d, -1, -2)) / 2)
    rows = squared.mean(axis=-1, keepdims=True)
    return squared - rows - jnp.swapaxes(rows, -1, -2) + rows.mean(axis=-2, keepdims=True)


@jax.custom_vjp
def _principal_points(gram: jax.Array) -> jax.Array:
    """[B, P, P] -> [B, P, 2]: the two leading eigenvectors times the roots of their eigenvalues."""
    axes, eigenvalues = _top_two(gram)
    return axes * jnp.sqrt(eigenvalues)[:, None, :]


def _principal_points_forward(gram: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    points = _principal_points(gram)
    return points, (gram, points)


def _principal_points_backward(saved: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array]:
    """The pull-back of the change of points X (X^T X = L diagonal) that a change of B makes without rotating them.

    Outside of the two axes B X = X L gives dX_k = v_k v_k^T dB X (L - lambda_k)^-1 for every other eigenvector v_k.
    Inside, of all dX with dX X^T + X dX^T = the change of B there, the one with a symmetric X^T dX:
    X L^-1 M with M_ij = (X^T dB X)_ij / (l_i + l_j). Nothing is divided by l_1 - l_2.
    """
    gram, points = saved
    eigenvalues, vectors = jnp.linalg.eigh(gram)
    others, other_values = vectors[..., :-2], eigenvalues[..., :-2]
    values = jnp.square(points).sum(axis=1)  # l, [B, 2]
    # A gap, or an eigenvalue, below rounding has a damped inverse: x / (x^2 + eps^2) is 0 at 0.
    smallest = 100 * jnp.finfo(gram.dtype).eps * jnp.abs(eigenvalues).max(axis=-1)[:, None]
    smallest = jnp.maximum(smallest, jnp.finfo(gram.dtype).tiny ** 0.25)

    def inverse(x: jax.Array, floor: jax.Array) -> jax.Array:
        return x / (jnp.square(x) + jnp.square(floor))

    product = functools.partial(jnp.einsum, precision="highest")
    gaps = values[:, None, :] - other_values[:, :, None]  # [B, P - 2, 2]
    weights = product("bpk,bpi->bki", others, cotangent) * inverse(gaps, smallest[..., None])
    outside = product("bpk,bki,bqi->bpq", others, weights, points)
    inside = product("bpi,bpj->bij", points, cotangent) * inverse(values, smallest)[:, :, None]
    inside = (
        (inside + jnp.swapaxes(inside, 1, 2)) / 2 * inverse(values[:, :, None] + values[:, None], smallest[..., None])
    )
    inside = product("bpi,bij,bqj->bpq", points, inside, points)
    gradient = outside + inside
    return ((gradient + jnp.swapaxes(gradient, 1, 2)) / 2,)


_principal_points.defvjp(_principal_points_forward, _principal_points_backward)


def _top_two(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two largest eigenvalues [B, 2], 0 where negative, and their vectors [B, P, 2], signs fixed.

    Subspace iteration with a certificate: when it has converged, and the energy outside of the two is less than the
    square of the second, no other eigenvalue can exceed that. Matrices that are far from distances in the plane, or of
    points on a line, do not get the certificate; if there is one, all are decomposed fully.
    """
    axes, eigenvalues, certain = _subspace_iteration(gram)
    axes, eigenvalues = jax.lax.cond(certain.all(), lambda: (axes, eigenvalues), lambda: _full(gram))
    largest = jnp.take_along_axis(axes, jnp.abs(axes).argmax(axis=1)[:, None], axis=1)
    return axes * jnp.where(largest < 0, -1, 1), jnp.maximum(eigenvalues, 0)


def _full(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    eigenvalues, vectors = jnp.linalg.eigh(gram)
    return vectors[..., :-3:-1], eigenvalues[..., :-3:-1]


def _subspace_iteration(gram: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """axes [B, P, 2], eigenvalues [B, 2] descending, and whether they are known to be the two largest [B]."""
    num_points = gram.shape[-1]
    eps = jnp.finfo(gram.dtype).eps
    energy = jnp.square(gram).sum(axis=(1, 2))
    # Rounding of one product with the matrix, generously.
    tolerance = jnp.square(8 * eps) * energy

    def improve(axes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Ritz vectors of the span of two orthonormal columns, their values, and the product with the matrix."""
        image = jnp.matmul(gram, axes, precision="highest")
        small = jnp.einsum("bpi,bpj->bij", axes, image, precision="highest")
        a, b, c = small[:, 0, 0], small[:, 0, 1], small[:, 1, 1]
        angle = jnp.arctan2(2 * b, a - c) / 2  # of the first principal axis; 0 if none is
        cosine, sine = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
        rotation = jnp.concatenate(
            [jnp.concatenate([cosine, -sine], axis=2), jnp.concatenate([sine, cosine], axis=2)], axis=1
        )
        middle, half = (a + c) / 2, jnp.hypot(a - c, 2 * b) / 2
        values = jnp.stack([middle + half, middle - half], axis=1)
        rotate = functools.partial(jnp.matmul, precision="highest")
        return rotate(axes, rotation), values, rotate(image, rotation)

    def residual(axes: jax.Array, values: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.square(image - axes * values[:, None, :]).sum(axis=(1, 2))

    def unfinished(carry: tuple) -> jax.Array:
        step, (axes, values, image) = carry
        return (step < _MAX_STEPS) & (residual(axes, values, image) > tolerance).any()

    def advance(carry: tuple) -> tuple:
        step, (_, _, image) = carry
        return step + 1, improve(_orthonormal(image))

    # Any two columns do that are not orthogonal to the solution; low frequencies are close to it for outlines.
    phase = 2 * np.pi * (np.arange(num_points) + 0.3) / num_points
    start = np.stack([np.cos(phase) + 0.3 * np.cos(2 * phase), np.sin(phase) + 0.3 * np.sin(2 * phase + 1)], axis=1)
    start = jnp.broadcast_to(jnp.asarray(start, gram.dtype), (*gram.shape[:-1], 2))
    _, (axes, values, image) = jax.lax.while_loop(unfinished, advance, (0, improve(_orthonormal(start))))
    rest = energy - jnp.square(values).sum(axis=1) + 64 * eps * energy  # as much may be lost in the difference
    certain = (residual(axes, values, image) <= tolerance) & (values[:, 1] > 0) & (rest < jnp.square(values[:, 1]))
    return axes, values, certain


def _orthonormal(columns: jax.Array) -> jax.Array:
    """Gram and Schmidt for two columns [B, P, 2], twice, which is enough; zeros for a column that depends."""

    def unit(vector: jax.Array) -> jax.Array:
        squared = jnp.square(vector).sum(axis=-1, keepdims=True)
        return jnp.where(squared > 0, vector * jax.lax.rsqrt(jnp.where(squared > 0, squared, 1)), 0)

    first, second = unit(columns[..., 0]), unit(columns[..., 1])
    for _ in range(2):
        second = unit(second - (first * second).sum(axis=-1, keepdims=True) * first)
    return jnp.stack([first, second], axis=-1)

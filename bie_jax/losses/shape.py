"""What a predicted matrix must be to be one of distances, and how far it is from one up to its indexing.

The four properties of a distance matrix as penalties that are zero if and only if the property holds (a true Euclidean
matrix has all four to rounding), and the squared error of the best of the 2 P re-indexings. All take [..., P, P],
average over the last two axes of every matrix and then over the matrices, and compute in float32 at least.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def zero_diagonal(d: jax.Array) -> jax.Array:
    """mean_i D_ii^2.

    Args:
        d: [B, P, P] float, predicted distances; further leading axes, such as channels, are averaged over.

    Returns:
        Scalar float32.

    Raises:
        ValueError: if d is not [..., P, P].
    """
    return jnp.square(jnp.diagonal(_matrices(d), axis1=-2, axis2=-1)).mean()


@jax.jit
def symmetry(d: jax.Array) -> jax.Array:
    """mean_ij (D_ij - D_ji)^2; see `zero_diagonal`."""
    d = _matrices(d)
    return jnp.square(d - jnp.swapaxes(d, -1, -2)).mean()


@jax.jit
def non_negativity(d: jax.Array) -> jax.Array:
    """mean_{i != j} max(0, -D_ij)^2; see `zero_diagonal`. 0 for P = 1."""
    d = _matrices(d)
    num_points = d.shape[-1]
    penalty = jnp.where(np.eye(num_points, dtype=bool), 0, jnp.square(jnp.minimum(d, 0)))
    return penalty.mean() * (num_points / max(num_points - 1, 1))


@jax.jit
def triangle_inequality(d: jax.Array) -> jax.Array:
    """Mean over distinct i, j, k of max(0, D_ik - D_ij - D_jk), exactly; see `zero_diagonal`.

    All P (P - 1) (P - 2) triples count, one detour point j after the other, in the gradient too: memory is a few times
    that of the matrices, never P^3.

    Raises:
        ValueError: if d is not [..., P, P], or P is below 3.
    """
    d = _matrices(d)
    num_points = d.shape[-1]
    if num_points < 3:
        raise ValueError(f"the triangle inequality is about 3 points, the matrices are {d.shape}")
    # Triples with two equal indices are put out of the sum by an infinite detour, or a way infinitely short.
    diagonal = np.eye(num_points, dtype=bool)
    way = jnp.where(diagonal, -jnp.inf, d)
    leg = jnp.where(diagonal, jnp.inf, d)

    # The gradient computes a detour's excess again; kept, they would be P^3 numbers.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add_detours(total: jax.Array, legs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        to_j, from_j = legs  # [..., P]
        excess = way - to_j[..., :, None] - from_j[..., None, :]
        return total + jax.nn.relu(excess).sum(), None

    legs = jnp.moveaxis(leg, -1, 0), jnp.moveaxis(leg, -2, 0)
    total, _ = jax.lax.scan(add_detours, jnp.zeros((), d.dtype), legs)
    matrices = d.size // num_points**2
    return total / (matrices * num_points * (num_points - 1) * (num_points - 2))


@jax.jit
def reindexed_mse(d: jax.Array, d_hat: jax.Array) -> jax.Array:
    """The least mean squared error between D and any of the 2 P re-indexings of a prediction.

    min over s and both directions of mean_ij (D[s +- i, s +- j] - D'_ij)^2. For all s together the cross terms are the
    sum over k of the circular correlations of the cyclic diagonals a_k(i) = D[i, i + k] and a'_k, which are products of
    their one-dimensional Fourier transforms: O(P^2 log P) instead of O(P^3). The reversed D has the conjugate
    transforms of the diagonals -k, so that no further transform is needed. The error is then computed from the best
    re-indexing itself, without cancellation, and the gradient is that of this one. Where others are as good to
    rounding, one of them is taken.

    Args:
        d: [B, P, P] float, the matrix from any start point in either direction.
        d_hat: [B, P, P] float, the prediction; neither need be symmetric, and further leading axes are kept.

    Returns:
        [B] float32.

    Raises:
        ValueError: if the shapes differ or are not [..., P, P].
    """
    if d.shape != d_hat.shape:
        raise ValueError(f"d is {d.shape}, d_hat is {d_hat.shape}; they must be equal")
    d, d_hat = _matrices(d), _matrices(d_hat)
    batch, num_points = d.shape[:-2], d.shape[-1]
    d, d_hat = d.reshape(-1, num_points, num_points), d_hat.reshape(-1, num_points, num_points)
    shift, flip = jax.lax.stop_gradient(best_reindexing(d, d_hat))
    steps = jnp.where(flip[:, None], -1, 1) * jnp.arange(num_points)[None]
    order = (shift[:, None] + steps) % num_points
    best = jax.vmap(lambda matrix, order: matrix[order[:, None], order[None, :]])(d, order)
    return jnp.square(best - d_hat).mean(axis=(-2, -1)).reshape(batch)


def best_reindexing(d: jax.Array, d_hat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The re-indexing of D that comes nearest to a prediction, in the least squared error.

    Args:
        d: [B, P, P] float.
        d_hat: [B, P, P] float; neither need be symmetric.

    Returns:
        shift [B] int and flip [B] bool, for `bie_jax.shapes.distance_matrix.reindex`.
    """
    num_points = d.shape[-1]
    spectrum = jnp.fft.rfft(_cyclic_diagonals(d), axis=-1)  # [B, k, frequency]
    target = jnp.conj(jnp.fft.rfft(_cyclic_diagonals(d_hat), axis=-1))
    reverse = jnp.conj(jnp.roll(spectrum[:, ::-1], 1, axis=1))  # diagonal -k
    products = jnp.stack([(spectrum * target).sum(axis=1), (reverse * target).sum(axis=1)], axis=1)
    # Frequency 0, the largest by far, would cost the others their digits. It is the same for all starts, and for both
    # directions of a symmetric matrix; of another, what it differs by is in the diagonals of D^T - D.
    lean = _cyclic_diagonals(jnp.swapaxes(d, -1, -2) - d).sum(axis=-1)
    products = products.at[:, 0, 0].set(0).at[:, 1, 0].set((lean * target[..., 0]).sum(axis=1))
    correlation = jnp.fft.irfft(products, n=num_points, axis=-1)  # [B, 2, shift]
    # The inverse transform pairs D[i + s] with D'[i]; reversed, D[-(i + s)], whose shift is -s.
    best = correlation.reshape(-1, 2 * num_points).argmax(axis=-1)
    flip, shift = best >= num_points, best % num_points
    return jnp.where(flip, -shift, shift), flip


def _cyclic_diagonals(d: jax.Array) -> jax.Array:
    """[B, P, P] -> [B, k, i] = d[:, i, (i + k) mod P]."""
    batch_size, num_points, _ = d.shape
    # Rows of 2 P numbers read as rows of 2 P + 1: row i starts i places further on. A gather would be slower.
    twice = jnp.concatenate([d, d], axis=-1).reshape(batch_size, -1)
    sheared = jnp.pad(twice, ((0, 0), (0, num_points))).reshape(batch_size, num_points, 2 * num_points + 1)
    return jnp.swapaxes(sheared[..., :num_points], -1, -2)


def _matrices(d: jax.Array) -> jax.Array:
    """Checked, in float32 at least."""
    if d.ndim < 2 or d.shape[-1] != d.shape[-2]:
        raise ValueError(f"distance matrices are [..., P, P], got {d.shape}")
    return d.astype(jnp.promote_types(d.dtype, jnp.float32))

"""Codebooks fitted to one batch of vectors, to start from."""

import jax
import jax.numpy as jnp

from bie_jax.models.quantizers.lookup import look_up, sums_by_code


def kmeans(
    vectors: jax.Array, counted: jax.Array, num_codes: int, iterations: int, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codebooks fitted to one batch.

    Centers are drawn one after the other from the vectors, each with probability proportional to the squared distance
    to the nearest center so far (k-means++, Arthur & Vassilvitskii 2007), then moved to the means of their vectors
    (Lloyd 1982). A center without vectors stays where it is.

    Args:
        vectors: [M, G, D].
        counted: [M], 1 for vectors that count, else 0; at least one must.
        num_codes: K.
        iterations: of Lloyd's, at least 1.
        key: for the draws.

    Returns:
        centers: [G, K, D].
        code_counts: [G, K], how many vectors are nearest to each.
        distortion: [G], mean squared distance to the nearest center.
    """
    _, num_groups, code_dim = vectors.shape
    # Means of thousands of vectors that all lie far out on one side would be rounded like numbers of that size.
    middle = (counted[:, None, None] * vectors).sum(axis=0) / counted.sum()  # [G, D]
    vectors = vectors - middle[None]

    def draw(index: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        centers, nearest = carry
        weight = counted[:, None] * jnp.where(jnp.isinf(nearest), 1.0, nearest)  # [M, G]
        # Where all vectors are centers already, there are fewer different vectors than codes: any will do.
        weight = jnp.where(weight.sum(axis=0, keepdims=True) > 0, weight, counted[:, None])
        row = jax.random.categorical(jax.random.fold_in(key, index), jnp.log(weight), axis=0)  # [G]
        chosen = jnp.take_along_axis(vectors, row[None, :, None], axis=0)[0]  # [G, D]
        nearest = jnp.minimum(nearest, jnp.square(vectors - chosen[None]).sum(axis=-1))
        return centers.at[:, index].set(chosen), nearest

    def move(_: jax.Array, centers: jax.Array) -> jax.Array:
        found = look_up(vectors, counted, centers)
        counts = found.code_counts[..., None]
        return jnp.where(counts > 0, sums_by_code(found.assigned, vectors) / jnp.maximum(counts, 1.0), centers)

    drawn = (jnp.zeros((num_groups, num_codes, code_dim)), jnp.full(vectors.shape[:2], jnp.inf))
    centers, _ = jax.lax.fori_loop(0, num_codes, draw, drawn)
    centers = jax.lax.fori_loop(0, iterations, move, centers)
    found = look_up(vectors, counted, centers)
    error = counted[:, None] * jnp.square(vectors - found.nearest).sum(axis=-1)
    return centers + middle[:, None], found.code_counts, error.sum(axis=0) / counted.sum()

"""Codes that are hardly used begin anew at vectors of the batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Restart(NamedTuple):
    """Codes that are hardly used, and where they begin anew.

    Attributes:
        dead: [G, K] bool.
        even_share: [G, 1], what each code's average count were if all had the same.
        vectors: [G, K, D], a random vector of the batch for every code.
    """

    dead: jax.Array
    even_share: jax.Array
    vectors: jax.Array


def plan_restart(
    counts: jax.Array, vectors: jax.Array, counted: jax.Array, updates: jax.Array, threshold: float
) -> Restart:
    """Find codes of too small an average count, and vectors to move them to.

    With an even share as its new count a restarted code has some hundred steps to prove itself.

    Args:
        counts: [G, K], moving averages of how many vectors of an update each code gets.
        vectors: [M, G, D].
        counted: [M], 1 for vectors that count, else 0; without any, nothing is dead.
        updates: int32, updates before this one. It is the key of the draws, so that a resumed run restarts the same
            codes at the same vectors.
        threshold: dead is what is under this fraction of an even share.
    """
    even_share = counts.sum(axis=-1, keepdims=True) / counts.shape[-1]
    key = jax.random.fold_in(jax.random.key(0), updates)
    # Row n of those that count, for a random n.
    drawn = jax.random.randint(key, counts.shape, 0, counted.sum().astype(jnp.int32))
    rows = jnp.searchsorted(jnp.cumsum(counted), drawn.astype(jnp.float32) + 1)
    chosen = jax.vmap(lambda group, row: group[row], in_axes=(1, 0))(vectors, rows)
    return Restart((counts < threshold * even_share) & (counted.sum() > 0), even_share, chosen)

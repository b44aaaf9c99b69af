"""Several calls of a quantizer that make one update."""

from typing import Any

import jax
import jax.numpy as jnp


def accumulate(pending: Any, new: Any, calls: jax.Array, num_microbatches: int) -> tuple[Any, Any, jax.Array]:
    """Add up what the calls of one update bring.

    Args:
        pending: tree of sums since the last update.
        new: the same of this call.
        calls: int32, calls before this one.
        num_microbatches: calls per update.

    Returns:
        total: `pending` and `new`.
        pending: what to keep for the next call: `total`, or zeros after an update.
        due: bool, whether this call ends an update.
    """
    due = (calls + 1) % num_microbatches == 0
    total = jax.tree.map(jnp.add, pending, new)
    return total, jax.tree.map(lambda leaf: jnp.where(due, 0, leaf), total), due

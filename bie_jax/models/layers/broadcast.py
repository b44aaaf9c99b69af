"""Repeating an array so that its gradient, the sum over all repeats, keeps its digits.

A sum in bfloat16 stops growing once a summand is under 1/512 of it: over the positions of a batch of maps the gradient
of a bias was off by a seventh.
"""

import jax
import jax.numpy as jnp


def broadcast(array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`jnp.broadcast_to`, of `array`'s type, whose gradient is summed in float32 at least."""
    wide = jnp.promote_types(array.dtype, jnp.float32)
    return jnp.broadcast_to(array.astype(wide), shape).astype(array.dtype)


def take(table: jax.Array, rows: jax.Array) -> jax.Array:
    """`table[rows]`, rows of [N, D] by their numbers, whose gradient is summed in float32 at least."""
    wide = jnp.promote_types(table.dtype, jnp.float32)
    return table.astype(wide)[rows].astype(table.dtype)

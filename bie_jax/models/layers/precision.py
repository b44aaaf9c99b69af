"""In which type a layer computes: in that of its parameters, where that is narrower."""

import jax
import jax.numpy as jnp


def narrowed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A layer's input, in the kernel's type if that has fewer digits."""
    return x.astype(kernel.dtype) if jnp.finfo(kernel.dtype).bits < jnp.finfo(x.dtype).bits else x

"""x W of all rows of an array: plain, and with a gradient of W that is fast on a CPU."""

import jax
import jax.numpy as jnp


def product(x: jax.Array, kernel: jax.Array, *, cpu_kernels: bool) -> jax.Array:
    """[..., K], [K, *M] -> [..., *M]; with `cpu_kernels` in the CPU form, which other devices take too.

    The axes M are not made one before the product: devices that share one of several (heads) would each have to fetch
    the whole kernel.
    """
    return cpu_product(x, kernel) if cpu_kernels else plain_product(x, kernel)


def plain_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., K], [K, *M] -> [..., *M], with the derivatives that jax finds."""
    return jnp.tensordot(x, kernel, 1)


@jax.custom_vjp
def cpu_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., K], [K, *M] -> [..., *M]; without a forward-mode derivative.

    jax derives the kernel's gradient as (dy^T x)^T. For that a CPU writes out dy^T, and computes what makes dy in the
    order of dy^T, column by column: of a wide output this takes longer than all the rest of a layer. x^T dy copies
    nothing.
    """
    return jnp.tensordot(x, kernel, 1)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.tensordot(x, kernel, 1), (x, kernel)


def _backward(inputs: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    taken, made = x.reshape(-1, x.shape[-1]), dy.reshape(-1, *kernel.shape[1:])
    features = tuple(range(1, kernel.ndim))
    dx = jnp.tensordot(dy, kernel, (tuple(range(x.ndim - 1, dy.ndim)), features))
    return dx, jnp.tensordot(taken.T, made, 1)


cpu_product.defvjp(_forward, _backward)

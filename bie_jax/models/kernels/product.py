"""x W of all rows of an array: plain, and with a gradient of W that is fast on a CPU."""

import jax


def product(x: jax.Array, kernel: jax.Array, *, cpu_kernels: bool) -> jax.Array:
    """[..., K], [K, M] -> [..., M]; with `cpu_kernels` in the CPU form, which other devices take too."""
    return cpu_product(x, kernel) if cpu_kernels else plain_product(x, kernel)


def plain_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., K], [K, M] -> [..., M], with the derivatives that jax finds."""
    return x @ kernel


@jax.custom_vjp
def cpu_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., K], [K, M] -> [..., M]; without a forward-mode derivative.

    jax derives the kernel's gradient as (dy^T x)^T. For that a CPU writes out dy^T, and computes what makes dy in the
    order of dy^T, column by column: of a wide output this takes longer than all the rest of a layer. x^T dy copies
    nothing.
    """
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _backward(inputs: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    return dy @ kernel.T, x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])


cpu_product.defvjp(_forward, _backward)

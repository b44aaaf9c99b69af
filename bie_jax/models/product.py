"""x W of all rows of an array, with a gradient of W that is fast on a CPU."""

import jax


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., K], [K, M] -> [..., M]; without a forward-mode derivative.

    What jax derives for the kernel's gradient is (dy^T x)^T, for which a CPU copies dy turned around, after computing
    in that order, far from the memory's, whatever makes dy: of a wide output behind a norm it takes twice the time of
    the whole layer. x^T dy needs no copy.
    """
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _backward(inputs: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    return dy @ kernel.T, x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])


product.defvjp(_forward, _backward)

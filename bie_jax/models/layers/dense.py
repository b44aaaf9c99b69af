"""The dense layer that every network here uses: the parameters of `nn.Dense` and `nn.DenseGeneral`."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.models.kernels.product import product
from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.precision import narrowed


class Dense(nn.Module):
    """x W + b over the last axes of the input.

    Attributes:
        features: numbers that come out, or the shape of what comes out.
        axes: how many axes of the input go in.
        use_bias: whether a bias is added.
        kernel_init: initializer of the kernel, as a matrix of all that goes in and all that comes out.
        cpu_kernels: see `bie_jax.models.kernels.product.product`.
    """

    features: int | tuple[int, ...]
    axes: int = 1
    use_bias: bool = True
    kernel_init: jax.nn.initializers.Initializer = nn.initializers.lecun_normal()
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., *in] -> [..., *features]; the kernel is [*in, *features], the bias [*features]."""
        taken = x.shape[-self.axes :]
        features = (self.features,) if isinstance(self.features, int) else self.features

        def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return self.kernel_init(key, (math.prod(taken), math.prod(features)), dtype).reshape(shape)

        kernel = self.param("kernel", init, (*taken, *features), jnp.float32)
        rows = narrowed(x, kernel).reshape(*x.shape[: -self.axes], -1)
        y = product(rows, kernel.reshape(rows.shape[-1], *features), cpu_kernels=self.cpu_kernels)
        if self.use_bias:
            y = y + broadcast(self.param("bias", nn.initializers.zeros, features), y.shape)
        return y

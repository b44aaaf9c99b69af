"""A long stack of narrow residual layers, after van den Oord et al. 2017 (arXiv 1711.00937), section 4.1.

All layers of a stack are one scanned layer, so compile time does not grow with depth.
"""

import functools

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import Conv

SAME = ((1, 1), (1, 1))  # padding for 3 x 3 at stride 1 and, with 4 x 4, for halving at stride 2


class _ResidualLayer(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), as the body of a scan."""

    num_residual_hiddens: int
    num_layers: int
    cpu_kernels: bool

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        conv = functools.partial(Conv, cpu_kernels=self.cpu_kernels)
        h = conv(self.num_residual_hiddens, (3, 3), padding=SAME)(nn.relu(x))
        # There is no normalization in this network. With the usual variance each of L layers would multiply the signal
        # by a constant over 1 (3e14 in variance after 150); 1/L keeps the product near e.
        init = nn.initializers.variance_scaling(1.0 / self.num_layers, "fan_in", "truncated_normal")
        h = conv(x.shape[-1], (1, 1), kernel_init=init)(nn.relu(h))
        return x + h, None


class ResidualStack(nn.Module):
    """`num_residual_layers` residual layers and a last relu, [B, H, W, C] -> [B, H, W, C].

    Attributes:
        num_residual_hiddens: channels inside a layer.
        num_residual_layers: length of the stack.
        remat: whether the backward pass computes each layer again instead of keeping what is inside it.
        cpu_kernels: see `bie_jax.models.kernels`.
    """

    num_residual_hiddens: int
    num_residual_layers: int
    remat: bool = False
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layers in turn; their parameters carry a leading axis of length num_residual_layers."""
        layers = nn.scan(
            nn.remat(_ResidualLayer, prevent_cse=False) if self.remat else _ResidualLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.num_residual_layers,
        )
        body = layers(self.num_residual_hiddens, self.num_residual_layers, self.cpu_kernels, name="layers")
        x, _ = body(x, None)
        return nn.relu(x)

"""The predecessor's encoder: two strided convolutions and a long stack of narrow residual layers.

After van den Oord et al. 2017 (arXiv 1711.00937), section 4.1, with the depth as a number: the predecessor's table asks
for 150 layers.
"""

import functools

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import Conv
from bie_jax.models.layers.noted import note_layer
from bie_jax.models.layers.residual_stack import SAME, ResidualStack


class ResidualStackEncoder(nn.Module):
    """[B, H, W, C] -> [B, H/stride, W/stride, num_hiddens], with stride = 2 ** num_halvings (4 in the paper)."""

    num_hiddens: int
    num_residual_hiddens: int
    num_residual_layers: int
    num_halvings: int
    remat: bool = False
    cpu_kernels: bool = True

    @nn.compact
    def __call__(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Encode; without normalization or dropout `channel_mask` and `train` change nothing."""
        del channel_mask, train
        conv = functools.partial(Conv, padding=SAME, cpu_kernels=self.cpu_kernels)
        x = nn.relu(conv(self.num_hiddens // 2, (4, 4), strides=2)(image))
        note_layer(self, "halving1", x)
        for number in range(2, self.num_halvings + 1):
            x = nn.relu(conv(self.num_hiddens, (4, 4), strides=2)(x))
            note_layer(self, f"halving{number}", x)
        x = conv(self.num_hiddens, (3, 3))(x)
        x = ResidualStack(self.num_residual_hiddens, self.num_residual_layers, self.remat, self.cpu_kernels)(x)
        note_layer(self, "stack", x)
        return x

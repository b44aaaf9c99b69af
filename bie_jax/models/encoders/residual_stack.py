"""The seed's encoder and decoder: two strided convolutions and a long stack of narrow residual layers.

After van den Oord et al. 2017 (arXiv 1711.00937), section 4.1, with the depth as a number: the predecessor's table asks
for 150 layers. All layers of a stack are one scanned layer, so compile time does not grow with depth.
"""

import flax.linen as nn
import jax

from bie_jax.models.layers.conv import Conv, upsample

_SAME = ((1, 1), (1, 1))  # for 3 x 3 at stride 1 and, with 4 x 4, for halving at stride 2


class _ResidualLayer(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), as the body of a scan."""

    num_residual_hiddens: int
    num_layers: int

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        h = Conv(self.num_residual_hiddens, (3, 3), padding=_SAME)(nn.relu(x))
        # There is no normalization in this network. With the usual variance each of L layers would multiply the signal
        # by a constant over 1 (3e14 in variance after 150); 1/L keeps the product near e.
        init = nn.initializers.variance_scaling(1.0 / self.num_layers, "fan_in", "truncated_normal")
        h = Conv(x.shape[-1], (1, 1), kernel_init=init)(nn.relu(h))
        return x + h, None


class ResidualStack(nn.Module):
    """`num_residual_layers` residual layers and a last relu, [B, H, W, C] -> [B, H, W, C].

    Attributes:
        num_residual_hiddens: channels inside a layer.
        num_residual_layers: length of the stack.
        remat: whether the backward pass computes each layer again instead of keeping what is inside it.
    """

    num_residual_hiddens: int
    num_residual_layers: int
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layers in turn; their parameters carry a leading axis of length num_residual_layers."""
        layers = nn.scan(
            nn.remat(_ResidualLayer, prevent_cse=False) if self.remat else _ResidualLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.num_residual_layers,
        )
        x, _ = layers(self.num_residual_hiddens, self.num_residual_layers, name="layers")(x, None)
        return nn.relu(x)


class ResidualStackEncoder(nn.Module):
    """[B, H, W, C] -> [B, H/stride, W/stride, num_hiddens], with stride = 2 ** num_halvings (4 in the paper)."""

    num_hiddens: int
    num_residual_hiddens: int
    num_residual_layers: int
    num_halvings: int
    remat: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Encode; without normalization or dropout `channel_mask` and `train` change nothing."""
        del channel_mask, train
        x = nn.relu(Conv(self.num_hiddens // 2, (4, 4), strides=2, padding=_SAME)(image))
        for _ in range(self.num_halvings - 1):
            x = nn.relu(Conv(self.num_hiddens, (4, 4), strides=2, padding=_SAME)(x))
        x = Conv(self.num_hiddens, (3, 3), padding=_SAME)(x)
        return ResidualStack(self.num_residual_hiddens, self.num_residual_layers, self.remat)(x)


class ResidualStackDecoder(nn.Module):
    """[B, H/stride, W/stride, D] -> [B, H, W, C], linear output; stride = 2 ** num_halvings."""

    num_channels: int
    num_hiddens: int
    num_residual_hiddens: int
    num_residual_layers: int
    num_halvings: int
    remat: bool = False

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode a grid of latents; without normalization or dropout `valid` and `train` change nothing."""
        del valid, train
        x = Conv(self.num_hiddens, (3, 3), padding=_SAME)(z)
        x = ResidualStack(self.num_residual_hiddens, self.num_residual_layers, self.remat)(x)
        for _ in range(self.num_halvings - 1):
            x = nn.relu(Conv(self.num_hiddens // 2, (3, 3), padding=_SAME)(upsample(x)))
        return Conv(self.num_channels, (3, 3), padding=_SAME)(upsample(x))

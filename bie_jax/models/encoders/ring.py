"""An encoder of distance matrices over the ring of an outline's points.

The cyclic diagonal k of a matrix, a_k(i) = D[i, (i + k) mod P], is the chord from each point to the k-th next. With
diagonals as channels, and beside them how the outline turns, a matrix is a signal on a ring of P points: another start
rolls it, the other direction reverses it. Circular convolutions, both directions averaged, and statistics over the ring
are the same for all 2 P re-indexings.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.norm import layer_norm
from bie_jax.models.layers.noted import note_layer
from bie_jax.models.layers.precision import narrowed
from bie_jax.models.layers.ring import chords, turns

# Parts of the ring whose means are kept apart where the start matters.
PARTS = 16


class RingEncoder(nn.Module):
    """[B, P, P, 1] distance matrices -> [B, 1, 1, F].

    What `keeps` says is what the features depend on beside the form itself. With "nothing" all 2 P re-indexings of a
    matrix have the same features, which are averages over both directions, and F = 3 `width`: mean, greatest and
    standard deviation over the ring. With "direction" only the P starts have, so that an outline and its mirror image,
    traced the same way round, are told apart. With "start" the features are means of 16 equal parts of the ring, F =
    16 `width`, and where an outline begins tells how it lies.

    Attributes:
        width: channels.
        depth: convolutions.
        kernel_size: points that a convolution sees, an odd number.
        keeps: see above.
    """

    width: int
    depth: int
    kernel_size: int
    keeps: Literal["nothing", "direction", "start"]

    def setup(self) -> None:
        """The layers, one after the other."""
        self.convolutions = [
            _RingConv(self.width, self.kernel_size, name=f"conv{number + 1}") for number in range(self.depth)
        ]
        self.norms = [layer_norm(1e-6, f"norm{number + 1}") for number in range(self.depth)]

    def __call__(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Encode symmetric matrices; `channel_mask` and `train` change nothing."""
        del channel_mask, train
        # Turns are small differences of points, of which half precision leaves nothing; the layers compute in it.
        d = image[..., 0].astype(jnp.promote_types(image.dtype, jnp.float32))
        turning = turns(d)
        x = self._along_ring(chords(d), turning)
        if self.keeps == "start":
            features = x.reshape(len(x), PARTS, -1, self.width).mean(axis=2).reshape(len(x), -1)
        else:
            features = _statistics(x)
        if self.keeps == "nothing":
            other_way = self._along_ring(chords(d[:, ::-1, ::-1]), turning[:, ::-1])
            features = (features + _statistics(other_way)) / 2
        return features[:, None, None, :]

    def _along_ring(self, chords: jax.Array, turns: jax.Array) -> jax.Array:
        """[B, P, K] and [B, P, K'] -> [B, P, width], in the direction in which they run."""
        x = jnp.concatenate([chords, turns], axis=-1)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            h = norm(convolution(x))
            x = nn.gelu(h if number == 0 else x + h)
            note_layer(self, f"layer{number + 1}", x)
        return x


class _RingConv(nn.Module):
    """Circular convolution with the parameters of `nn.Conv`, [B, P, C_in] -> [B, P, C_out]."""

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.kernel_size, x.shape[-1], self.features))
        reach = self.kernel_size // 2
        x = jnp.pad(narrowed(x, kernel), ((0, 0), (reach, reach), (0, 0)), mode="wrap")
        y = lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))
        return y + broadcast(self.param("bias", nn.initializers.zeros, (self.features,)), y.shape)


def _statistics(x: jax.Array) -> jax.Array:
    """[B, P, C] -> [B, 3 C]: mean, greatest and standard deviation over the ring, and their gradients, in float32."""
    dtype, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = x.mean(axis=1)
    variance = jnp.square(x - mean[:, None]).mean(axis=1)
    # The root's derivative at 0 is infinite, where a circle's statistics are; a floor bounds it.
    return jnp.concatenate([mean, x.max(axis=1), jnp.sqrt(variance + 1e-6)], axis=-1).astype(dtype)

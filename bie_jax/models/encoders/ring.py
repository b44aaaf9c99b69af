"""Networks over the ring of an outline's points: an encoder of distance matrices, and two decoders that make them.

The cyclic diagonal k of a matrix, a_k(i) = D[i, (i + k) mod P], is the chord from each point to the k-th next. With
diagonals as channels, and beside them how the outline turns, a matrix is a signal on a ring of P points: another start
rolls it, the other direction reverses it. Circular convolutions, both directions averaged, and statistics over the ring
are the same for all 2 P re-indexings.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bie_jax.models.layers.broadcast import broadcast
from bie_jax.models.layers.conv import Conv, upsample
from bie_jax.models.layers.dense import Dense
from bie_jax.shapes.distance_matrix import normalized_distances
from bie_jax.shapes.mds import points_of_exact

# Parts of the ring whose means are kept apart where the start matters.
PARTS = 16
# Of outlines of RMS 1: area (a circle has 1.6) and length below which a direction would be one of rounding.
_NO_AREA = 5e-3
_NO_LENGTH = 1e-3
# Width of the hidden layers of the decoder of points.
_HIDDEN = 512
# Sides of the map that a matrix grows from are P over this.
GROWTH = 8


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
        self.norms = [_layer_norm(f"norm{number + 1}") for number in range(self.depth)]

    def __call__(self, image: jax.Array, channel_mask: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Encode symmetric matrices; `channel_mask` and `train` change nothing."""
        del channel_mask, train
        # Turns are small differences of points, of which half precision leaves nothing; the layers compute in it.
        d = image[..., 0].astype(jnp.promote_types(image.dtype, jnp.float32))
        turning = turns(d).astype(image.dtype)
        x = self._along_ring(chords(d).astype(image.dtype), turning)
        if self.keeps == "start":
            features = x.reshape(len(x), PARTS, -1, self.width).mean(axis=2).reshape(len(x), -1)
        else:
            features = _statistics(x)
        if self.keeps == "nothing":
            other_way = self._along_ring(chords(d[:, ::-1, ::-1]).astype(image.dtype), turning[:, ::-1])
            features = (features + _statistics(other_way)) / 2
        return features[:, None, None, :]

    def _along_ring(self, chords: jax.Array, turns: jax.Array) -> jax.Array:
        """[B, P, K] and [B, P, K'] -> [B, P, width], in the direction in which they run."""
        x = jnp.concatenate([chords, turns], axis=-1)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            h = norm(convolution(x))
            x = nn.gelu(h if number == 0 else x + h)
        return x


def _layer_norm(name: str) -> nn.LayerNorm:
    # About the mean: flax's own choice, the mean square less the squared mean, loses its digits far from 0.
    return nn.LayerNorm(use_fast_variance=False, name=name)


class _RingConv(nn.Module):
    """Circular convolution with the parameters of `nn.Conv`, [B, P, C_in] -> [B, P, C_out]."""

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.kernel_size, x.shape[-1], self.features))
        reach = self.kernel_size // 2
        x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)), mode="wrap")
        y = lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))
        return y + broadcast(self.param("bias", nn.initializers.zeros, (self.features,)), y.shape)


class PointsDecoder(nn.Module):
    """[B, h, w, F] -> P points, and their normalized distances [B, P, P, 1].

    What comes out is a distance matrix by construction: its diagonal is zero, it is symmetric, not negative, and keeps
    the triangle inequality.

    Attributes:
        num_points: P.
    """

    num_points: int

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode; `valid` and `train` change nothing."""
        del valid, train
        x = z.reshape(len(z), -1)
        for number in range(2):
            x = nn.gelu(Dense(_HIDDEN, name=f"layer{number + 1}")(x))
        points = Dense(2 * self.num_points, name="points")(x).reshape(-1, self.num_points, 2)
        # A circle to begin with: from points in one place there is no way out.
        angle = 2 * np.pi * np.arange(self.num_points) / self.num_points
        circle = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        return normalized_distances(points + jnp.asarray(circle, points.dtype)[None])[0][..., None]


class MatrixDecoder(nn.Module):
    """[B, h, w, F] -> any [B, P, P, 1]: a small map, doubled three times with a circular convolution after each.

    Attributes:
        num_points: P, a multiple of 8.
        width: channels of the maps.
    """

    num_points: int
    width: int = 32

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Decode; `valid` and `train` change nothing."""
        del valid, train
        side = self.num_points // GROWTH
        x = Dense(side * side * self.width, name="map")(z.reshape(len(z), -1))
        x = nn.gelu(x.reshape(-1, side, side, self.width))
        around = {"kernel_size": (3, 3), "padding": ((1, 1), (1, 1)), "padding_mode": "circular"}
        for number in range(3):
            x = Conv(self.width, **around, name=f"conv{number + 1}")(upsample(x))
            x = nn.gelu(_layer_norm(f"LayerNorm_{number}")(x))
        return Conv(1, **around, name="output")(x)


def chords(d: jax.Array) -> jax.Array:
    """How far points lie apart that are some steps apart, beside a circle.

    Args:
        d: [B, P, P] distances of outlines, of RMS 1.

    Returns:
        [B, P, K]: D[i, i + k] over the chord of k steps in a circle of the same RMS, less 1, at point i, for the steps
        of `ring_steps`. A short chord is a hundredth of a long one and tells as much: so scaled, all count alike.
    """
    num_points = d.shape[1]
    steps = ring_steps(num_points)
    circle = np.sqrt(2) * np.sin(np.pi * steps / num_points)
    return _at_steps(d, steps) / jnp.asarray(circle, d.dtype)[None, None] - 1


def turns(d: jax.Array) -> jax.Array:
    """How the outline turns at each point, inwards or outwards, beside a circle.

    Distances alone do not say at once whether a bend is a bump or a bay; together they do: they fix the points, but for
    a motion and a reflection. The sine is that of the points, times the sign of the area that they enclose. The other
    direction changes the sign of both factors, and so does a reflection: their product stays.

    Args:
        d: [B, P, P] distances of outlines, of RMS 1.

    Returns:
        [B, P, K']: sine of the angle between the ways from point i - k to i and from i to i + k, positive where the
        outline is convex, less that of a circle, for the steps up to P // 4. Where an outline encloses no area, or
        points coincide, it is as if it ran straight.
    """
    num_points = d.shape[1]
    points = points_of_exact(d)
    area = _cross(points, jnp.roll(points, -1, axis=1)).sum(axis=1) / 2  # [B]
    side = area / jnp.maximum(jnp.abs(area), _NO_AREA)  # 1, -1, or between them where there is hardly any area
    steps = ring_steps(num_points)
    steps = steps[steps <= num_points // 4]
    point = np.arange(num_points)[:, None]
    before, after = (point - steps) % num_points, (point + steps) % num_points
    here = points[:, :, None]
    lengths = d[:, before, point] * d[:, point, after]
    sine = _cross(here - points[:, before], points[:, after] - here) / jnp.maximum(lengths, _NO_LENGTH**2)
    circle = np.sin(2 * np.pi * steps / num_points)
    return sine * side[:, None, None] - jnp.asarray(circle, d.dtype)[None, None]


def _cross(u: jax.Array, v: jax.Array) -> jax.Array:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def ring_steps(num_points: int) -> np.ndarray:
    """Steps along the ring that are looked at, each about sqrt 2 times the one before: 1, 2, 3, 4, 6, 8 ... P // 2."""
    return np.unique(np.round(2 ** np.arange(0, np.log2(num_points // 2) + 0.01, 0.5)).astype(int))


def _at_steps(d: jax.Array, steps: np.ndarray) -> jax.Array:
    """[B, P, P] -> [B, P, K]: D[i, (i + k) mod P]."""
    start = np.arange(d.shape[1])[:, None]
    return d[:, start, (start + steps) % d.shape[1]]


def _statistics(x: jax.Array) -> jax.Array:
    """[B, P, C] -> [B, 3 C]: mean, greatest and standard deviation over the ring, and their gradients, in float32."""
    dtype, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = x.mean(axis=1)
    variance = jnp.square(x - mean[:, None]).mean(axis=1)
    # The root's derivative at 0 is infinite, where a circle's statistics are; a floor bounds it.
    return jnp.concatenate([mean, x.max(axis=1), jnp.sqrt(variance + 1e-6)], axis=-1).astype(dtype)

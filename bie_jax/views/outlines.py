"""From outlines to distance matrices, on the device, inside the compiled step.

The counterpart of `views.images` for sets of shapes: the same two views with the same signatures. A set's outlines
[P', 2] have equal steps of arc length, so every P'/P-th of their points is an outline of P points with equal steps (and
an embedding the mean over all such outlines, `num_phases`). A matrix does not know how the outline lies, turns or is
mirrored; the random changes here are what is left: where it starts, in which direction it goes, where its points stand,
and its form itself, a little.
"""

import jax
import jax.numpy as jnp

from bie_jax.config.schema import DataConfig, ModelConfig, OutlineConfig
from bie_jax.shapes.distance_matrix import normalized_distances
from bie_jax.views.intensities import IntensityTable

# Waves around the outline that its boundary is displaced by: from 2, as 1 would move it, to this.
_MOST_WAVES = 16
# Waves around the outline by which points stand closer and further apart.
_UNEVEN_WAVES = 3


def train_view(
    key: jax.Array, image: jax.Array, plate: jax.Array, table: IntensityTable, config: DataConfig
) -> jax.Array:
    """The random view that a training step sees; `config.outline` says how random.

    Args:
        key: all randomness of this batch; outline b's share depends on its place in the batch only.
        image: [B, P', 2, 1] float32, outlines, px.
        plate: not read: distance matrices are scale-free.
        table: not read.
        config: the checked `data` group; P = `crop_size[0]`.

    Returns:
        [B, P, P, 1] float32, of RMS 1.
    """
    del plate, table
    settings = config.outline
    start_key, uneven_key, stretch_key, noise_key = jax.random.split(key, 4)
    # From their mean first: a step between two points has few digits of a place far out in a large image.
    points = image[..., 0] - image[..., 0].mean(axis=1, keepdims=True)
    points = _resample(start_key, uneven_key, points, config.crop_size[0], settings)
    points = points - points.mean(axis=1, keepdims=True)
    if settings.stretch > 0:
        points = random_stretch(stretch_key, points, settings.stretch)
    if settings.noise > 0:
        points = random_noise(noise_key, points, settings.noise)
    return normalized_distances(points)[0][..., None]


def eval_view(
    image: jax.Array, plate: jax.Array, table: IntensityTable, size: tuple[int, int], config: DataConfig
) -> jax.Array:
    """The one view of an outline at validation and embedding: [B, P', 2, 1] -> [B, P, P, 1], P = `size[0]`."""
    del plate, table, config
    step = image.shape[1] // size[0]
    return normalized_distances(image[:, ::step, :, 0])[0][..., None]


def num_phases(num_stored: int, size: tuple[int, int], model: ModelConfig) -> int:
    """How many views of an outline are averaged for its embedding: all that another start could give, or one.

    Every k-th of the stored points are k different outlines, and which one is seen depends on where the outline starts:
    an encoder that is the same for all starts of what it sees is not yet the same for all starts of what is stored, but
    its mean over the k of them is.

    Args:
        num_stored: P'.
        size: (P, P).
        model: the checked `model` group.

    Returns:
        k = P' / P for the ring, unless it keeps the start; 1 for every encoder that depends on it.
    """
    return num_stored // size[0] if model.encoder == "ring" and model.ring.keeps != "start" else 1


def _resample(
    start_key: jax.Array, uneven_key: jax.Array, points: jax.Array, num_points: int, settings: OutlineConfig
) -> jax.Array:
    """[B, P', 2] -> [B, P, 2]: points of the closed polygon at equal or uneven steps, from a kept or random start."""
    batch, available, _ = points.shape
    place = jnp.broadcast_to(jnp.arange(num_points) / num_points, (batch, num_points))  # share of the length
    if settings.unevenness > 0:
        place = place + uneven_places(uneven_key, batch, num_points, settings.unevenness)
    shift_key, flip_key = jax.random.split(start_key)
    if settings.reindex != "none":
        place = place + jax.random.uniform(shift_key, (batch, 1))
    if settings.reindex == "start_and_direction":
        place = jnp.where(jax.random.bernoulli(flip_key, 0.5, (batch, 1)), -place, place)
    position = (place % 1) * available
    before = jnp.floor(position).astype(jnp.int32) % available
    share = (position - jnp.floor(position))[..., None]
    here = jnp.take_along_axis(points, before[..., None], axis=1)
    there = jnp.take_along_axis(points, ((before + 1) % available)[..., None], axis=1)
    return (1 - share) * here + share * there


def uneven_places(key: jax.Array, batch: int, num_points: int, amount: float) -> jax.Array:
    """What is added to the places k / P: smooth, periodic, and so little that no two points change places.

    Args:
        key: for the waves.
        batch: B.
        num_points: P.
        amount: in [0, 1): steps between points are longer or shorter by this share at most.

    Returns:
        [B, P] in shares of the length.
    """
    waves = jnp.arange(1, _UNEVEN_WAVES + 1)
    size_key, phase_key = jax.random.split(key)
    size = jax.random.uniform(size_key, (batch, 1, _UNEVEN_WAVES), maxval=amount / _UNEVEN_WAVES)
    phase = jax.random.uniform(phase_key, (batch, 1, _UNEVEN_WAVES), maxval=2 * jnp.pi)
    turn = 2 * jnp.pi * waves[None, None] * (jnp.arange(num_points) / num_points)[None, :, None]
    # The derivative of the sum is at most `amount`.
    return (size / (2 * jnp.pi * waves[None, None]) * jnp.sin(turn + phase)).sum(axis=-1)


def random_stretch(key: jax.Array, points: jax.Array, amount: float) -> jax.Array:
    """Longer along a random axis by a factor e^s, shorter across by e^-s, s from U(0, `amount`): area stays.

    Args:
        key: for axes and factors.
        points: [B, P, 2].
        amount: see above.
    """
    size_key, axis_key = jax.random.split(key)
    size = jax.random.uniform(size_key, (len(points),), maxval=amount)
    angle = jax.random.uniform(axis_key, (len(points),), maxval=2 * jnp.pi)  # of twice the axis
    # exp of the symmetric matrix s [[cos, sin], [sin, -cos]].
    grow, turn = jnp.cosh(size), jnp.sinh(size)
    a, b, d = grow + turn * jnp.cos(angle), turn * jnp.sin(angle), grow - turn * jnp.cos(angle)
    matrix = jnp.stack([jnp.stack([a, b], axis=-1), jnp.stack([b, d], axis=-1)], axis=-2)
    return jnp.einsum("bpi,bij->bpj", points, matrix, precision="highest")


def random_noise(key: jax.Array, points: jax.Array, amount: float) -> jax.Array:
    """Displace the boundary smoothly.

    The displacement is a sum of waves around the outline with normal amplitudes that fall as 1 / wave number.

    Args:
        key: for the waves.
        points: [B, P, 2], centered.
        amount: standard deviation of each coordinate's displacement, of the outline's RMS radius.
    """
    batch, num_points, _ = points.shape
    waves = jnp.arange(2, _MOST_WAVES + 1)
    turn = 2 * jnp.pi * jnp.outer(waves, jnp.arange(num_points) / num_points)
    basis = jnp.concatenate([jnp.cos(turn), jnp.sin(turn)]) / jnp.tile(waves, 2)[:, None]
    basis = basis / jnp.sqrt((1 / waves**2).sum())  # unit variance at every point
    size = jax.random.normal(key, (batch, 2, len(basis)))
    radius = jnp.sqrt(jnp.square(points).sum(axis=-1).mean(axis=-1))[:, None, None]
    return points + amount * radius * jnp.einsum("bcw,wp->bpc", size, basis, precision="highest")

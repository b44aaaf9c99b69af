"""Windows of images: the middle one, a random one at the images' own scale, and random ones at any scale and angle."""

import math

import jax
import jax.numpy as jnp

from bie_jax.config.schema import AugmentConfig


def center_crop(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The middle [B, *size, C]; one pixel nearer the origin where the margin is odd."""
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def random_crop(key: jax.Array, image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A window of [B, *size, C], drawn uniformly and for every image on its own; no pixel is changed."""
    b, h, w, c = image.shape
    top_key, left_key = jax.random.split(key)
    top = jax.random.randint(top_key, (b,), 0, h - size[0] + 1)
    left = jax.random.randint(left_key, (b,), 0, w - size[1] + 1)
    return jax.vmap(lambda x, i, j: jax.lax.dynamic_slice(x, (i, j, 0), (*size, c)))(image, top, left)


def is_resampled(augment: AugmentConfig) -> bool:
    """Whether windows have a scale or an angle of their own, so that pixels lie between those of the image."""
    return augment.rotate or augment.area[1] > 0


def random_window(key: jax.Array, image: jax.Array, size: tuple[int, int], augment: AugmentConfig) -> jax.Array:
    """A window of random size, form, angle and place in each image, seen through `size` pixels.

    With `area` (0, 0) every window is `size` pixels large and form and scale are the image's. Its place is uniform
    among those where the whole turned window lies in the image, and the middle along an axis where there is none.

    Args:
        key: for all four.
        image: [B, H, W, C], any number type.
        size: (h, w) of the result, pixels.
        augment: `area`, `aspect` and `rotate` are read.

    Returns:
        [B, *size, C] float32.
    """
    b, h, w, _ = image.shape
    area_key, aspect_key, angle_key, place_key = jax.random.split(key, 4)
    low, high = augment.area
    if high > 0:
        area = jax.random.uniform(area_key, (b,), minval=low, maxval=high) * (h * w)
        side = jnp.sqrt(area)
        relative = math.sqrt(size[0] / size[1])  # a window of ratio 1 has the form of the view
        form = _aspect(aspect_key, side * relative / h, side / relative / w, augment.aspect)
        window = jnp.stack([side * relative * form, side / relative / form], axis=1)
    else:
        window = jnp.broadcast_to(jnp.asarray(size, jnp.float32), (b, 2))
    angle = jax.random.uniform(angle_key, (b,), maxval=2 * jnp.pi) if augment.rotate else jnp.zeros(b)
    cos, sin = jnp.abs(jnp.cos(angle)), jnp.abs(jnp.sin(angle))
    turned = jnp.stack([cos * window[:, 0] + sin * window[:, 1], sin * window[:, 0] + cos * window[:, 1]], axis=1)
    free = jnp.maximum(jnp.asarray([[h, w]], jnp.float32) - turned, 0)
    middle = jnp.asarray([[(h - 1) / 2, (w - 1) / 2]], jnp.float32)
    center = middle + free * (jax.random.uniform(place_key, (b, 2)) - 0.5)
    return resample(image, center, window, angle, size, samples_per_pixel((h, w), size, augment))


def _aspect(key: jax.Array, height: jax.Array, width: jax.Array, most: float) -> jax.Array:
    """Square roots [B] of aspect ratios, log-uniform in [1 / most, most] as far as the window stays in its image.

    Args:
        key: for the ratios.
        height, width: [B], of the windows of ratio 1, in heights and widths of the image; their product is at most 1.
        most: at least 1.
    """
    end = math.log(most) / 2
    # A window that is too long for its image at every ratio that is allowed takes the nearest one, and is mirrored.
    lowest = jnp.clip(jnp.log(width), -end, end)
    highest = jnp.clip(-jnp.log(height), -end, end)
    return jnp.exp(lowest + (highest - lowest) * jax.random.uniform(key, height.shape))


def samples_per_pixel(image_size: tuple[int, int], size: tuple[int, int], augment: AugmentConfig) -> tuple[int, int]:
    """Samples along each axis of a pixel, so that no two are further apart than a pixel of the image.

    Args:
        image_size: (H, W).
        size: (h, w) of the view.
        augment: `area` and `aspect` are read.
    """
    high = augment.area[1]
    if high == 0:
        return 1, 1
    # Pixels of the image a pixel of the view, for the largest window; a long one is longer, but never than its image.
    scale = math.sqrt(high * image_size[0] * image_size[1] / (size[0] * size[1]))
    longest = [min(scale * math.sqrt(augment.aspect), max(scale, i / s)) for i, s in zip(image_size, size)]
    vertical, horizontal = (max(1, math.ceil(length - 1e-6)) for length in longest)
    return vertical, horizontal


def resample(
    image: jax.Array,
    center: jax.Array,
    window: jax.Array,
    angle: jax.Array,
    size: tuple[int, int],
    samples: tuple[int, int],
) -> jax.Array:
    """Look at a turned window of each image through a grid of pixels: one bilinear resampling.

    Pixel (i, j) of the image is a square around the place (i, j); beyond its outermost squares the image goes on
    mirrored at their edges (d c b a | a b c d | d c b a). A pixel of the result is the mean over an even grid of
    samples in its square, one sample at its middle where `samples` are (1, 1).

    Args:
        image: [B, H, W, C], any number type.
        center: [B, 2] places, (row, column).
        window: [B, 2] height and width before it is turned, pixels of the image.
        angle: [B] radians, by which the window is turned from the rows' axis towards the columns'.
        size: (h, w) of the result.
        samples: along each axis of a pixel of the result.

    Returns:
        [B, h, w, C] float32.
    """
    height, width = image.shape[1:3]
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]

    def look(sample: jax.Array) -> jax.Array:
        """One sample of every pixel."""
        first, second = sample // samples[1], sample % samples[1]
        # Places in shares of the window, from its middle.
        v = (jnp.arange(size[0]) + (first + 0.5) / samples[0]) / size[0] - 0.5
        u = (jnp.arange(size[1]) + (second + 0.5) / samples[1]) / size[1] - 0.5
        down = window[:, 0, None, None] * v[None, :, None]
        right = window[:, 1, None, None] * u[None, None, :]
        y = center[:, 0, None, None] + cos * down - sin * right
        x = center[:, 1, None, None] + sin * down + cos * right
        return _between_pixels(image, _mirrored(y, height), _mirrored(x, width))

    num_samples = samples[0] * samples[1]
    if num_samples == 1:
        return look(jnp.int32(0))
    # In a loop, so that no view is held at a multiple of its size.
    total = jax.lax.fori_loop(1, num_samples, lambda sample, total: total + look(sample), look(jnp.int32(0)))
    return total / num_samples


def _between_pixels(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """The image [B, H, W, C] at places [B, h, w] in [-0.5, H - 0.5] and [-0.5, W - 0.5]: [B, h, w, C] float32."""
    b, height, width, channels = image.shape
    flat = image.reshape(b, height * width, channels)
    top, left = jnp.floor(y), jnp.floor(x)
    below, beside = (y - top)[..., None], (x - left)[..., None]
    row, column = top.astype(jnp.int32), left.astype(jnp.int32)

    def at(row: jax.Array, column: jax.Array) -> jax.Array:
        # The pixel beyond an edge is the one at the edge, mirrored.
        place = row.clip(0, height - 1) * width + column.clip(0, width - 1)
        taken = jax.vmap(lambda pixels, place: pixels.at[place].get(mode="promise_in_bounds"))(flat, place)
        return taken.astype(jnp.float32)

    upper = (1 - beside) * at(row, column) + beside * at(row, column + 1)
    lower = (1 - beside) * at(row + 1, column) + beside * at(row + 1, column + 1)
    return (1 - below) * upper + below * lower


def _mirrored(place: jax.Array, length: int) -> jax.Array:
    """Places on an endless axis -> the places in [-0.5, length - 0.5] of which they are mirror images."""
    return length - jnp.abs(length - (place + 0.5) % (2 * length)) - 0.5

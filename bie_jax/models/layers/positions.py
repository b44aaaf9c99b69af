"""What a token is told of its place: fixed waves, or learned arrays."""

import functools

import flax.linen as nn
import jax
import numpy as np

from bie_jax.models.layers.patches import Grid

token_init = nn.initializers.normal(0.02)


@functools.cache
def sincos_positions(grid: Grid, width: int) -> np.ndarray:
    """Fixed positions [rows, columns, width] float32.

    With w_i = 10000 ** (-i / (width / 4)), i = 0 .. width/4 - 1, the vector at (row y, column x) is
    [sin(x w), cos(x w), sin(y w), cos(y w)]: columns first, as in the code of He et al. (MoCo v3's and big_vision's
    divide i by width/4 - 1 instead).

    Raises:
        ValueError: if `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"positions of width {width}: it must be a multiple of 4, for a sine and a cosine per axis")
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    y, x = np.meshgrid(*(np.arange(length) for length in grid), indexing="ij")
    angles = [axis[..., None] * frequencies for axis in (x, y)]  # [rows, columns, width / 4]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=-1).astype(np.float32)


class LearntTable(nn.Module):
    """A learned array [..., D] of the shape that is asked for first.

    Attributes:
        axes: what its axes but the last count, for the message that refuses another shape.
    """

    axes: str

    @nn.compact
    def __call__(self, shape: tuple[int, ...]) -> jax.Array:
        """The array.

        Raises:
            ValueError: if it has another shape.
        """
        if self.has_variable("params", "embedding"):
            learned = self.get_variable("params", "embedding").shape
            if learned != shape:
                raise ValueError(f"this network has learned {learned[:-1]} and is given {shape[:-1]} {self.axes}")
        return self.param("embedding", token_init, shape)

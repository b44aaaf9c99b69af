"""3 x 3 convolution with step 1 in 16 multiplications for 4 outputs instead of 36, for a CPU.

Lavin & Gray 2015, "Fast algorithms for convolutional neural networks", arXiv 1509.09308, section 4.1: F(2 x 2, 3 x 3).
A tile of 2 x 2 outputs is A^T [(G g G^T) * (B^T d B)] A, of the kernel g and the 4 x 4 inputs d that the tile sees, two
of which per axis the next tile sees too. Summed over input channels the product in the middle is, for each of its 16
places, one matrix product over all tiles. The gradients are the same transformations turned around. In float32 it is
as exact as the sum of 9 products; in bfloat16 it would not be.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
_B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])

# With fewer channels transforming the images takes longer than multiplying them.
_MIN_CHANNELS = 32
# Bytes that images grow to before they are multiplied, of as many images as are taken at once: so many stay in cache.
_BYTES_AT_ONCE = 2**23

Padding = tuple[tuple[int, int], tuple[int, int]]
_Tiles = tuple[int, int]  # (rows, columns) of tiles of an image


def is_faster(x: jax.Array, kernel: jax.Array, strides: int, padding: Padding) -> bool:
    """Whether a convolution is one for this algorithm, and large enough that a CPU gains by it."""
    if kernel.shape[:2] != (3, 3) or strides != 1 or x.dtype != jnp.float32:
        return False
    tiles = len(x) * math.prod(_tiles_of(*_output_size(x, padding)))
    # With fewer tiles than channels most of the time goes to reading the kernel, which grows to 16 / 9.
    return min(kernel.shape[2:]) >= _MIN_CHANNELS and max(kernel.shape[2:]) < tiles


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """[B, H, W, C_in], [3, 3, C_in, C_out] -> [B, H', W', C_out], all float32."""
    height, width = _output_size(x, padding)
    tiles = _tiles_of(height, width)
    factors = _transform(_G, kernel)
    images = _in_parts(x, tiles)

    def put(part: Any, y: jax.Array) -> jax.Array:
        seen = _transform_tiles(_B.T, _part(images, part), padding, tiles)
        tile = _transform(_A.T, jnp.einsum("abnc,abcd->abnd", seen, factors))
        return lax.dynamic_update_index_in_dim(y, _join(tile, len(y), tiles), part, axis=1)

    y = jnp.zeros((*images.shape[:2], 2 * tiles[0], 2 * tiles[1], kernel.shape[-1]), x.dtype)
    return lax.fori_loop(0, images.shape[1], put, y).reshape(len(x), *y.shape[2:])[:, :height, :width]


def kernel_gradient(x: jax.Array, dy: jax.Array, padding: Padding) -> jax.Array:
    """Of `convolve`: [B, H, W, C_in], dy [B, H', W', C_out] -> [3, 3, C_in, C_out], all float32."""
    tiles = _tiles_of(*dy.shape[1:3])
    images = _in_parts(x, tiles)
    gradients = dy.reshape(*images.shape[:2], *dy.shape[1:])

    def add(part: Any, total: jax.Array) -> jax.Array:
        seen = _transform_tiles(_B.T, _part(images, part), padding, tiles)
        wanted = _transform_tiles(_A, _part(gradients, part), ((0, 0), (0, 0)), tiles)
        return total + jnp.einsum("abnc,abnd->abcd", seen, wanted)

    zeros = jnp.zeros((4, 4, x.shape[-1], dy.shape[-1]), x.dtype)
    return _transform(_G.T, lax.fori_loop(0, images.shape[1], add, zeros))


def _output_size(x: jax.Array, padding: Padding) -> tuple[int, int]:
    height, width = (size + sum(pad) - 2 for size, pad in zip(x.shape[1:3], padding, strict=True))
    return height, width


def _tiles_of(height: int, width: int) -> _Tiles:
    return -(-height // 2), -(-width // 2)


def _in_parts(x: jax.Array, tiles: _Tiles) -> jax.Array:
    """[B, ...] -> [images at once, parts, ...]: the axis that a batch is split along over devices stays the first."""
    grown = 16 * math.prod(tiles) * x.shape[-1] * x.dtype.itemsize
    at_once = max(n for n in range(1, len(x) + 1) if len(x) % n == 0 and (n == 1 or n * grown <= _BYTES_AT_ONCE))
    return x.reshape(at_once, -1, *x.shape[1:])


def _part(images: jax.Array, part: Any) -> jax.Array:
    return lax.dynamic_index_in_dim(images, part, axis=1, keepdims=False)


def _transform(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """M t M^T of t = x[:, :, ...], M [m, k]: [k, k, ...] -> [m, m, ...]."""
    rows = _combine(matrix, list(x), axis=0)
    return _combine(matrix, [rows[:, j] for j in range(matrix.shape[1])], axis=1)


def _transform_tiles(matrix: np.ndarray, images: jax.Array, padding: Padding, tiles: _Tiles) -> jax.Array:
    """M t M^T of the tiles t of k x k pixels that start 2 apart, M [m, k]: [n, H, W, C] -> [m, m, all tiles, C].

    Zeros stand before an image as `padding` says, and behind it as far as its tiles reach.
    """
    side = matrix.shape[1]
    (top, _), (left, _) = padding
    bottom, right = (
        2 * number - 2 + side - before - size
        for number, before, size in zip(tiles, (top, left), images.shape[1:3], strict=True)
    )
    images = lax.pad(images, jnp.zeros((), images.dtype), ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)))
    rows = _combine(matrix, _pixels(images, 1, tiles[0], side), axis=0)
    places = _combine(matrix, _pixels(rows, 3, tiles[1], side), axis=1)
    return places.reshape(*places.shape[:2], -1, places.shape[-1])


def _pixels(x: jax.Array, axis: int, tiles: int, side: int) -> list[jax.Array]:
    """Pixel 0, 1 .. `side` - 1 of each tile along an axis of 2 (tiles - 1) + side pixels."""
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    of_pairs = [lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)]
    return [lax.slice_in_dim(of_pairs[i % 2], i // 2, i // 2 + tiles, axis=axis) for i in range(side)]


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array], axis: int) -> jax.Array:
    """Matrix [m, k] times k arrays, along a new axis; computed once, not anew wherever it is used."""
    rows = ([float(f) * part for f, part in zip(row, parts, strict=True) if f] for row in matrix)
    return lax.optimization_barrier(jnp.stack([functools.reduce(operator.add, row) for row in rows], axis))


def _join(tile: jax.Array, images: int, tiles: _Tiles) -> jax.Array:
    """[2, 2, all tiles, C] -> [images, 2 rows, 2 columns, C]."""
    grid = tile.reshape(2, 2, images, *tiles, -1).transpose(2, 3, 0, 4, 1, 5)
    return grid.reshape(images, 2 * tiles[0], 2 * tiles[1], -1)

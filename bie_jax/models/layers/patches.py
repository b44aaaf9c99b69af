"""Images as rows of square patches, and back."""

import jax

Grid = tuple[int, int]  # (rows, columns) of patches


def patchify(image: jax.Array, patch_size: int) -> jax.Array:
    """[B, H, W, C] -> [B, N, p p C]: patches row by row; in a patch row, column, channel, as He et al. order them.

    Raises:
        ValueError: if patches do not cover the image.
    """
    b, c = image.shape[0], image.shape[-1]
    rows, columns = patch_grid(image.shape, patch_size)
    image = image.reshape(b, rows, patch_size, columns, patch_size, c)
    return image.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * columns, patch_size * patch_size * c)


def unpatchify(patches: jax.Array, grid: Grid, patch_size: int) -> jax.Array:
    """The inverse of `patchify`: [B, N, p p C] -> [B, H, W, C], from N = rows x columns of `grid`."""
    b = patches.shape[0]
    rows, columns = grid
    image = patches.reshape(b, rows, columns, patch_size, patch_size, -1)
    return image.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * patch_size, columns * patch_size, -1)


def patch_grid(image_shape: tuple[int, ...], patch_size: int) -> Grid:
    """Rows and columns of patches of an image [..., H, W, C].

    Raises:
        ValueError: if patches do not cover the image.
    """
    height, width = image_shape[-3:-1]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"an image of {height} x {width} pixels cannot be cut into patches of model.vit.patch_size={patch_size}; "
            "its sides must be multiples of it"
        )
    return height // patch_size, width // patch_size

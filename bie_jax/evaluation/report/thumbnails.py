"""Small pictures of examples, and the atlas that holds all of them for the report."""

import base64
import io
import math

import numpy as np
from PIL import Image


def tile_size(count: int, image_side_px: int) -> int:
    """Side of a thumbnail in px: smaller for many images, so that the report stays a few megabytes; never enlarged."""
    side = 96 if count <= 1200 else 64 if count <= 3000 else 40
    return min(side, image_side_px)


def shrink(picture: np.ndarray, side: int) -> Image.Image:
    """[H, W, 3] uint8 fitted into a black square of `side` px, its shape kept."""
    image = Image.fromarray(picture)
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    square = Image.new("RGB", (side, side))
    square.paste(image.resize(size, Image.Resampling.BOX), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def pack_atlas(tiles: list[Image.Image]) -> tuple[str, int]:
    """All thumbnails in one WebP picture, row by row.

    Args:
        tiles: squares of one size, at least one.

    Returns:
        A data URI, and the number of tiles in a row.
    """
    columns = math.ceil(math.sqrt(len(tiles)))
    side = tiles[0].width
    atlas = Image.new("RGB", (columns * side, math.ceil(len(tiles) / columns) * side))
    for i, tile in enumerate(tiles):
        atlas.paste(tile, (i % columns * side, i // columns * side))
    buffer = io.BytesIO()
    atlas.save(buffer, "WEBP", quality=80, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), columns

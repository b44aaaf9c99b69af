"""Small color pictures of multi-channel images, and the atlas that holds all of them for the report."""

import base64
import io
import math

import numpy as np
from PIL import Image

# Colors that are far apart for most kinds of color vision: blue, yellow, magenta, green, orange, cyan. More channels
# start again.
CHANNEL_COLORS = ("#4d7dff", "#ffd23f", "#ff4fd8", "#3ddc84", "#ff8c42", "#46d9ff")


def channel_colors(count: int) -> list[str]:
    """Colors of `count` channels in a composite; a single channel is white."""
    if count == 1:
        return ["#ffffff"]
    return [CHANNEL_COLORS[c % len(CHANNEL_COLORS)] for c in range(count)]


def composite(images: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Color composite of all channels.

    Each channel is scaled from [low, high] to [0, 1], clipped and given its color; channels are joined by "screen",
    1 - prod_c (1 - color_c scaled_c), which unlike a sum does not burn out where many channels are bright. The same
    limits for all images keep differences of brightness visible. A channel with high <= low stays black.

    Args:
        images: [N, H, W, C].
        low, high: [C], in the units of the images.

    Returns:
        [N, H, W, 3] uint8.
    """
    span = np.where(high > low, high - low, np.inf).astype(np.float32)
    scaled = np.clip((images.astype(np.float32) - low.astype(np.float32)) / span, 0, 1)
    dark = np.ones((*images.shape[:3], 3), np.float32)
    for c, color in enumerate(channel_colors(images.shape[-1])):
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
        dark *= 1 - scaled[..., c, None] * rgb
    return np.round((1 - dark) * 255).astype(np.uint8)


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

import base64
import io

import numpy as np
from PIL import Image

from bie_jax.evaluation.report import thumbnails


def test_composite_joins_scaled_channels_in_their_colors():
    images = np.array([[[[100, 0], [300, 50], [500, 100]]]], np.uint16)  # [1, 1, 3, 2]
    got = thumbnails.composite(images, np.array([100, 0]), np.array([500, 100]))
    colors = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in thumbnails.channel_colors(2)]
    for x, scaled in enumerate((0.0, 0.5, 1.0)):
        first, second = (1 - scaled * np.array(color) / 255 for color in colors)
        expected = 255 * (1 - first * second)
        np.testing.assert_allclose(got[0, 0, x], expected, atol=1)
    blank = thumbnails.composite(images, np.array([7, 7]), np.array([7, 7]))
    assert (blank == 0).all()
    assert thumbnails.channel_colors(1) == ["#ffffff"]


def test_shrink_keeps_the_shape_of_the_image():
    square = np.asarray(thumbnails.shrink(np.full((20, 80, 3), 200, np.uint8), 40))
    assert square.shape == (40, 40, 3)
    assert (square[15:25] == 200).all()
    assert (square[:15] == 0).all()


def test_atlas_has_each_thumbnail_in_its_place():
    values = np.linspace(30, 220, 7).astype(int)
    uri, columns = thumbnails.pack_atlas([Image.new("RGB", (16, 16), (int(v), 0, 0)) for v in values])
    assert columns == 3
    atlas = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    assert atlas.shape == (48, 48, 3)
    for i, value in enumerate(values):
        y, x = 16 * (i // columns), 16 * (i % columns)
        assert abs(int(atlas[y + 8, x + 8, 0]) - value) < 8  # WebP is lossy


def test_thumbnails_shrink_with_their_number_and_are_never_enlarged():
    sizes = [thumbnails.tile_size(count, 128) for count in (10, 1200, 3000, 20000)]
    assert sizes == sorted(sizes, reverse=True)
    assert thumbnails.tile_size(10, 48) == 48

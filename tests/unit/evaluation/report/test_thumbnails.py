import base64
import io

import numpy as np
from PIL import Image

from bie_jax.evaluation.report import thumbnails


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

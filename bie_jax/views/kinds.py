"""What a network sees of an example: pixels of an image, or the distance matrix of an outline."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from bie_jax.views import images
from bie_jax.views import outlines as outline_views


class Views(NamedTuple):
    """The two views of one kind of set; there is no flag between them.

    Attributes:
        train: (key, stored, plate, table, checked `data` group) -> [B, *crop_size, C], random.
        evaluate: (stored, plate, table, size, checked `data` group) -> [B, *size, C], always the same.
        in_half: whether half precision is enough for a view. Of a matrix it is not: how an outline turns are small
            differences of its distances.
    """

    train: Callable[..., jax.Array]
    evaluate: Callable[..., jax.Array]
    in_half: bool


VIEWS = {
    "images": Views(images.train_view, images.eval_view, in_half=True),
    "shapes": Views(outline_views.train_view, outline_views.eval_view, in_half=False),
}

"""What a network is given of each kind of set when it embeds: which arrays, how much of each, in how many views.

The rest of what is said of a kind, for scores and report, stands in `bie_jax.evaluation.kinds`. It needs embedders and
draws pictures, and who only embeds should wait for neither.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bie_jax.config.schema import Config, DataConfig
from bie_jax.models import encoder_stride, has_fixed_size
from bie_jax.views.outlines import num_phases


class Inputs(NamedTuple):
    """How examples of one kind are looked at.

    Attributes:
        check: (arrays [N, H, W, C], checked `data` group); a ValueError refuses what is none of this kind.
        size: (height, width, as stored, checked configuration) -> (height, width) of the part that is looked at.
        num_views: (height as stored, checked configuration) -> views that are averaged for an embedding.
    """

    check: Callable[[np.ndarray, DataConfig], None]
    size: Callable[[int, int, Config], tuple[int, int]]
    num_views: Callable[[int, Config], int]


def check_images(images: np.ndarray, data: DataConfig) -> None:
    """Any array [N, H, W, C] holds images."""


def check_outlines(images: np.ndarray, data: DataConfig) -> None:
    """Raise ValueError unless an array is [N, P', 2, 1], P' a multiple of the points that the network looks at."""
    num_points = data.crop_size[0]
    if images.shape[2:] != (2, 1) or images.shape[1] % num_points:
        raise ValueError(
            f"outlines have shape {images.shape}; expected [N, P', 2, 1], P' a multiple of {num_points}, the "
            "points that the model looks at"
        )


def size_of_images(height: int, width: int, config: Config) -> tuple[int, int]:
    """The middle part of an image, pixels: `eval.image_size`, or for (0, 0) the whole image, cut to a multiple of the
    network's stride (a network of fixed size has that of training).

    Raises:
        ValueError: if the image is smaller than that.
    """
    stride = encoder_stride(config.model)
    size = config.eval.image_size
    if size == (0, 0) and has_fixed_size(config.model):
        size = config.data.crop_size
    wanted = (height // stride * stride, width // stride * stride) if size == (0, 0) else size
    if min(wanted) == 0 or wanted[0] > height or wanted[1] > width:
        raise ValueError(
            f"images of {height} x {width} pixels are too small: the model looks at "
            f"{wanted[0] or stride} x {wanted[1] or stride}"
        )
    return wanted


def size_of_matrices(height: int, width: int, config: Config) -> tuple[int, int]:
    """(P, P), for P points of an outline."""
    return config.data.crop_size


def one_view(height: int, config: Config) -> int:
    """An image is looked at once."""
    return 1


def views_of_outlines(height: int, config: Config) -> int:
    """An outline is looked at from several of its points, where that matters."""
    return num_phases(height, config.data.crop_size, config.model)


INPUTS = {
    "images": Inputs(check_images, size_of_images, one_view),
    "shapes": Inputs(check_outlines, size_of_matrices, views_of_outlines),
}

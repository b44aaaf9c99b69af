"""A rectangle of a plane: what is read where all of the plane is not needed."""

import dataclasses

import numpy as np

from data.errors import BadInputError


@dataclasses.dataclass(frozen=True)
class Window:
    """Some rows and columns of a plane, in its pixels.

    Attributes:
        top: first row, from 0.
        left: first column, from 0.
        height: number of rows, at least 1.
        width: number of columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int

    def within(self, size: tuple[int, int], source: object) -> tuple[slice, slice]:
        """Its rows and columns in a plane of a size.

        Args:
            size: of the plane, height and width.
            source: of the plane, as a message names it.

        Raises:
            BadInputError: if a part of it is outside; nothing is cut off, and nothing counted from the end.
        """
        bottom, right = self.top + self.height, self.left + self.width
        inside = 0 <= self.top < bottom <= size[0] and 0 <= self.left < right <= size[1]
        if not inside:
            raise BadInputError(
                str(source),
                "",
                f"has {size[0]} x {size[1]} pixels, and a window of {self.height} x {self.width} from row {self.top}, "
                f"column {self.left} is not inside",
            )
        return slice(self.top, bottom), slice(self.left, right)


def cut(pixels: np.ndarray, window: Window | None, source: object) -> np.ndarray:
    """A window of pixels that are in memory, or mapped into it.

    Args:
        pixels: [H, W] or [H, W, samples].
        window: None: all of them.
        source: as a message names it.

    Raises:
        BadInputError: if a part of the window is outside.
    """
    return pixels if window is None else pixels[window.within((pixels.shape[0], pixels.shape[1]), source)]

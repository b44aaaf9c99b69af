"""Image files that are masks: palettes, colors and transparency are ways to write one number for each pixel."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import BadInputError
from data.fields.index import Index
from data.fields.planes import FilePlane, Plane, contents, read_file
from data.fields.tiff import open_tiff
from data.fields.tiff_pages import TIFF
from data.fields.window import Window, cut
from data.limits import reading

_CHANNEL = "mask"  # what the colors of a source of color images become

_JPEG = b"\xff\xd8\xff"  # what one begins with

_PALETTE = 3  # the color type of a PNG, the byte at 25


@dataclasses.dataclass(frozen=True)
class MaskPlane:
    """A page of a TIFF, PNG or JPEG of any colors, as a mask or a label image.

    Attributes:
        path: the file.
        page: number of the plane, as of a `FilePlane`.
        pages: planes that the file must hold; None: others may follow.
        labels: whether values are labels. A grey image is taken as it is; of a palette the label is the index, and of
            colors 65536 R + 256 G + B (of R = G = B: R). Otherwise values are brightness: of a palette and of colors
            the greatest of R, G and B. What is wholly transparent is 0.
    """

    path: Path
    page: int
    pages: int | None
    labels: bool

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    def identity(self) -> str:
        """As that of `FilePlane`, and whether values are labels."""
        return f"{FilePlane(self.path, self.page, pages=self.pages).identity()}|{self.labels}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, window: Window | None = None) -> np.ndarray:
        """As `FilePlane`, labels in colors whole; raises BadInputError for what has no meaning as a mask too."""
        if self.labels and len(contents(self.path).samples) > 1:
            # Whether colors are numbers or greys, all of the image says.
            return cut(self._read(None), window, self.source)
        return self._read(window)

    def _read(self, window: Window | None) -> np.ndarray:
        pixels = read_file(self.path, self.page, self.pages, window)
        if self.labels and _is_jpeg(self.path):
            raise BadInputError(self.source, "", "a JPEG does not keep numbers; label images are PNG or TIFF")
        if pixels.ndim == 2:
            brightness = None if self.labels else _brightness_of_palette(self.path, self.page)
            return pixels if brightness is None else brightness[pixels]
        if pixels.ndim != 3 or pixels.shape[2] > 4:
            raise BadInputError(self.source, "", f"the image is {pixels.shape}: expected a mask, grey or of colors")
        if self.labels and _has_palette(self.path):
            # Its pixels were decoded before: it is no bomb, of which Pillow warns from 89 million on.
            with reading(self.path, self.path.stat().st_size), Image.open(self.path, formats=("PNG",)) as image:
                return np.asarray(image)
        has_alpha = pixels.shape[2] in (2, 4)
        colors = pixels[..., :-1] if has_alpha else pixels
        mask = self._numbers(colors) if self.labels else colors.max(axis=-1)
        return np.where(pixels[..., -1] > 0, mask, np.zeros_like(mask)) if has_alpha else mask

    def _numbers(self, colors: np.ndarray) -> np.ndarray:
        if (colors == colors[..., :1]).all():
            return colors[..., 0]
        if colors.dtype != np.uint8:
            raise BadInputError(self.source, "", f"labels as colors of {colors.dtype}: expected 8 bits")
        red, green, blue = np.moveaxis(colors.astype(np.uint32), -1, 0)
        return 65536 * red + 256 * green + blue


def _brightness_of_palette(path: Path, page: int) -> np.ndarray | None:
    """The greatest of R, G and B of each index into a TIFF's palette; None for another image."""
    with open(path, "rb") as file:
        if file.read(4) not in TIFF:
            return None
    with reading(path, path.stat().st_size), open_tiff(path) as tiff:
        colors = tiff.pages[contents(path).places[page][0]].aspage().colormap  # [3, entries]
        return None if colors is None else colors.max(axis=0)


def _is_jpeg(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(3) == _JPEG


def _has_palette(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.read(26)
    return header.startswith(b"\x89PNG") and header[25] == _PALETTE


def as_masks(index: Index, labels: bool) -> Index:
    """The same fields, every image file read as a mask; colors, which were channels, become one.

    Args:
        index: of any source; planes that are not files stay as they are.
        labels: see `MaskPlane`.
    """
    channels: dict[str, None] = {}
    fields = []
    for field in index.fields:
        planes: dict[tuple[str, int, int], Plane] = {}
        for (channel, z, t), plane in field.planes.items():
            if isinstance(plane, FilePlane):
                channel = channel if plane.color is None else _CHANNEL
                plane = MaskPlane(plane.path, plane.page, plane.pages, labels)
            planes[channel, z, t] = plane
            channels[channel] = None
        fields.append(dataclasses.replace(field, planes=planes))
    order = [channel for channel in (*index.channels, _CHANNEL) if channel in channels]
    return dataclasses.replace(index, fields=tuple(fields), channels=tuple(dict.fromkeys(order)))

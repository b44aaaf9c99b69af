"""From fields to examples: the whole field, tiles, random windows, or a window around every object."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import ClassVar, Protocol

import numpy as np
from skimage.measure import regionprops_table

from data.errors import BadInputError
from data.fields.index import Field, assemble
from data.fields.mask_checks import problem_of_labels
from data.records.description import Kind

Crop = tuple[np.ndarray, dict[str, int | float | str]]


class Cut(Protocol):
    """How one image becomes examples.

    Attributes:
        kind: what these are.
    """

    kind: ClassVar[Kind]

    @property
    def columns(self) -> dict[str, type]:
        """Metadata of each example."""
        ...

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """[H, W, C] -> examples and their metadata.

        Raises:
            BadInputError: if the image is too small.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Whole:
    """The field as it is."""

    kind: ClassVar[Kind] = "images"

    @property
    def columns(self) -> dict[str, type]:
        """None."""
        return {}

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """One example."""
        yield image, {}


@dataclasses.dataclass(frozen=True)
class Tiles:
    """A grid from the upper left corner; what does not fill a tile, at the right and at the bottom, is left out.

    Attributes:
        size: pixels, height and width of a tile.
        overlap: pixels that neighbors share.
    """

    kind: ClassVar[Kind] = "images"
    size: int
    overlap: int

    @property
    def columns(self) -> dict[str, type]:
        """Where its upper left corner was."""
        return {"tile_y_px": int, "tile_x_px": int}

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """One example for each tile, row by row."""
        _check_size(field, image, self.size)
        step = self.size - self.overlap
        for y in range(0, image.shape[0] - self.size + 1, step):
            for x in range(0, image.shape[1] - self.size + 1, step):
                yield image[y : y + self.size, x : x + self.size], {"tile_y_px": y, "tile_x_px": x}


@dataclasses.dataclass(frozen=True)
class RandomWindows:
    """Windows at uniform places, the same on every machine: they depend on plate, well, site, z, t and the seed.

    Attributes:
        size: pixels.
        count: of each image.
        seed: another seed, other windows.
    """

    kind: ClassVar[Kind] = "images"
    size: int
    count: int
    seed: int

    @property
    def columns(self) -> dict[str, type]:
        """Where its upper left corner was."""
        return {"tile_y_px": int, "tile_x_px": int}

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """`count` examples."""
        _check_size(field, image, self.size)
        # The pixels' own digest tells apart the z and t of one field.
        name = f"{self.seed}/{field.plate}/{field.well}/{field.site}".encode() + image[::64, ::64].tobytes()
        rng = np.random.default_rng(np.frombuffer(hashlib.sha256(name).digest(), np.uint32))
        for _ in range(self.count):
            y, x = (int(rng.integers(0, extent - self.size + 1)) for extent in image.shape[:2])
            yield image[y : y + self.size, x : x + self.size], {"tile_y_px": y, "tile_x_px": x}


@dataclasses.dataclass(frozen=True)
class AroundPoints:
    """One window per object that a table lists. At the border the window is moved inwards, so no pixel is invented.

    Attributes:
        size: pixels.
        extra: names and types of the further columns of `Field.objects`.
    """

    kind: ClassVar[Kind] = "images"
    size: int
    extra: dict[str, type]

    @property
    def columns(self) -> dict[str, type]:
        """Metadata of each example."""
        return _OBJECT_COLUMNS | self.extra

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """One example for each object, in the table's order."""
        _check_size(field, image, self.size)
        for number, (y, x, extra) in enumerate(field.objects, start=1):
            if not (0 <= y < image.shape[0] and 0 <= x < image.shape[1]):
                raise BadInputError(
                    str(field), "", f"object {number} at y {y}, x {x} is outside the image of {image.shape[:2]} pixels"
                )
            yield _window(image, y, x, self.size), {"object": number, "object_y_px": y, "object_x_px": x} | extra


@dataclasses.dataclass(frozen=True)
class AroundMasks:
    """One window per object of a label mask; at the border it is moved inwards.

    Attributes:
        size: pixels.
        channel: of the field, whose pixels are 0 outside objects and the object's number inside.
    """

    kind: ClassVar[Kind] = "images"
    size: int
    channel: str

    @property
    def columns(self) -> dict[str, type]:
        """Metadata of each example."""
        return _OBJECT_COLUMNS | {"object_area_px": int}

    def __call__(self, field: Field, image: np.ndarray) -> Iterator[Crop]:
        """One example for each label, in ascending order."""
        _check_size(field, image, self.size)
        mask = next(assemble(field, (self.channel,), z="max", t="max"))[0][..., 0]
        labels = mask.astype(np.int64)
        if mask.shape != image.shape[:2] or (labels != mask).any() or labels.min() < 0:
            raise BadInputError(str(field), f"channel {self.channel}", "is no label mask of the image")
        if problem := problem_of_labels(labels):
            raise BadInputError(str(field), f"channel {self.channel}", problem)
        found = regionprops_table(labels, properties=("label", "centroid", "area"))
        for number, y, x, area in zip(found["label"], found["centroid-0"], found["centroid-1"], found["area"]):
            yield (
                _window(image, y, x, self.size),
                {
                    "object": int(number),
                    "object_y_px": float(y),
                    "object_x_px": float(x),
                    "object_area_px": int(area),
                },
            )


_OBJECT_COLUMNS = {"object": int, "object_y_px": float, "object_x_px": float}


def _window(image: np.ndarray, y: float, x: float, size: int) -> np.ndarray:
    top, left = (
        min(max(round(center - size / 2), 0), extent - size)
        for center, extent in zip((y, x), image.shape[:2], strict=True)
    )
    return image[top : top + size, left : left + size]


def _check_size(field: Field, image: np.ndarray, size: int) -> None:
    if min(image.shape[:2]) < size:
        raise BadInputError(
            str(field), "", f"its image has {image.shape[0]} x {image.shape[1]} pixels, a window {size}"
        )

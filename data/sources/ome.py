"""What the images of an OME-Zarr and of an OME-TIFF become together."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from data.errors import BuildError
from data.fields import Field, Index


@dataclasses.dataclass(frozen=True)
class Image:
    """A field, and what its metadata say of all its planes.

    Attributes:
        source: file, folder or URL.
        field: where it belongs.
        channels: in the order of the file.
        size: pixels, height and width.
        pixel_size_um: along y and x; None if it is not known.
    """

    source: str
    field: Field
    channels: tuple[str, ...]
    size: tuple[int, int]
    pixel_size_um: tuple[float | None, float | None]


def make_index(source: str, images: list[Image], columns: dict[str, type], ignored: list[tuple[str, str]]) -> Index:
    """All of them in one index; those of another size than most are ignored.

    Raises:
        BuildError: if there is none, or two are the same field.
    """
    if not images:
        why = f"; {ignored[0][0]}: {ignored[0][1]}" if ignored else ""
        raise BuildError(f"{source}: there is no image{why}")
    images = sorted(images, key=_place)
    for before, after in itertools.pairwise(images):
        if _place(before) == _place(after):
            raise BuildError(f"{before.source} and {after.source} are both {after.field}; give them to two builds")
    (height, width), _ = collections.Counter(image.size for image in images).most_common(1)[0]
    told = list(ignored)
    for image in images:
        if image.size != (height, width):
            size = f"{image.size[0]} x {image.size[1]} pixels, most fields have {height} x {width}"
            told.append((image.source, f"left out: {size}"))
    images = [image for image in images if image.size == (height, width)]
    pixel_sizes = [um for image in images for um in image.pixel_size_um]
    known = [um for um in pixel_sizes if um is not None]
    alike = len(known) == len(pixel_sizes) and np.allclose(known, known[0], rtol=1e-3)
    if known and not alike:
        told.append((source, f"the pixel size, as it is not one: {sorted(map(str, set(pixel_sizes)))} um"))
    return Index(
        channels=tuple(dict.fromkeys(channel for image in images for channel in image.channels)),
        fields=tuple(image.field for image in images),
        columns=columns,
        pixel_size_um=known[0] if alike else None,
        ignored=tuple(told),
    )


def unique_names(names: Iterable[str | None]) -> tuple[str, ...]:
    """Names of channels: the number of one that has none, and a number behind one that came before."""
    unique: list[str] = []
    for i, given in enumerate(names):
        name = given or str(i)
        while name in unique:
            name = f"{name} ({i})"
        unique.append(name)
    return tuple(unique)


def _place(image: Image) -> tuple[str, str, int]:
    return image.field.plate, image.field.well, image.field.site

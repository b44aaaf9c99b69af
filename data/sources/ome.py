"""What the images of an OME-Zarr and of an OME-TIFF become together."""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from data.errors import BuildError
from data.fields.index import Field, Index
from data.text import plain


@dataclasses.dataclass(frozen=True)
class Image:
    """A field, and what its metadata say of all its planes.

    Attributes:
        source: file, folder or URL.
        field: where it belongs.
        channels: in the order of the file.
        size: pixels, height and width.
        pixel_size_um: along y and x; None if it is not known.
        numbers_objects: whether its metadata say that it is a label image.
    """

    source: str
    field: Field
    channels: tuple[str, ...]
    size: tuple[int, int]
    pixel_size_um: tuple[float | None, float | None]
    numbers_objects: bool = False


def make_index(source: str, images: list[Image], columns: dict[str, type], ignored: list[tuple[str, str]]) -> Index:
    """All of them in one index, of whatever sizes; label images beside others are ignored.

    Raises:
        BuildError: if there is none, or two are the same field.
    """
    if not images:
        why = f"; {ignored[0][0]}: {ignored[0][1]}" if ignored else ""
        raise BuildError(f"{source}: there is no image{why}")
    told = list(ignored)
    if not all(image.numbers_objects for image in images):
        told += [(image.source, "left out: it numbers objects") for image in images if image.numbers_objects]
        images = [image for image in images if not image.numbers_objects]
    images = sorted((_plain(image) for image in images), key=_place)
    for before, after in itertools.pairwise(images):
        if _place(before) == _place(after):
            raise BuildError(f"{before.source} and {after.source} are both {after.field}; give them to two builds")
    pixel_sizes = [um for image in images for um in image.pixel_size_um]
    known = [um for um in pixel_sizes if um is not None]
    alike = len(known) == len(pixel_sizes) and np.allclose(known, known[0], rtol=1e-3)
    if known and not alike:
        told.append((source, f"the pixel size, as it is not one: {sorted(map(str, set(pixel_sizes)))} um"))
    return Index(
        channels=tuple(dict.fromkeys(channel for image in images for channel in image.channels)),
        fields=tuple(dataclasses.replace(image.field, size=image.size) for image in images),
        columns=columns,
        pixel_size_um=known[0] if alike else None,
        ignored=tuple(told),
    )


def _plain(image: Image) -> Image:
    """The same with its texts as a reader sees them; channels are so already, from `unique_names`."""
    field = image.field
    metadata = {
        column: plain(value, image.source) if isinstance(value, str) else value
        for column, value in field.metadata.items()
    }
    return dataclasses.replace(
        image, field=dataclasses.replace(field, plate=plain(field.plate, image.source), metadata=metadata)
    )


def unique_names(names: Iterable[str | None]) -> tuple[str, ...]:
    """Names of channels: the number of one that has none, and a number behind one that came before."""
    unique: list[str] = []
    for i, given in enumerate(names):
        name = plain(str(given), "a channel's name") if given else str(i)
        while name in unique:
            name = f"{name} ({i})"
        unique.append(name)
    return tuple(unique)


def _place(image: Image) -> tuple[str, str, int]:
    return image.field.plate, image.field.well, image.field.site

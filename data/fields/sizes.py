"""How large the images of an index are, said before any of them is cut: no size is taken for the right one."""

import collections
import contextlib
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from data.errors import BadInputError, BuildError
from data.fields.crops import AroundMasks, AroundPoints, Cut, RandomWindows, Tiles, Whole
from data.fields.index import Field, Index
from data.fields.planes import FilePlane
from data.fields.tiff import open_tiff
from data.fields.tiff_pages import TIFF
from data.limits import reading, regular

_THREADS = 8  # that open files at once; a disk of a server answers them together
_SHOWN = 5

Sizes = dict[tuple[int, int], list[Field]]


def sizes_of(index: Index, channel: str) -> Sizes:
    """(height, width) -> fields, as far as source or files say it without their pixels.

    Args:
        index: of any source.
        channel: whose first plane is asked where the source does not say.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda field: field.size or _size_in_file(field, channel), index.fields))
    sizes: Sizes = collections.defaultdict(list)
    for field, size in zip(index.fields, found, strict=True):
        if size is not None:
            sizes[size].append(field)
    return dict(sizes)


def check_sizes(sizes: Sizes, cut: Cut) -> None:
    """Refuse what cannot become one set: whole images of several sizes, images smaller than the window.

    Raises:
        BuildError: naming the sizes, how many fields have each, and an example.
    """
    least = min((min(size) for size in sizes), default=0)
    if isinstance(cut, Whole) and len(sizes) > 1:
        raise BuildError(
            f"the images are of {len(sizes)} sizes: {_listed(sizes)}; --crop=N, N up to {least}, cuts windows out of "
            "all of them, --skip-bad=FILE.csv keeps the first one's size and lists the others"
        )
    if isinstance(cut, Tiles | RandomWindows | AroundPoints | AroundMasks):
        small = {size: fields for size, fields in sizes.items() if min(size) < cut.size}
        if small:
            raise BuildError(
                f"{sum(map(len, small.values()))} of {sum(map(len, sizes.values()))} images are smaller than "
                f"--crop={cut.size}: {_listed(small)}; --crop=N, N up to {least}, fits all, --skip-bad=FILE.csv leaves "
                "such images out"
            )


def size_notes(sizes: Sizes) -> dict[str, list[list[str]]]:
    """For `build.json`, where there are several: each size, its number of fields, and one of them."""
    return {"image sizes": [list(line) for line in _lines(sizes)]} if len(sizes) > 1 else {}


def _lines(sizes: Sizes) -> list[tuple[str, str]]:
    return [
        (f"{height} x {width}", f"{len(fields)} field{'s' if len(fields) > 1 else ''}, e.g. {fields[0].source}")
        for (height, width), fields in sorted(sizes.items(), reverse=True)
    ]


def _listed(sizes: Sizes) -> str:
    lines = [f"{size} ({fields})" for size, fields in _lines(sizes)]
    return ", ".join(lines[:_SHOWN]) + (f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else "")


def _size_in_file(field: Field, channel: str) -> tuple[int, int] | None:
    """Of an image file its header's; None for other planes, and for what cannot be read: reading it says why."""
    plane = next((plane for (name, _, _), plane in sorted(field.planes.items()) if name == channel), None)
    if not isinstance(plane, FilePlane):
        return None
    with contextlib.suppress(BadInputError), reading(plane.path, regular(plane.path).st_size):
        with open(plane.path, "rb") as file:
            start = file.read(4)
        if start in TIFF:
            with open_tiff(plane.path) as tiff:
                page = tiff.pages[plane.page].aspage()
                return page.imagelength, page.imagewidth
        with Image.open(plane.path) as image:
            return image.height, image.width
    return None

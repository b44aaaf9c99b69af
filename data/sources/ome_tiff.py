"""OME-TIFF: what the XML in a TIFF, or beside it, says of its pages (https://docs.openmicroscopy.org/ome-model)."""

import collections
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from data.errors import BadInputError, BuildError
from data.fields.index import Field, Index
from data.fields.planes import FilePlane, Plane, one_sample
from data.fields.tiff import open_tiff
from data.fields.tiff_pages import count_pages, opened_page, read_pixels
from data.fields.window import Window
from data.limits import PLANE_BYTES, check_size, reading, regular
from data.sources.files import no_image, what_is_there
from data.sources.formats import SNIFFED, format_of
from data.sources.ome import Image, make_index, unique_names
from data.wells import row_letters, well_name

_ENDINGS = (".ome.tif", ".ome.tiff", ".companion.ome")
# Both of Unicode's mu are in use; the one without a unit is what OME-XML takes for granted.
_UM = {None: 1.0, "\N{MICRO SIGN}m": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}

_Pages = dict[tuple[int, int, int], tuple[Path, int]]  # by number of c, z and t


@dataclasses.dataclass(frozen=True)
class OmeTiffPlane:
    """One plane that an OME-XML announces.

    Attributes:
        path: the file it is in.
        page: in that file; None: the XML does not say where the plane is.
        color: index into the samples of a page that has several for each pixel.
        samples: that a pixel of the page must have.
        size: pixels, height and width.
        pages: that the XML names in this file, which must be all of them.
    """

    path: Path
    page: int | None
    color: int | None
    samples: int
    size: tuple[int, int]
    pages: int = 0

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    def identity(self) -> str:
        """Path, page, color, pages, size and time of last change."""
        return f"{FilePlane(self.path, self.page or 0, self.color, self.pages).identity()}|{self.page}|{self.size}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, window: Window | None = None) -> np.ndarray:
        """As `Plane`, by strips or tiles; raises BadInputError for a plane that is not there or of another size too."""
        if self.page is None:
            raise BadInputError(self.source, "", "the OME-XML announces this plane, and has no page for it")
        with opened_page(self.path, self.page, self.pages) as page:
            size, samples = (page.imagelength, page.imagewidth), page.samplesperpixel
            if size != self.size or samples != self.samples:
                problem = (
                    f"page {self.page} has {size} pixels of {samples} samples, where the OME-XML says {self.size} of "
                    f"{self.samples}"
                )
                raise BadInputError(self.source, "", problem)
            pixels = read_pixels(page, self.path, None, window)
        return one_sample(pixels, self.color, self.source)


def index_ome_tiff(source: Path, wells_per_plate: int = 384, skip_bad: bool = False) -> Index:
    """What files hold; reads no pixel.

    Args:
        source: a file, or a folder of `*.ome.tif`, `*.ome.tiff` and `*.companion.ome`. Of several files that belong
            together one is enough.
        wells_per_plate: the plates' format.
        skip_bad: leave out files that cannot be opened, instead of stopping.

    Returns:
        Every image. One that the XML puts in no well has the folder's name as plate, "" as well, and its number there
        as site. Files that are no OME-TIFF are in `ignored`.

    Raises:
        BuildError: naming the file, and what to do.
    """
    ignored: list[tuple[str, str]] = []
    unreadable: list[tuple[str, str, str]] = []
    if source.is_dir():
        present = sorted(source.iterdir())
        files = [path for path in present if path.name.lower().endswith(_ENDINGS)]
        endings = f"called *{', *'.join(_ENDINGS)}"
        for path in present:
            if path not in files:
                why = no_image(path.name)
                ignored.append((str(path), f"not {endings}" if why == "no image" else why))
        if not files:
            there = what_is_there([path.name for path in present])
            raise BuildError(f"{source}: no file in it is {endings}; there is {there}")
    elif source.is_file():
        files = [source]
    else:
        raise BuildError(f"{source}: there is no such file or folder")
    images: list[Image] = []
    read: set[Path] = set()  # files whose XML was read, and
    held: dict[Path, set[int]] = collections.defaultdict(set)  # files that hold pages of an image, and which
    sites: dict[tuple[str, str], Iterator[int]] = collections.defaultdict(lambda: itertools.count(1))
    for file in files:
        if file in held:  # every file of several that belong together has the same XML
            continue
        try:
            path, root = _read_xml(file)
        except BadInputError as error:
            if not skip_bad:
                raise
            unreadable.append((error.source, error.place, error.problem))
            continue
        if path in read:
            continue
        read.add(path)
        with _valid_xml(path):
            for element, plate, well in _places(root, path, wells_per_plate, ignored):
                site = next(sites[plate, well])
                if element is None:
                    continue
                pages, image = _image(element, root, path, (plate, well, site))
                for place, (page_path, page) in sorted(pages.items()):
                    if page in held[page_path]:
                        raise BuildError(
                            f"{path}, {element.attrib['ID']}: page {page} of {page_path.name} is channel {place[0]}, z "
                            f"{place[1]}, t {place[2]}, and another plane too"
                        )
                    held[page_path].add(page)
                images.append(image)
    ignored += [(str(path), "no image is in it") for path in files if path not in held and path not in read]
    if unreadable and not images:
        raise BadInputError(*unreadable[0])
    images = [dataclasses.replace(image, field=_with_pages(image.field, held)) for image in images]
    index = make_index(str(source), images, {"image_name": str}, ignored)
    return dataclasses.replace(index, unreadable=tuple(unreadable))


def _with_pages(field: Field, held: dict[Path, set[int]]) -> Field:
    """The field, its planes told how many pages of their files the XML names."""
    planes: dict[tuple[str, int, int], Plane] = {}
    for place, plane in field.planes.items():
        assert isinstance(plane, OmeTiffPlane)
        planes[place] = dataclasses.replace(plane, pages=len(held.get(plane.path, ())))
    return dataclasses.replace(field, planes=planes)


def _read_xml(path: Path, is_last: bool = False) -> tuple[Path, ElementTree.Element]:
    """The file that says what is in a file, itself or another (which is then the last), and what it says."""
    stored = regular(path).st_size
    with path.open("rb") as file:
        other = format_of(path.name, file.read(SNIFFED))
    if other is not None:
        raise BuildError(f"{path}: is {other}")
    with reading(path, stored, "cannot be opened as an OME-TIFF, copy it again"):
        if path.name.lower().endswith(".ome"):
            text = path.read_text("utf-8")
        else:
            with open_tiff(path) as tiff:
                text = tiff.ome_metadata
    if text is None:
        raise BuildError(
            f"{path}: there is no OME-XML in it, so it is a plain TIFF or a truncated one; plain ones are built as a "
            "folder of images that their names tell apart"
        )
    if "<!DOCTYPE" in text:
        raise BuildError(f"{path}: its OME-XML has a DOCTYPE, which is not read from strangers; remove it")
    with reading(path, len(text), "its OME-XML is damaged, copy it again"):
        root = ElementTree.fromstring(text)
    elsewhere = root.find("{*}BinaryOnly")
    if elsewhere is None:
        return path, root
    with _valid_xml(path):
        other = path.parent / elsewhere.attrib["MetadataFile"]
    if not other.is_file() or other == path:
        raise BuildError(f"{path}: what it holds is said in {other.name}, which is not beside it; copy that too")
    if is_last:
        raise BuildError(f"{path}: says that what it holds is said in {other.name}, which another file says of it")
    return _read_xml(other, is_last=True)


def _places(
    root: ElementTree.Element, path: Path, wells_per_plate: int, ignored: list[tuple[str, str]]
) -> list[tuple[ElementTree.Element | None, str, str]]:
    """(Image, plate, well): in the order of every well's samples, None for one that is not there; of no well behind."""
    images = {image.attrib["ID"]: image for image in root.findall("{*}Image")}
    places: list[tuple[ElementTree.Element | None, str, str]] = []
    for plate in root.findall("{*}Plate"):
        for well in plate.findall("{*}Well"):
            letters, column = row_letters(int(well.attrib["Row"])), int(well.attrib["Column"]) + 1
            name = well_name(f"{letters}{column}", path, wells_per_plate)
            samples = well.findall("{*}WellSample")
            for sample in sorted(samples, key=lambda sample: int(sample.get("Index", 0))):
                reference = sample.find("{*}ImageRef")
                image = None if reference is None else images.pop(reference.attrib["ID"], None)
                if image is None:
                    ignored.append((str(path), f"a field of well {name} that is listed and has no image of its own"))
                places.append((image, plate.get("Name") or plate.attrib["ID"], name))
    return places + [(image, path.resolve().parent.name, "") for image in images.values()]


def _image(
    element: ElementTree.Element, root: ElementTree.Element, path: Path, place: tuple[str, str, int]
) -> tuple[_Pages, Image]:
    (pixels,) = element.findall("{*}Pixels")
    where = f"{path}, {element.attrib['ID']}"
    extent = {axis: _whole(pixels, f"Size{axis}", 1, where) for axis in "XYCZT"}
    count = math.prod(extent[axis] for axis in "CZT")
    what = f"{extent['C']} channels, {extent['Z']} focal planes and {extent['T']} time points"
    check_size(path, what, PLANE_BYTES * count, path.stat().st_size)
    names: list[str | None] = []
    samples: list[tuple[int, int | None, int]] = []  # of each channel: number of c in the file, color, of how many
    channels = pixels.findall("{*}Channel")
    for number, channel in enumerate(channels):
        count = _whole(channel, "SamplesPerPixel", 1, where) if "SamplesPerPixel" in channel.attrib else 1
        if len(samples) + count > extent["C"]:
            raise BuildError(f"{where}: its channels have more samples than SizeC, {extent['C']}")
        name = channel.get("Name")
        samples += [(number, color if count > 1 else None, count) for color in range(count)]
        names += [f"{name} {color}" if name and count > 1 else name for color in range(count)]
    if not channels:
        samples, names = [(number, None, 1) for number in range(extent["C"])], [None] * extent["C"]
    if len(samples) != extent["C"]:
        raise BuildError(f"{where}: SizeC is {extent['C']}, its channels have {len(samples)} samples")
    pages = _pages(pixels, root, path, where, extent | {"C": len(channels) or extent["C"]})
    unique = unique_names(names)
    planes: dict[tuple[str, int, int], Plane] = {}
    channel_samples = list(zip(unique, samples, strict=True))
    for (name, (c, color, count)), z, t in itertools.product(channel_samples, range(extent["Z"]), range(extent["T"])):
        file, page = pages.get((c, z, t), (path, None))
        planes[name, z, t] = OmeTiffPlane(file, page, color, count, (extent["Y"], extent["X"]))
    field = Field(*place, planes=planes, metadata={"image_name": element.get("Name") or path.name})
    y, x = (
        float(pixels.attrib[f"PhysicalSize{axis}"]) * _UM[pixels.get(f"PhysicalSize{axis}Unit")]
        if f"PhysicalSize{axis}" in pixels.attrib and pixels.get(f"PhysicalSize{axis}Unit") in _UM
        else None
        for axis in "YX"
    )
    return pages, Image(where, field, unique, (extent["Y"], extent["X"]), (y, x))


def _pages(
    pixels: ElementTree.Element, root: ElementTree.Element, path: Path, where: str, extent: dict[str, int]
) -> _Pages:
    """Where the TiffData elements say that planes are."""
    order = pixels.attrib["DimensionOrder"][2:]  # the fastest first
    shape = tuple(extent[axis] for axis in order)
    pages: _Pages = {}
    told = 0  # the same plane may be told of again: what comes last counts
    for data in pixels.findall("{*}TiffData"):
        uuid = data.find("{*}UUID")
        file = path
        if uuid is not None and "FileName" in uuid.attrib and uuid.text != root.get("UUID"):
            file = path.parent / uuid.attrib["FileName"]
        first = _whole(data, "IFD", 0, where) if "IFD" in data.attrib else 0
        begin = [_first(data, axis, extent[axis], where) for axis in order]
        start = int(np.ravel_multi_index(begin, shape, order="F"))
        left = int(np.prod(shape)) - start
        if "PlaneCount" in data.attrib:
            count = _whole(data, "PlaneCount", 1, where)
            if count > left:
                raise BuildError(f"{where}: a TiffData has the PlaneCount {count}, where {left} planes are left")
        elif "IFD" in data.attrib:
            count = 1
        else:  # all there are, of a file that may be missing
            count = count_pages(file) - first if file.is_file() else left
        told += min(count, left)
        check_size(path, f"{told} planes in its TiffData elements", PLANE_BYTES * told, None)
        for i in range(min(count, left)):
            index = dict(zip(order, np.unravel_index(start + i, shape, order="F")))
            place = int(index["C"]), int(index["Z"]), int(index["T"])
            other = pages.setdefault(place, (file, first + i))
            if other != (file, first + i):
                raise BuildError(
                    f"{where}: channel {place[0]}, z {place[1]}, t {place[2]} is page {other[1]} of {other[0].name} "
                    f"and page {first + i} of {file.name}"
                )
    return pages


def _first(data: ElementTree.Element, axis: str, size: int, where: str) -> int:
    """The place along one axis where a TiffData begins."""
    first = _whole(data, f"First{axis}", 0, where) if f"First{axis}" in data.attrib else 0
    if first >= size:
        raise BuildError(f"{where}: a TiffData has First{axis} {first}, expected 0 to {size - 1}")
    return first


def _whole(element: ElementTree.Element, name: str, least: int, where: str) -> int:
    """An attribute that counts; one that Python would take as counted from the end is refused."""
    number = int(element.attrib[name])
    if number < least:
        kind = element.tag.rpartition("}")[2]
        raise BuildError(f"{where}: {name} of {kind} is {number}, expected a whole number from {least}")
    return number


@contextlib.contextmanager
def _valid_xml(path: Path) -> Iterator[None]:
    """What other programs wrote, and may have written in another way."""
    try:
        yield
    except BuildError:
        raise
    except (KeyError, ValueError) as error:
        raise BuildError(
            f"{path}: its OME-XML is not valid ({type(error).__name__}: {error}); export it again"
        ) from None

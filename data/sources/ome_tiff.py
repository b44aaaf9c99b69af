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
import tifffile

from data.errors import BadInputError, BuildError
from data.fields import Field, Index
from data.limits import PLANE_BYTES, check_size, reading, regular
from data.planes import FilePlane, Plane, count_pages
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
        colour: index into the samples of a page that has several for each pixel.
        size: pixels, height and width.
    """

    path: Path
    page: int | None
    colour: int | None
    size: tuple[int, int]

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    def identity(self) -> str:
        """Path, page, colour, size and time of last change."""
        return f"{FilePlane(self.path, self.page or 0, self.colour).identity()}|{self.page}|{self.size}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self) -> np.ndarray:
        """[H, W]; raises BadInputError if it is not there, cannot be read whole, or is of another size."""
        if self.page is None:
            raise BadInputError(self.source, "", "the OME-XML announces this plane, and has no page for it")
        pixels = FilePlane(self.path, self.page, self.colour).read()
        if pixels.shape != self.size:
            problem = f"page {self.page} has {pixels.shape} pixels where the OME-XML says {self.size}"
            raise BadInputError(self.source, "", problem)
        return pixels


def index_ome_tiff(source: Path, wells_per_plate: int = 384, skip_bad: bool = False) -> Index:
    """What files hold; reads no pixel.

    Args:
        source: a file, or a folder of `*.ome.tif`, `*.ome.tiff` and `*.companion.ome`. Of several files that belong
            together one is enough.
        wells_per_plate: the plates' format.
        skip_bad: leave out files that cannot be opened, instead of stopping.

    Returns:
        Every image. One that the XML puts in no well has the folder's name as plate, "" as well, and its number there
        as site. Files that are no OME-TIFF, and images of another size than most, are in `ignored`.

    Raises:
        BuildError: naming the file, and what to do.
    """
    ignored: list[tuple[str, str]] = []
    unreadable: list[tuple[str, str, str]] = []
    if source.is_dir():
        present = sorted(source.iterdir())
        files = [path for path in present if path.name.lower().endswith(_ENDINGS)]
        ignored += [(str(path), f"not called *{', *'.join(_ENDINGS)}") for path in present if path not in files]
        if not files:
            raise BuildError(f"{source}: no file in it is called *{', *'.join(_ENDINGS)}")
    elif source.is_file():
        files = [source]
    else:
        raise BuildError(f"{source}: there is no such file or folder")
    images: list[Image] = []
    read: set[Path] = set()  # files whose XML was read, and
    held: set[Path] = set()  # files that hold pages of an image
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
                pages, image = _image(element, root, path, (plate, well, next(sites[plate, well])))
                held.update(page_path for page_path, _ in pages.values())
                images.append(image)
    ignored += [(str(path), "no image is in it") for path in files if path not in held and path not in read]
    if unreadable and not images:
        raise BadInputError(*unreadable[0])
    index = make_index(str(source), images, {"image_name": str}, ignored)
    return dataclasses.replace(index, unreadable=tuple(unreadable))


def _read_xml(path: Path, is_last: bool = False) -> tuple[Path, ElementTree.Element]:
    """The file that says what is in a file, itself or another (which is then the last), and what it says."""
    with reading(path, regular(path).st_size, "cannot be opened as an OME-TIFF, copy it again"):
        if path.name.lower().endswith(".ome"):
            text = path.read_text("utf-8")
        else:
            with tifffile.TiffFile(path) as tiff:
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
) -> list[tuple[ElementTree.Element, str, str]]:
    """(Image, plate, well): in the order of every well's samples; those of no well behind."""
    images = {image.attrib["ID"]: image for image in root.findall("{*}Image")}
    places = []
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
                else:
                    places.append((image, plate.get("Name") or plate.attrib["ID"], name))
    return places + [(image, path.resolve().parent.name, "") for image in images.values()]


def _image(
    element: ElementTree.Element, root: ElementTree.Element, path: Path, place: tuple[str, str, int]
) -> tuple[_Pages, Image]:
    (pixels,) = element.findall("{*}Pixels")
    extent = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "XYCZT"}
    if min(extent.values()) < 1:
        raise BuildError(f"{path}, {element.attrib['ID']}: its sizes are {extent}, expected whole numbers from 1")
    count = math.prod(extent[axis] for axis in "CZT")
    what = f"{extent['C']} channels, {extent['Z']} focal planes and {extent['T']} time points"
    check_size(path, what, PLANE_BYTES * count, path.stat().st_size)
    names: list[str | None] = []
    samples: list[tuple[int, int | None]] = []  # of each channel: number of c in the file, colour
    channels = pixels.findall("{*}Channel")
    for number, channel in enumerate(channels):
        count = int(channel.get("SamplesPerPixel", 1))
        if len(samples) + count > extent["C"]:
            raise BuildError(
                f"{path}, {element.attrib['ID']}: its channels have more samples than SizeC, {extent['C']}"
            )
        name = channel.get("Name")
        samples += [(number, colour if count > 1 else None) for colour in range(count)]
        names += [f"{name} {colour}" if name and count > 1 else name for colour in range(count)]
    if not channels:
        samples, names = [(number, None) for number in range(extent["C"])], [None] * extent["C"]
    if len(samples) != extent["C"]:
        raise BuildError(
            f"{path}, {element.attrib['ID']}: SizeC is {extent['C']}, its channels have {len(samples)} samples"
        )
    pages = _pages(pixels, root, path, extent | {"C": len(channels) or extent["C"]})
    unique = unique_names(names)
    planes: dict[tuple[str, int, int], Plane] = {}
    for (name, (c, colour)), z, t in itertools.product(zip(unique, samples), range(extent["Z"]), range(extent["T"])):
        file, page = pages.get((c, z, t), (path, None))
        planes[name, z, t] = OmeTiffPlane(file, page, colour, (extent["Y"], extent["X"]))
    field = Field(*place, planes=planes, metadata={"image_name": element.get("Name") or path.name})
    y, x = (
        float(pixels.attrib[f"PhysicalSize{axis}"]) * _UM[pixels.get(f"PhysicalSize{axis}Unit")]
        if f"PhysicalSize{axis}" in pixels.attrib and pixels.get(f"PhysicalSize{axis}Unit") in _UM
        else None
        for axis in "YX"
    )
    return pages, Image(f"{path}, {element.attrib['ID']}", field, unique, (extent["Y"], extent["X"]), (y, x))


def _pages(pixels: ElementTree.Element, root: ElementTree.Element, path: Path, extent: dict[str, int]) -> _Pages:
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
        first = int(data.get("IFD", 0))
        start = int(np.ravel_multi_index([int(data.get(f"First{axis}", 0)) for axis in order], shape, order="F"))
        left = int(np.prod(shape)) - start
        if "PlaneCount" in data.attrib:
            count = int(data.attrib["PlaneCount"])
        elif "IFD" in data.attrib:
            count = 1
        else:  # all there are, of a file that may be missing
            count = count_pages(file) - first if file.is_file() else left
        told += min(count, left)
        check_size(path, f"{told} planes in its TiffData elements", PLANE_BYTES * told, None)
        for i in range(min(count, left)):
            index = dict(zip(order, np.unravel_index(start + i, shape, order="F")))
            pages[int(index["C"]), int(index["Z"]), int(index["T"])] = (file, first + i)
    return pages


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

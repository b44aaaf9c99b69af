"""OME-Zarr 0.4 and 0.5 (https://ngff.openmicroscopy.org): images, collections and plates, in a folder or at a URL."""

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from obstore.exceptions import PermissionDeniedError

from data.errors import BuildError
from data.fields.index import Field, Index
from data.fields.planes import Plane
from data.limits import PLANE_BYTES, check_size
from data.sources.ome import Image, make_index, unique_names
from data.sources.zarr_store import ZarrPlane, open_array, read_json
from data.wells import well_name

THREADS = 16  # that ask for metadata at once; a plate of 384 wells has some 10 000 small files

_GROUPS = {3: "zarr.json", 2: ".zattrs"}  # by version of Zarr: where the attributes of a group are,
_ARRAYS = {3: "zarr.json", 2: ".zarray"}  # and where the shape of an array is
_UM = {"angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}

_Ignored = list[tuple[str, str]]


def index_ome_zarr(source: str, level: int, wells_per_plate: int = 384) -> Index:
    """What a store holds; reads no pixel.

    Args:
        source: folder, or URL with http, https or s3. A bucket is asked anonymously unless AWS_ACCESS_KEY_ID is set.
        level: of the pyramid; 0 is full size.
        wells_per_plate: the plate's format.

    Returns:
        Every field. Wells and fields that are listed but not there, and label images beside others, are in
        `ignored`. An image of no plate has the store's name as plate, "" as well, and its number there as site.
        Where a store numbers its images or a well its fields, from 0, those numbers are kept, whichever are there.

    Raises:
        BuildError: naming the URL, folder or well, and what to do.
    """
    source = source.rstrip("/")
    scheme = source.partition("://")[0] if "://" in source else ""
    if scheme not in ("", "http", "https", "s3"):
        raise BuildError(f"{source}: of URLs http://, https:// and s3:// are read, not {scheme}://")
    if not scheme and not Path(source).is_dir():
        raise BuildError(f"{source}: there is no such folder; give the folder of an OME-Zarr, or its URL")
    open_array.cache_clear()  # of what was there under this name before
    ignored: _Ignored = []
    with ThreadPoolExecutor(THREADS) as pool:
        images = _list_images(source, wells_per_plate, ignored, pool)
        read = list(pool.map(lambda image: _read_image(image, level), images))
    ignored += [(str(listed), problem) for listed, problem in zip(images, read) if isinstance(problem, str)]
    there = [image for image in read if not isinstance(image, str)]
    return make_index(source, there, {"image_name": str, "acquisition": str}, ignored)


def find_store(folder: Path) -> Path | None:
    """Where in an unpacked archive the store is: the folder, or the only one in it; None if neither is one."""
    within = [path for path in folder.iterdir() if path.is_dir() and path.name != "__MACOSX"]
    for candidate in (folder, *within):
        if any((candidate / key).is_file() for key in _GROUPS.values()) and (candidate == folder or len(within) == 1):
            return candidate
    return None


@dataclasses.dataclass(frozen=True)
class _Listed:
    """An image that is listed.

    Attributes:
        store: folder or URL of the whole.
        zarr_format: 2 or 3.
        path: of the image in the store.
        place: plate, well, site.
        acquisition: the well's word for the pass of the microscope.
    """

    store: str
    zarr_format: int
    path: str
    place: tuple[str, str, int]
    acquisition: str = ""

    def __str__(self) -> str:
        return f"{self.store}/{self.path}".rstrip("/")


def _list_images(store: str, wells_per_plate: int, ignored: _Ignored, pool: ThreadPoolExecutor) -> list[_Listed]:
    zarr_format, ome = _root(store)
    name = re.sub(r"(\.ome)?\.zarr$", "", store.rpartition("/")[2] if "://" in store else Path(store).resolve().name)
    if "plate" in ome:
        return _list_plate(store, zarr_format, name, ome["plate"], wells_per_plate, ignored, pool)
    if "multiscales" in ome:
        return [_Listed(store, zarr_format, "", (name, "", 1))]
    if "bioformats2raw.layout" in ome:
        paths = (_attributes(store, zarr_format, "OME") or {}).get("series")
        if paths is None:
            paths = _numbered(store, zarr_format)
        return [_Listed(store, zarr_format, path, (name, "", site)) for site, path in _sites(list(map(str, paths)))]
    if not ome and "://" not in store:
        children = [
            path for path in sorted(Path(store).iterdir()) if any((path / key).is_file() for key in _GROUPS.values())
        ]
        inside = Path(store).resolve()
        for child in children:
            if inside.is_relative_to(child.resolve()):
                raise BuildError(f"{child}: is a link to a folder that it lies in; remove it")
        images = [image for child in children for image in _list_images(str(child), wells_per_plate, ignored, pool)]
        if images:  # those of no plate are the sites of one that is called like the folder
            sites = itertools.count(1)
            return [i if i.place[1] else dataclasses.replace(i, place=(name, "", next(sites))) for i in images]
    if zarr_format:
        there = f"the attributes in its {_GROUPS[zarr_format]} are {sorted(ome) or 'none of OME'}"
    elif "://" in store:
        there = "there is neither zarr.json nor .zattrs, check the address"
    else:
        names = sorted(path.name for path in Path(store).iterdir())
        there = f"it holds {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}"
    raise BuildError(
        f"{store}: no OME-Zarr of version 0.4 or 0.5: {there}; give a plate, an image with multiscales, a "
        "bioformats2raw collection, or a local folder of these"
    )


def _list_plate(
    store: str,
    zarr_format: int,
    name: str,
    plate: dict[str, Any],
    wells_per_plate: int,
    ignored: _Ignored,
    pool: ThreadPoolExecutor,
) -> list[_Listed]:
    with _valid_metadata(store):
        name = str(plate.get("name") or name)
        paths = [str(well["path"]) for well in plate["wells"]]
    images = []
    for path, ome in zip(paths, pool.map(lambda path: _attributes(store, zarr_format, path), paths)):
        well = well_name(path.replace("/", ""), f"{store}/{path}", wells_per_plate)
        if ome is None:
            ignored.append((f"{store}/{path}", "a well that the plate lists and that is not there"))
            continue
        with _valid_metadata(f"{store}/{path}"):
            listed = {str(image["path"]): str(image.get("acquisition", "")) for image in ome["well"]["images"]}
            for site, field in _sites(list(listed)):
                images.append(_Listed(store, zarr_format, f"{path}/{field}", (name, well, site), listed[field]))
    return images


def _sites(paths: list[str]) -> list[tuple[int, str]]:
    """(number from 1, path): by the paths where these are numbers from 0, else by their order."""
    if all(re.fullmatch("0|[1-9][0-9]*", path) for path in paths):
        return [(int(path) + 1, path) for path in paths]
    return list(enumerate(paths, start=1))


def _numbered(store: str, zarr_format: int) -> list[str]:
    """The images of a collection that does not list them, which are called 0, 1, ...

    A server is asked up to the first that is not there. In a folder one that is missing among others is in the list.
    """
    if "://" in store:
        numbers = map(str, _bounded(store))
        return list(itertools.takewhile(lambda path: _attributes(store, zarr_format, path) is not None, numbers))
    there = [int(path.name) for path in Path(store).iterdir() if re.fullmatch("0|[1-9][0-9]*", path.name)]
    count = max(there, default=-1) + 1
    check_size(store, f"{count} images", PLANE_BYTES * count, 0)
    return [str(number) for number in range(count)]


def _read_image(image: _Listed, level: int) -> Image | str:
    """The field, or why there is none."""
    ome = _attributes(image.store, image.zarr_format, image.path)
    if ome is None:
        return "an image that is listed and not there"
    with _valid_metadata(image):
        multiscale = ome["multiscales"][0]
        axes = multiscale["axes"]
        names = [axis["name"] for axis in axes]
        if names[-2:] != ["y", "x"] or names != [name for name in "tczyx" if name in names]:
            raise BuildError(
                f"{image}: its axes are {names}; t, c, z, y, x are read in this order, all but y, x optional"
            )
        paths = [f"{image.path}/{dataset['path']}".lstrip("/") for dataset in multiscale["datasets"]]
        if not 0 <= level < len(paths):
            shapes = [_shape(image, path) for path in paths]
            sizes = [f"{i} ({' x '.join(map(str, shape or ())) or 'absent'})" for i, shape in enumerate(shapes)]
            raise BuildError(f"{image}: there is no level {level}; there are {len(paths)}: {', '.join(sizes)}")
        shape = _shape(image, paths[level])
        if shape is None:
            return f"an image whose array {paths[level]} is not there"
        if len(shape) != len(names):
            raise BuildError(f"{image}: an array of {shape} for the axes {names}; write it again")
        extent = {"t": 1, "c": 1, "z": 1} | dict(zip(names, shape, strict=True))
        if min(extent.values()) < 1:
            raise BuildError(f"{image}: an array of {shape}, which has no pixels; write it again")
        labels = [channel.get("label") for channel in ome.get("omero", {}).get("channels", [])]
        channels = unique_names(labels if len(labels) == extent["c"] else [None] * extent["c"])
        planes: dict[tuple[str, int, int], Plane] = {}
        what = f"{extent['t']} time points, {extent['c']} channels and {extent['z']} focal planes"
        check_size(image, what, PLANE_BYTES * math.prod(extent[axis] for axis in "tcz"), None)
        for t, c, z in itertools.product(range(extent["t"]), range(extent["c"]), range(extent["z"])):
            index = tuple({"t": t, "c": c, "z": z}[name] for name in names[:-2])
            planes[channels[c], z, t] = ZarrPlane(image.store, paths[level], index)
        field = Field(
            *image.place,
            planes=planes,
            metadata={"image_name": str(multiscale.get("name") or image.path), "acquisition": image.acquisition},
        )
        pixel_size_um = _pixel_size(multiscale, level, -2), _pixel_size(multiscale, level, -1)
        return Image(
            str(image), field, channels, (extent["y"], extent["x"]), pixel_size_um, numbers_objects="image-label" in ome
        )


def _pixel_size(multiscale: dict[str, Any], level: int, axis: int) -> float | None:
    """Micrometers per pixel of a level; None if there is no scale, or no unit of length."""
    transformations = [
        *multiscale["datasets"][level].get("coordinateTransformations", []),
        *multiscale.get("coordinateTransformations", []),
    ]
    scales = [step["scale"][axis] for step in transformations if "scale" in step]
    unit = multiscale["axes"][axis].get("unit")
    return float(np.prod(scales)) * _UM[unit] if scales and unit in _UM else None


def _root(store: str) -> tuple[int, dict[str, Any]]:
    """Version of Zarr and OME metadata; (0, {}) if there are none."""
    refused = None
    for zarr_format in _GROUPS:
        try:
            ome = _attributes(store, zarr_format, "")
        except BuildError as error:
            # A bucket that does not let its content be listed says "forbidden" of what is not there.
            if not isinstance(error.__cause__, PermissionDeniedError):
                raise
            refused = error
            continue
        if ome is not None:
            return zarr_format, ome
    if refused is not None:
        raise refused
    return 0, {}


def _attributes(store: str, zarr_format: int, path: str) -> dict[str, Any] | None:
    """OME metadata of a group; None if the group is not there."""
    found = read_json(store, f"{path}/{_GROUPS[zarr_format]}".lstrip("/"))
    if found is None or zarr_format == 2:
        return found
    with _valid_metadata(f"{store}/{path}"):
        return {**found.get("attributes", {}).get("ome", {})}


def _shape(image: _Listed, path: str) -> tuple[int, ...] | None:
    found = read_json(image.store, f"{path}/{_ARRAYS[image.zarr_format]}")
    return None if found is None else tuple(found["shape"])


def _bounded(store: str) -> Iterator[int]:
    """0, 1, ...; a server may have an answer to each of them."""
    for number in itertools.count():
        check_size(store, f"more than {number} images", PLANE_BYTES * number, 0)
        yield number


@contextlib.contextmanager
def _valid_metadata(place: object) -> Iterator[None]:
    """What other programs wrote, and may have written in another way."""
    try:
        yield
    except BuildError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise BuildError(f"{place}: its metadata are not those of OME-Zarr 0.4 or 0.5 ({problem})") from None

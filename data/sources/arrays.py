"""Images in a NumPy array: `.npy` or `.npz`. Nothing is unpickled."""

import dataclasses
import functools
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from data.errors import BadInputError, BuildError
from data.fields import Index
from data.sources.entries import Entry, Value, make_index

# What zipfile and NumPy raise on a damaged file. KeyError: it has changed since.
_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, NotImplementedError)


@dataclasses.dataclass(frozen=True)
class ArrayPlane:
    """One channel of one image of an array.

    Attributes:
        path: a `.npy` file, of which only this plane is read, or a `.npz` file, whose array stays in memory.
        key: of the array in a `.npz` file; "" in a `.npy` file.
        number: of the image.
        channel: of a [N, H, W, C] array; None: the array is [N, H, W].
    """

    path: Path
    key: str
    number: int
    channel: int | None

    @property
    def source(self) -> str:
        """File, array and number, as NumPy would count."""
        return f"{self.path}{f':{self.key}' if self.key else ''}[{self.number}]"

    def identity(self) -> str:
        """Path, array, number, channel, size and time of last change."""
        return f"{self.source}|{self.channel}|{_state(self.path)}"

    def read(self) -> np.ndarray:
        """[H, W]; raises BadInputError if it cannot be read whole."""
        array = _array(self.path, self.key)
        try:
            return np.array(array[self.number] if self.channel is None else array[self.number, ..., self.channel])
        except IndexError:
            raise BadInputError(self.source, "", f"is not there: the array is {array.shape}") from None


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise BadInputError(str(path), "", f"cannot be opened: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _array(path: Path, key: str) -> np.ndarray:
    try:
        return _load(path, key, _state(path))
    except _DAMAGED as error:
        if isinstance(error, BuildError):
            raise
        raise BadInputError(f"{path}{f':{key}' if key else ''}", "", f"damaged: {error}") from None


@functools.lru_cache(maxsize=1)
def _load(path: Path, key: str, state: tuple[int, int]) -> np.ndarray:
    """An array, mapped into memory or, from an archive, in memory; `state` makes a changed file another one."""
    if not key:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays[key]


def index_arrays(path: Path, wells_per_plate: int = 384) -> Index:
    """Index the images of one array; only its header is read.

    Args:
        path: `.npy`, [N, H, W] or [N, H, W, C]; or `.npz` with an array `images` of that shape, or only one of three
            or four axes. Arrays of N values there are plate, well and site, or metadata of each image; `channels` has
            C names, which are "0", "1", ... otherwise. Without plate, well, site: the file's name, no wells, numbers
            from 1. Several images may be of one site: crops. Other arrays are listed as ignored.
        wells_per_plate: the plates' format.

    Raises:
        BuildError: for what is no such file or not whole, Python objects, other shapes, or names that do not fit.
    """
    headers = _headers(path)
    key = _choose(path, headers)
    shape, dtype = headers[key]
    count = shape[0]
    if len(shape) == 4 and shape[2] == shape[3] > shape[1]:
        raise BuildError(f"{path}: images are {shape}, as if [N, C, H, W]; expected [N, H, W, C]")
    if dtype.kind not in "buif" or 0 in shape:
        raise BuildError(f"{path}: images are {shape} of {dtype}, expected numbers [N, H, W] or [N, H, W, C]")
    columns: dict[str, np.ndarray] = {}
    names = [str(channel) for channel in range(shape[3] if len(shape) == 4 else 1)]
    ignored = []
    for name, (other_shape, other_dtype) in headers.items():
        if name == "channels":
            given = _array(path, name)
            if given.shape != (len(names),) or given.dtype.kind != "U" or len(set(given.tolist())) < len(names):
                raise BuildError(f"{path}: channels are {given.tolist()}, expected {len(names)} different names")
            names = given.tolist()
        elif name != key and other_shape == (count,):
            if other_dtype.kind not in "biufU":
                raise BuildError(f"{path}: {name} is of type {other_dtype}, expected numbers or text")
            columns[name] = _array(path, name)
        elif name != key:
            ignored.append((f"{path}:{name}", f"is {other_shape}: no value for each of {count} images"))
    plates = columns.pop("plate", np.full(count, path.stem)).astype(str).tolist()
    wells = columns.pop("well", np.full(count, "")).astype(str).tolist()
    sites = columns.pop("site", np.arange(1, count + 1))
    if sites.dtype.kind not in "iu":
        raise BuildError(f"{path}: site is of type {sites.dtype}, expected whole numbers")
    entries = []
    lists = {name: _values(array) for name, array in columns.items()}
    for number in range(count):
        metadata = {name: values[number] for name, values in lists.items()}
        for c, channel in enumerate(names):
            plane = ArrayPlane(path, key, number, c if len(shape) == 4 else None)
            place = (plates[number], wells[number], int(sites[number]))
            entries.append(Entry(plane, plane.source, *place, channel, metadata=metadata, crop=number))
    return make_index(entries, tuple(names), wells_per_plate, ignored=ignored)


def _values(array: np.ndarray) -> list[Value]:
    return array.astype(int).tolist() if array.dtype.kind == "b" else array.tolist()


def _choose(path: Path, headers: dict[str, tuple[tuple[int, ...], np.dtype]]) -> str:
    """The array of the images."""
    candidates = [name for name, (shape, _) in headers.items() if len(shape) in (3, 4)]
    if "images" in candidates:
        return "images"
    if len(candidates) != 1:
        there = ", ".join(f"{name or 'an array'} {shape}" for name, (shape, _) in headers.items()) or "none"
        raise BuildError(f"{path}: expected one array of images, [N, H, W] or [N, H, W, C]; there is {there}")
    return candidates[0]


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type by the array's name, "" in a `.npy` file, without the content."""
    try:
        with open(path, "rb") as file:
            start = file.read(6)
            file.seek(0)
            if start == b"\x93NUMPY":
                shape, dtype = _header(path, file)
                if file.tell() + math.prod(shape) * dtype.itemsize != os.fstat(file.fileno()).st_size:
                    raise BuildError(f"{path}: is truncated; copy it again")
                return {"": (shape, dtype)}
            if start[:4] not in (b"PK\3\4", b"PK\5\6"):
                raise BuildError(f"{path}: neither .npy nor .npz; if it is a pickle: nothing is unpickled")
            headers = {}
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    with archive.open(name) as member:
                        headers[name.removesuffix(".npy")] = _header(f"{path}:{name}", cast(BinaryIO, member))
            return headers
    except _DAMAGED as error:
        if isinstance(error, BuildError):
            raise
        raise BuildError(f"{path}: no whole .npy or .npz file ({error}); copy it again") from None


def _header(name: object, file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise BuildError(f"{name}: a NumPy file of version {version}, which images are not in")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise BuildError(f"{name}: holds pickled Python objects, and nothing is unpickled; save text with astype(str)")
    return shape, dtype

"""NumPy's files: which arrays are in them, one of them, and what is said of each example. Nothing is unpickled."""

import dataclasses
import functools
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from data.errors import BuildError
from data.limits import check_size, reading, regular
from data.sources.entries import Value
from data.sources.formats import SNIFFED, format_of
from data.text import is_missing, plain

Header = tuple[tuple[int, ...], np.dtype]  # shape and type of an array


@dataclasses.dataclass(frozen=True)
class Columns:
    """What a file says of each of its N examples.

    Attributes:
        plates: [N]; the file's name where it does not say.
        wells: [N]; "" where it does not say.
        sites: [N]; numbers from 1 where it does not say.
        metadata: name -> [N], all the others.
        ignored: (array, why) of those with another number of values.
    """

    plates: list[str]
    wells: list[str]
    sites: list[int]
    metadata: dict[str, list[Value]]
    ignored: list[tuple[str, str]]


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of last change; raises BadInputError if there is no such file."""
    status = regular(path)
    return status.st_size, status.st_mtime_ns


def read_array(path: Path, key: str) -> np.ndarray:
    """One array, "" for that of a `.npy` file; the last one read is kept. Raises BadInputError if it is not whole."""
    state = file_state(path)
    with reading(f"{path}{f':{key}' if key else ''}", state[0]):
        return _load(path, key, state)


@functools.lru_cache(maxsize=1)
def _load(path: Path, key: str, state: tuple[int, int]) -> np.ndarray:
    """An array, mapped into memory or, from an archive, in memory; `state` makes a changed file another one."""
    if not key:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays[key]


def read_columns(path: Path, headers: Mapping[str, Header], count: int, what: str) -> Columns:
    """The arrays of N values; plate, well and site are places, the others metadata.

    Args:
        path: of the file.
        headers: of the arrays that are not examples themselves.
        count: N.
        what: the examples, as a message names them.

    Raises:
        BuildError: for values that are neither numbers nor text, and a site that is no whole number.
    """
    columns: dict[str, np.ndarray] = {}
    ignored = []
    for name, (shape, dtype) in headers.items():
        if shape != (count,):
            ignored.append((f"{path}:{name}", f"is {shape}: no value for each of {count} {what}"))
        elif dtype.kind not in "biufU":
            raise BuildError(f"{path}: {name} is of type {dtype}, expected numbers or text")
        else:
            columns[name] = read_array(path, name)
    plates = columns.pop("plate", np.full(count, path.stem)).astype(str).tolist()
    wells = columns.pop("well", np.full(count, "")).astype(str).tolist()
    sites = columns.pop("site", np.arange(1, count + 1))
    if sites.dtype.kind not in "iu":
        raise BuildError(f"{path}: site is of type {sites.dtype}, expected whole numbers")
    if sites.min() < 0:
        raise BuildError(
            f"{path}: site is {sites.min()} of {what} number {sites.argmin()}, expected whole numbers from 0"
        )
    metadata = {name: _values(array, path) for name, array in columns.items()}
    return Columns(plates, wells, sites.tolist(), metadata, ignored)


def _values(array: np.ndarray, path: Path) -> list[Value]:
    if array.dtype.kind == "U":
        texts = [plain(text, str(path)) for text in array.tolist()]
        return ["" if is_missing(text) else text for text in texts]
    return array.astype(int).tolist() if array.dtype.kind == "b" else array.tolist()


def read_headers(path: Path) -> dict[str, Header]:
    """Shape and type by the array's name, "" in a `.npy` file, without the content.

    Raises:
        BuildError: for what is no such file or not whole, and for Python objects.
    """
    stored = regular(path).st_size
    with reading(path, stored, "no whole .npy or .npz file, copy it again"), open(path, "rb") as file:
        start = file.read(SNIFFED)
        file.seek(0)
        if start[:6] == b"\x93NUMPY":
            shape, dtype = _header(path, file)
            if file.tell() + math.prod(shape) * dtype.itemsize != stored:
                raise BuildError(f"{path}: is truncated; copy it again")
            return {"": (shape, dtype)}
        if start[:4] not in (b"PK\3\4", b"PK\5\6"):
            known = format_of(path.name, start)
            raise BuildError(
                f"{path}: is {known}"
                if known
                else f"{path}: neither .npy nor .npz; if it is a pickle: nothing is unpickled"
            )
        headers = {}
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as content:
                    shape, dtype = _header(f"{path}:{member.filename}", cast(BinaryIO, content))
                    size = content.tell() + math.prod(shape) * dtype.itemsize
                what = f"{member.filename}, {shape} of {dtype}"
                check_size(path, what, size, stored)
                if size != member.file_size:
                    raise BuildError(f"{path}: announces {what}, and holds {member.file_size} bytes; copy it again")
                headers[member.filename.removesuffix(".npy")] = (shape, dtype)
        return headers


def _header(name: object, file: BinaryIO) -> Header:
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise BuildError(f"{name}: a NumPy file of version {version}, which this does not read")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        known = format_of(Path(str(name)).name)
        raise BuildError(
            f"{name}: is {known}"
            if known
            else f"{name}: holds pickled Python objects, and nothing is unpickled; save text with astype(str)"
        )
    return shape, dtype

"""Images in a NumPy array: `.npy` or `.npz`."""

import dataclasses
from pathlib import Path

import numpy as np

from data.errors import BadInputError, BuildError
from data.fields.index import Index
from data.fields.window import Window, cut
from data.sources.entries import Entry, make_index
from data.sources.numpy_file import Header, file_state, read_array, read_columns, read_headers


@dataclasses.dataclass(frozen=True)
class ArrayPlane:
    """One channel of one image of an array.

    Attributes:
        path: a `.npy` file, of which only this plane is read, or a `.npz` file, whose array stays in memory.
        key: of the array in a `.npz` file; "" in a `.npy` file.
        number: of the image; None: the array is one image, [H, W].
        channel: of a [N, H, W, C] array; None: the array has no such axis.
    """

    path: Path
    key: str
    number: int | None
    channel: int | None

    @property
    def source(self) -> str:
        """File, array and number, as NumPy would count."""
        number = "" if self.number is None else f"[{self.number}]"
        return f"{self.path}{f':{self.key}' if self.key else ''}{number}"

    def identity(self) -> str:
        """Path, array, number, channel, size and time of last change."""
        return f"{self.source}|{self.channel}|{file_state(self.path)}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, window: Window | None = None) -> np.ndarray:
        """As `Plane`: of a `.npy` file only what is wanted, which is mapped into memory; of `.npz` the array."""
        array = read_array(self.path, self.key)
        if self.number is not None:
            try:
                array = array[self.number] if self.channel is None else array[self.number, ..., self.channel]
            except IndexError:
                raise BadInputError(self.source, "", f"is not there: the array is {array.shape}") from None
        return np.array(cut(array, window, self.source))


def index_arrays(path: Path, wells_per_plate: int = 384) -> Index:
    """Index the images of one array; only its header is read.

    Args:
        path: `.npy`, [N, H, W] or [N, H, W, C]; or `.npz` with an array `images` of that shape, or only one of three
            or four axes. Where none has so many, the only one of two axes is one image, [H, W], with three pixels along
            each at least: of two columns are points, and rows for which there are values of their own are examples.
            Arrays of N values are plate, well and site, or metadata of each image, where a text like NA or nan is "";
            `channels` has C names, which are "0", "1", ... otherwise. Without plate, well, site: the file's name, no
            wells, numbers from 1. Several images may be of one site: crops. Other arrays are listed as ignored.
        wells_per_plate: the plates' format.

    Raises:
        BuildError: for what is no such file or not whole, Python objects, other shapes, or names that do not fit.
    """
    headers = read_headers(path)
    key = _choose(path, headers)
    shape, dtype = headers[key]
    count = shape[0] if len(shape) > 2 else 1
    if len(shape) == 4 and shape[2] == shape[3] > shape[1]:
        raise BuildError(f"{path}: images are {shape}, as if [N, C, H, W]; expected [N, H, W, C]")
    if dtype.kind not in "buif" or 0 in shape:
        raise BuildError(f"{path}: images are {shape} of {dtype}, expected numbers [N, H, W] or [N, H, W, C]")
    names = [str(channel) for channel in range(shape[3] if len(shape) == 4 else 1)]
    if "channels" in headers:
        given = read_array(path, "channels")
        if given.shape != (len(names),) or given.dtype.kind != "U" or len(set(given.tolist())) < len(names):
            raise BuildError(f"{path}: channels are {given.tolist()}, expected {len(names)} different names")
        names = given.tolist()
    others = {name: header for name, header in headers.items() if name not in (key, "channels")}
    columns = read_columns(path, others, count, "images")
    entries = []
    for number in range(count):
        metadata = {name: values[number] for name, values in columns.metadata.items()}
        for c, channel in enumerate(names):
            plane = ArrayPlane(path, key, number if len(shape) > 2 else None, c if len(shape) == 4 else None)
            place = (columns.plates[number], columns.wells[number], columns.sites[number])
            entries.append(Entry(plane, plane.source, *place, channel, metadata=metadata, crop=number))
    return make_index(entries, tuple(names), wells_per_plate, ignored=columns.ignored)


def _choose(path: Path, headers: dict[str, Header]) -> str:
    """The array of the images."""
    candidates = [name for name, (shape, _) in headers.items() if len(shape) in (3, 4)]
    if not candidates:
        lengths = {shape[0] for shape, _ in headers.values() if len(shape) == 1}
        candidates = [
            name
            for name, (shape, _) in headers.items()
            if len(shape) == 2 and min(shape) >= 3 and shape[0] not in lengths
        ]
    if "images" in candidates:
        return "images"
    if len(candidates) != 1:
        there = ", ".join(f"{name or 'an array'} {shape}" for name, (shape, _) in headers.items()) or "none"
        raise BuildError(
            f"{path}: expected one array of images, [N, H, W] or [N, H, W, C], or one image, [H, W]; there is {there}"
        )
    return candidates[0]

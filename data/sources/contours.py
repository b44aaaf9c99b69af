"""Plain outlines, without masks: a text file of points, or arrays. x is the column, y the row, of a pixel's center."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from data.annotation import column_name, read_table
from data.errors import BadInputError, BuildError
from data.fields.index import Index
from data.fields.window import Window, cut
from data.limits import check_text
from data.sources.entries import Entry, Value, make_index, typed, whole
from data.sources.files import what_is_there
from data.sources.numpy_file import Columns, file_state, read_array, read_columns, read_headers

_CHANNEL = "points"

_NUMPY = (b"\x93NUMPY", b"PK")  # what .npy and .npz begin with


@dataclasses.dataclass(frozen=True)
class ContourPlane:
    """One outline of a file that holds many; the file is read once in each process.

    Attributes:
        path: of the file.
        number: of the outline, from 0.
        place: of the outline in the file, as a person would name it.
    """

    path: Path
    number: int
    place: str

    @property
    def source(self) -> str:
        """Path and place."""
        return f"{self.path}, {self.place}"

    def identity(self) -> str:
        """Path, number, size and time of last change."""
        return f"{self.path}|{self.number}|{file_state(self.path)}"

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def read(self, window: Window | None = None) -> np.ndarray:
        """[V, 2] float64 (row, column), px; a window is of this array. Raises BadInputError if it is not there."""
        outlines = read_outlines(self.path, file_state(self.path))
        if self.number >= len(outlines):
            raise BadInputError(self.source, "", f"is not there: the file has {len(outlines)} outlines")
        return cut(outlines[self.number][1], window, self.source)


def holds_contours(index: Index) -> bool:
    """Whether outlines are there already; a source has masks or contours, never both."""
    return all(isinstance(plane, ContourPlane) for plane in index.fields[0].planes.values())


def is_of_contours(source: str | None) -> bool:
    """Whether a source says by itself that it holds outlines: text, or arrays of pairs; no mask is 2 pixels wide."""
    path = Path(source or "")
    if path.suffix.lower() == ".txt":
        return True
    if path.suffix.lower() not in (".npy", ".npz") or not path.is_file():
        return False
    headers = read_headers(path)
    shapes = {name: shape for name, (shape, _) in headers.items()}
    return {"points", "lengths"} <= shapes.keys() or any(
        len(shape) == 3 and shape[-1] == 2 for name, shape in shapes.items() if name in ("", "contours")
    )


@functools.lru_cache(maxsize=1)
def read_outlines(path: Path, state: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """Every outline of a file, as [V, 2] float64 (row, column), and its place; neither is checked further.

    Args:
        path: text, one point "x y" (or "x,y") in each line and blank lines between outlines; `.npz` with an array
            `contours` [N, V, 2] (x, y), or with `points` [all V, 2] and `lengths` [N], the points of each; or `.npy`,
            [N, V, 2].
        state: of the file, so that a changed file is another one.

    Raises:
        BuildError: naming the file, and the line or the array, for anything else.
    """
    del state
    with path.open("rb") as file:
        start = file.read(6)
    outlines = _from_arrays(path) if start.startswith(_NUMPY) else _from_text(path)
    if not outlines:
        raise BuildError(f'{path}: there is no outline in it; expected lines "x y", and blank lines between outlines')
    return [(place, points[:, ::-1].astype(np.float64)) for place, points in outlines]


def _from_text(path: Path) -> list[tuple[str, np.ndarray]]:
    check_text(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise BuildError(f"{path}: neither text nor .npy nor .npz") from None
    outlines = []
    points: list[tuple[float, float]] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        parts = line.replace(",", " ").split()
        if parts:
            try:
                x, y = map(float, parts)
            except ValueError:
                raise BuildError(
                    f'{path}, line {number}: {line[:40]!r}: expected two numbers, "x y", or nothing between outlines'
                ) from None
            points.append((x, y))
        elif points:
            outlines.append((f"line {number - len(points)}", np.array(points)))
            points = []
    return outlines


def _from_arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    keys = _keys(path)
    contours = read_array(path, keys[0])
    if len(keys) == 2:
        lengths = read_array(path, keys[1])
        if lengths.dtype.kind not in "iu" or lengths.min() < 1 or lengths.sum() != len(contours):
            raise BuildError(
                f"{path}: lengths are {lengths.dtype} with the sum {lengths.sum()}, expected whole numbers from 1 with "
                f"the sum {len(contours)}, the number of points"
            )
        contours = np.split(contours, np.cumsum(lengths)[:-1])
    return [(f"outline {number}", points) for number, points in enumerate(contours, start=1)]


def _keys(path: Path) -> tuple[str, ...]:
    """The one array of all outlines, or those of points and of lengths."""
    headers = read_headers(path)
    if {"points", "lengths"} <= headers.keys():
        keys = ("points", "lengths")
        fits = len(headers["points"][0]) == 2 and len(headers["lengths"][0]) == 1 and headers["lengths"][0][0] > 0
    else:
        keys = tuple(name for name, (shape, _) in headers.items() if len(shape) == 3)
        keys = ("contours",) if "contours" in keys else keys
        fits = len(keys) == 1 and 0 not in headers[keys[0]][0]
    if not fits or headers[keys[0]][0][-1] != 2 or headers[keys[0]][1].kind not in "iuf":
        there = ", ".join(f"{name or 'an array'} {shape} {dtype}" for name, (shape, dtype) in headers.items()) or "none"
        raise BuildError(
            f"{path}: expected numbers contours [N, V, 2] (x, y), or points [all V, 2] and lengths [N]; it has {there}"
        )
    return keys


def index_contours(path: Path, table: Path | None, wells_per_plate: int = 384, label: str = "label") -> Index:
    """One field for each outline.

    Args:
        path: as in `read_outlines`. In `.npz`, arrays of N values are plate, well and site, or metadata.
        table: of what is said of the outlines, one line for each in their order (see `read_table`): plate, well and
            site if need be, and metadata. Without plate, well, site: the file's name, no wells, numbers from 1.
        wells_per_plate: the plates' format.
        label: column of the table that stays text, as it is written.

    Raises:
        BuildError: naming file and line or array, for what is no such file, a table with another number of lines, and
            all that `make_index` refuses.
    """
    if not path.is_file():
        inside = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        there = f"is a folder with {what_is_there(inside)}, expected a file" if path.is_dir() else "no such file"
        raise BuildError(f"{path}: {there} of outlines")
    outlines = read_outlines(path, file_state(path))
    columns = _columns(path, len(outlines))
    if table is not None:
        columns = _with_table(columns, table, path, label)
    entries = []
    for number, (place, _) in enumerate(outlines):
        plane = ContourPlane(path, number, place)
        metadata = {name: values[number] for name, values in columns.metadata.items()}
        where = (columns.plates[number], columns.wells[number], columns.sites[number])
        entries.append(Entry(plane, plane.source, *where, _CHANNEL, metadata=metadata, crop=number))
    return make_index(entries, (_CHANNEL,), wells_per_plate, ignored=columns.ignored)


def _columns(path: Path, count: int) -> Columns:
    headers = {}
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(_NUMPY):
        headers = {name: header for name, header in read_headers(path).items() if name not in _keys(path)}
    return read_columns(path, headers, count, "outlines")


def _with_table(columns: Columns, table: Path, path: Path, label: str) -> Columns:
    lines = read_table(table)
    count = len(columns.sites)
    if len(lines) != count:
        raise BuildError(
            f"{table}: has {len(lines)} lines under its header, {path} has {count} outlines; expected one line for each"
        )
    names = [column_name(str(name)) for name in lines]
    clash = sorted({name for name in names if names.count(name) > 1 or name in columns.metadata or not name})
    if clash:
        raise BuildError(f"{table}: the columns {clash} are there twice, in {path} already, or without a name")
    texts = {name: lines[header].tolist() for name, header in zip(names, lines, strict=True)}
    plates, wells = texts.pop("plate", columns.plates), texts.pop("well", columns.wells)
    sites = columns.sites
    if "site" in texts:
        where = [f"{table}, {lines.index.name} {number}" for number in lines.index]
        sites = [whole(text, line, "site") for text, line in zip(texts.pop("site"), where, strict=True)]
    given: dict[str, list[Value]] = {
        name: list(values if name == label else typed(values)) for name, values in texts.items()
    }
    return Columns(plates, wells, sites, columns.metadata | given, columns.ignored)

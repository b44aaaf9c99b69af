"""From single planes to an index: which planes are one field, and what is known of it."""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from data.errors import BuildError
from data.fields.index import PROJECTED, Field, Index
from data.fields.planes import Plane
from data.text import plain
from data.wells import PLATE_FORMATS, row_letters, well_name

Value = str | int | float


@dataclasses.dataclass(frozen=True)
class Entry:
    """A plane and its place.

    Attributes:
        plane: the plane.
        where: what says that it belongs there, as a message names it: a file, a line of a table.
        plate: its name.
        well: as the source writes it; "" for images that are not on plates.
        site: number of the field within the well.
        channel: as the source calls it.
        z: focal plane, from 0, or `PROJECTED`.
        t: time point, from 0.
        metadata: of the field, the same columns in every entry.
        crop: number that tells apart several images of one site; 0 where an image is the whole site.
    """

    plane: Plane
    where: str
    plate: str
    well: str
    site: int
    channel: str
    z: int = 0
    t: int = 0
    metadata: dict[str, Value] = dataclasses.field(default_factory=dict)
    crop: int = 0


def make_index(
    entries: Sequence[Entry],
    channels: tuple[str, ...],
    wells_per_plate: int,
    pixel_size_um: float | None = None,
    ignored: Sequence[tuple[str, str]] = (),
) -> Index:
    """Entries in any order become fields, sorted; their texts are brought into the form of `data.text.plain`.

    Args:
        entries: at least one.
        channels: every channel of the entries, in the order that the index shall have.
        wells_per_plate: the plates' format.
        pixel_size_um: micrometers per pixel; None where the source does not say.
        ignored: (file, why) of what lies there and is not part of it; planes that a field's siblings have and it has
            not are listed there too.

    Raises:
        BuildError: naming `Entry.where`, for an empty plate, a well that there cannot be, two planes for one place,
            and metadata that differ within a field.
    """
    entries = [_plain(entry) for entry in entries]
    channels = tuple(dict.fromkeys(plain(channel, "a channel's name") for channel in channels))
    wells = _wells(entries, wells_per_plate)
    places: dict[tuple[str, str, int, int], dict[tuple[str, int, int], Entry]] = {}
    for entry in entries:
        if not entry.plate:
            raise BuildError(f"{entry.where}: the plate has no name")
        field = places.setdefault((entry.plate, wells[entry.well], entry.site, entry.crop), {})
        other = field.setdefault((entry.channel, entry.z, entry.t), entry)
        if other is not entry:
            raise BuildError(
                f"{entry.where}: plate {entry.plate}, well {entry.well}, site {entry.site}, channel {entry.channel}, "
                f"z {entry.z}, t {entry.t} is {other.where} already"
            )
        first = next(iter(field.values()))
        for column, value in entry.metadata.items():
            if value is not first.metadata[column] and value != first.metadata[column]:
                raise BuildError(
                    f"{entry.where}: {column} is {value!r}, but {first.metadata[column]!r} in {first.where}, which is "
                    f"of the same field (plate {entry.plate}, well {entry.well}, site {entry.site})"
                )
    fields = tuple(
        Field(
            plate,
            well,
            site,
            planes={key: entry.plane for key, entry in sorted(planes.items())},
            metadata=_metadata(planes),
        )
        for (plate, well, site, _), planes in sorted(places.items())
    )
    columns = {column: type(value) for column, value in entries[0].metadata.items()}
    return Index(channels, fields, columns, pixel_size_um, (*ignored, *_gaps(fields, channels)))


def _plain(entry: Entry) -> Entry:
    """The same with its texts as a reader sees them."""
    columns = {column: plain(column, entry.where) for column in entry.metadata}
    if len(set(columns.values())) < len(columns):
        raise BuildError(f"{entry.where}: of the columns {list(columns)} two are called the same to a reader")
    return dataclasses.replace(
        entry,
        plate=plain(entry.plate, entry.where),
        well=plain(entry.well, entry.where),
        channel=plain(entry.channel, entry.where),
        metadata={
            columns[column]: plain(value, entry.where) if isinstance(value, str) else value
            for column, value in entry.metadata.items()
        },
    )


def _metadata(planes: dict[tuple[str, int, int], Entry]) -> dict[str, Value]:
    return next(iter(planes.values())).metadata


def _wells(entries: Iterable[Entry], wells_per_plate: int) -> dict[str, str]:
    """Wells as written -> as we write them."""
    wells: dict[str, str] = {}
    first: dict[bool, Entry] = {}  # with a well, without
    for entry in entries:
        if entry.well not in wells:
            wells[entry.well] = well_name(entry.well, entry.where, wells_per_plate) if entry.well else ""
            first.setdefault(bool(entry.well), entry)
    if len(first) == 2:
        raise BuildError(f"{first[False].where}: has no well, while {first[True].where} has {first[True].well}")
    return wells


def _gaps(fields: tuple[Field, ...], channels: tuple[str, ...]) -> list[tuple[str, str]]:
    """(field, what its channel lacks of the focal planes and times that are on the plate)."""
    steps: dict[str, set[tuple[int, int]]] = {}
    for field in fields:
        steps.setdefault(field.plate, set()).update((t, z) for _, z, t in field.planes if z != PROJECTED)
    gaps = []
    for field in fields:
        for channel in channels:
            there = {(t, z) for channel_, z, t in field.planes if channel_ == channel}
            lacking = sorted(steps[field.plate] - there)
            if not there:
                gaps.append((str(field), f"channel {channel}: no image"))
            elif lacking and all(z == PROJECTED for _, z in there):
                gaps.append((str(field), f"channel {channel}: only the microscope's projection, no z steps"))
            elif lacking:
                named = ", ".join(f"z {z}" + (f" t {t}" if t else "") for t, z in lacking[:12])
                gaps.append((str(field), f"channel {channel}: {len(lacking)} planes lacking: {named}"))
    return gaps


def natural(name: str) -> list[str | int]:
    """A sort key that puts w2 before w10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def whole(text: str, where: str, what: str) -> int:
    """ "3" and "3.0" -> 3.

    Raises:
        BuildError: naming `where` and `what`, if it is no whole number from 0.
    """
    if not re.fullmatch(r"[0-9]{1,18}(\.0*)?", text.strip()):
        raise BuildError(f"{where}: {what} is {text!r}, expected a whole number from 0")
    return int(text.strip().split(".")[0])


def typed(values: Sequence[str]) -> Sequence[Value]:
    """A column's cells: int if all are whole numbers, float if all are numbers, else as they are.

    "007" is a name, as is a number that 64 bits do not hold.
    """
    stripped = [value.strip() for value in values]
    if all(re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value) for value in stripped):
        return [int(value) for value in stripped]
    number = r"[+-]?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]{1,2})?"
    if all(re.fullmatch(number, value, re.IGNORECASE) for value in stripped):
        return [float(value) for value in stripped]
    return stripped


def well_of(row: str, column: str) -> str:
    """ "2" or "B", and "03" -> "B03"; what is no row is left for `make_index` to refuse."""
    if row.isdecimal() and 1 <= int(row) <= max(rows for rows, _ in PLATE_FORMATS.values()):
        row = row_letters(int(row) - 1)
    return row + column

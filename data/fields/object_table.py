"""A table of objects (cells, nuclei, worms) with their centers, as segmentation programs write it."""

import dataclasses
from pathlib import Path

from data.annotation import column_name, read_table
from data.errors import BuildError
from data.fields.index import Index
from data.sources.entries import Value, typed, whole
from data.wells import well_name

_NEEDED = ("plate", "well", "site", "y", "x")


def attach_objects(index: Index, path: Path, wells_per_plate: int) -> tuple[Index, dict[str, type]]:
    """Give every field the objects that a table lists for it.

    Args:
        index: the fields.
        path: table with the columns plate, well, site, y, x (pixels from the center of the upper left one), any case;
            every other column is metadata of the object, under the name "object_" and its own.
        wells_per_plate: the plates' format.

    Returns:
        The index with `Field.objects`, and names and types of the further columns.

    Raises:
        BuildError: naming the line, for what is missing, no number, or of no field.
    """
    table = read_table(path).rename(columns=lambda name: column_name(name).removeprefix("metadata_"))
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise BuildError(f"{path}: the columns {missing} are missing; there are {', '.join(table)}")
    extra_names = [name for name in table if name not in _NEEDED]
    extra = {f"object_{name}": typed(table[name].tolist()) for name in extra_names}
    places = {(field.plate, field.well, field.site): number for number, field in enumerate(index.fields)}
    objects: dict[int, list[tuple[float, float, dict[str, Value]]]] = {}
    for row, line in enumerate(table.index):
        where = f"{path}, {table.index.name} {line}"
        plate, well, site, y, x = (table[name].iloc[row] for name in _NEEDED)
        place = (plate, well_name(well, where, wells_per_plate) if well else "", whole(site, where, "site"))
        if place not in places:
            raise BuildError(f"{where}: there is no image of plate {plate}, well {well}, site {site}")
        try:
            center = float(y), float(x)
        except ValueError:
            raise BuildError(f"{where}: y {y!r}, x {x!r}: expected numbers of pixels") from None
        columns = {name: values[row] for name, values in extra.items()}
        objects.setdefault(places[place], []).append((*center, columns))
    fields = [
        dataclasses.replace(field, objects=tuple(objects.get(number, ()))) for number, field in enumerate(index.fields)
    ]
    types = {name: type(values[0]) for name, values in extra.items()}
    return dataclasses.replace(index, fields=tuple(fields)), types

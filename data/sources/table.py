"""A table with one line per image file."""

import re
from pathlib import Path

from data.annotation import column_name, read_table
from data.errors import BuildError
from data.fields.index import Index
from data.sources.files import index_files
from data.sources.spelling import find_spelled

NEEDED = ("path", "plate", "well", "site")


def index_table(path: Path, wells_per_plate: int = 384, label: str = "label") -> Index:
    """Index the files that a table lists.

    Args:
        path: what `read_table` reads. Columns path (absolute, or relative to the table), plate, well, site, and if
            need be channel, z, t (whole numbers from 0), in upper or lower case, also as `Metadata_Plate`. Every other
            column is metadata of the field. Without a column `channel` every file must hold what the first readable
            one holds (see `planes_within`). The column `well` is empty in every line or in none.
        wells_per_plate: the plates' format.
        label: column that stays text, as it is written.

    Raises:
        BuildError: naming the table and the line. Files that are not there are found when they are read.
    """
    table = read_table(path)
    columns: dict[str, list[str]] = {}
    for header in table:
        name = column_name(re.sub("^metadata_", "", str(header), flags=re.IGNORECASE))
        if not name or name in columns:
            raise BuildError(f"{path}: the column {header!r} would be called {name!r}, as another or as none is")
        columns[name] = list(table[header])
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise BuildError(f"{path}: the columns {', '.join(missing)} are missing; there are {', '.join(table)}")
    where = [f"{path}, {table.index.name} {number}" for number in table.index]
    files: dict[str, str] = {}
    for cell, line in zip(columns.pop("path"), where):
        if not cell:
            raise BuildError(f"{line}: the path is empty")
        file = str(find_spelled(path.parent, cell, line))
        if file in files:
            raise BuildError(f"{line}: {cell} is named in {files[file]} already")
        files[file] = line
    return index_files([Path(file) for file in files], where, columns, wells_per_plate, label=label)

"""The outlines of osteosarcoma cells, as geomstats has them: one field for each cell."""

import dataclasses
from pathlib import Path

from data.errors import BuildError
from data.fields.index import Index
from data.limits import check_text
from data.sources.contours import index_contours

VERSION = "1.0.0"
TEXT = "650 osteosarcoma cells of two lines, untreated or with one of two drugs (A. Prasad's laboratory; geomstats)."
LABEL = "cell_line"

OUTLINES = "cells.txt"
_COLUMNS = {"cell_line": "cell_lines.txt", "treatment": "treatments.txt"}  # one line for each outline


def index_osteosarcoma(folder: Path) -> Index:
    """One field for each cell: plate "cells", no wells, site its running number from 1.

    Args:
        folder: with `cells.txt`, `cell_lines.txt` and `treatments.txt`.

    Raises:
        BuildError: naming the file, for one that is missing, damaged, or has another number of lines.
    """
    for name in (OUTLINES, *_COLUMNS.values()):
        if not (folder / name).is_file():
            raise BuildError(
                f"{folder / name}: no such file; data/studies/osteosarcoma/README.md says what --source is"
            )
    index = index_contours(folder / OUTLINES, table=None)
    columns = {column: _read_lines(folder / name, len(index.fields)) for column, name in _COLUMNS.items()}
    fields = tuple(
        dataclasses.replace(field, metadata={column: values[number] for column, values in columns.items()})
        for number, field in enumerate(index.fields)
    )
    return dataclasses.replace(index, fields=fields, columns=dict.fromkeys(columns, str))


def _read_lines(path: Path, count: int) -> list[str]:
    check_text(path)
    lines = path.read_text().split()
    if len(lines) != count:
        raise BuildError(f"{path}: has {len(lines)} words, expected {count}, one for each outline of {OUTLINES}")
    return lines

"""Tables of what was done to each well, and their join with an index of fields."""

import codecs
import collections
import csv
import dataclasses
import gzip
import io
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as pq

from bie_jax.files.parquet import read_parquet
from data.errors import BuildError
from data.fields.index import Field, Index
from data.limits import (
    MOST_COLUMNS,
    TEXT_BYTES,
    VALUE_BYTES,
    check_size,
    check_text,
    current,
    reading,
    regular,
    size_text,
)
from data.sources.entries import typed
from data.text import is_missing, plain
from data.wells import well_name

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_PREFIX = "metadata_"  # of CellProfiler's and pycytominer's columns that are no measurements


def read_table(path: Path) -> pd.DataFrame:
    """A table as it stands in a file, every value as text in the form of `data.text.plain`.

    Args:
        path: `.csv`, `.tsv` or `.txt` (tabs), each also as `.gz`, or `.parquet`. Text is UTF-8, or UTF-16 with its
            mark; what is neither is read as latin-1, and stderr says so.

    Returns:
        Columns as the header names them; the index counts the file's lines (a Parquet file's rows) from 1 and is
        called "line" ("row"). Lines without any value are left out. Missing values (see `data.text.is_missing`) are "",
        and stderr counts those that were written as something. A column of decimals of a Parquet file that lacks values
        and has whole numbers elsewhere had whole numbers: 1.0 is "1".

    Raises:
        BuildError: if it is not there, not whole, no such table or without lines; naming the line where there is one.
    """
    name = path.name.lower().removesuffix(".gz")
    if not path.exists():
        raise BuildError(f"{path}: no such file")
    stored = regular(path).st_size
    if name.endswith(".parquet"):
        return _without_missing(_read_parquet(path, stored), path)
    separator = _SEPARATORS.get(Path(name).suffix)
    if separator is None:
        raise BuildError(f"{path}: a table is .csv, .tsv or .txt (tabs), each also as .gz, or .parquet")
    return _without_missing(_parse(_decode(_content(path, stored), path), separator, path), path)


def _without_missing(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Cells that say NA, nan, NULL, ... are empty ones; said once."""
    texts = {name: table[name].tolist() for name in table}
    said = [
        (line, name, text)
        for name, column in texts.items()
        for line, text in zip(table.index, column)
        if text and is_missing(text)
    ]
    if not said:
        return table
    line, name, text = said[0]
    print(
        f"{path}: {len(said)} cells say that they have no value and count as empty, first {table.index.name} {line}, "
        f"column {name}: {text!r}. If that is a name, write it in another way.",
        file=sys.stderr,
    )
    given = {name: ["" if is_missing(text) else text for text in column] for name, column in texts.items()}
    return pd.DataFrame(given, index=table.index, dtype=str)


def _content(path: Path, stored: int) -> bytes:
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"  # a browser may have unpacked the .gz
    if not is_packed:
        check_text(path)
        return path.read_bytes()
    most = current().allowed(stored) // TEXT_BYTES
    with reading(path, stored, "not a whole gzip file, copy it again"), gzip.open(path) as file:
        content = file.read(most + 1)
    check_size(path, f"a text of {size_text(len(content))} and more", TEXT_BYTES * len(content), stored)
    return content


def _decode(content: bytes, path: Path) -> str:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if wide:
            raise BuildError(f"{path}: begins as UTF-16 and does not go on as such ({error.reason})") from None
        line = content.count(b"\n", 0, error.start) + 1
        print(
            f"{path}: line {line} is not UTF-8 (byte {content[error.start]:#04x}); the table is read as latin-1. "
            "If names or units look wrong, save it as UTF-8.",
            file=sys.stderr,
        )
        text = content.decode("latin-1")
    if "\0" in text:
        raise BuildError(f"{path}: is no text")
    return text


def _parse(text: str, separator: str, path: Path) -> pd.DataFrame:
    # Not pandas: it does not say on which line a row began, and fills up rows that are too short.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    lines, rows, end = [], [], 0
    try:
        for row in reader:
            line, end = end + 1, reader.line_num
            row = [plain(value, f"{path}, line {line}") for value in row]
            if not any(row):
                continue
            if header is None:
                header = row
                _check_columns(path, len(header))
                continue
            if len(row) != len(header):
                raise BuildError(f"{path}, line {line}: {len(row)} values, the header has {len(header)} columns")
            lines.append(line)
            rows.append(row)
    except csv.Error as error:
        raise BuildError(f"{path}, line {end + 1}: not a table ({error})") from None
    if header is None or not rows:
        raise BuildError(f"{path}: the table is empty")
    if len(header) == 1 and re.search(r"[,;\t|]", header[0]):
        raise BuildError(f"{path}: has the one column {header[0]!r}; it must be separated by {separator!r}")
    twice = sorted(name for name, count in collections.Counter(header).items() if name and count > 1)
    if twice:
        raise BuildError(f"{path}: there are several columns {twice}")
    unnamed = [i for i, name in enumerate(header) if not name and any(row[i] for row in rows)]
    if unnamed:
        raise BuildError(f"{path}: column {unnamed[0] + 1} has values and no name")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header) if name}
    return pd.DataFrame(columns, index=pd.Index(lines, name="line"), dtype=str)


def _check_columns(path: Path, count: int) -> None:
    if count > MOST_COLUMNS:
        raise BuildError(f"{path}: has {count} columns, {MOST_COLUMNS} at most are read; leave out what is not needed")


def _read_parquet(path: Path, stored: int) -> pd.DataFrame:
    problem = "not a Parquet file that can be read"
    with reading(path, stored, problem):
        size = pq.read_metadata(path)
        nested = [field.name for field in pq.read_schema(path) if pyarrow.types.is_nested(field.type)]
    _check_columns(path, size.num_columns)
    what = f"a table of {size.num_rows} rows and {size.num_columns} columns"
    check_size(path, what, VALUE_BYTES * size.num_rows * size.num_columns, stored)
    if nested:
        raise BuildError(f"{path}: the columns {nested} hold lists or records; a table has one value in each place")
    with reading(path, stored, problem):
        table = read_parquet(path, exact=True)
    if table.empty:
        raise BuildError(f"{path}: the table is empty")
    texts: dict[str, list[str]] = {}
    for header, values in table.items():
        name = plain(str(header), str(path))
        if not name or name in texts:
            raise BuildError(
                f"{path}: there are several columns [{name!r}]" if name else f"{path}: a column has no name"
            )
        texts[name] = _column_texts(values, f"{path}, column {name}")
    return pd.DataFrame(texts, index=pd.RangeIndex(1, len(table) + 1, name="row"), dtype=str)


def _column_texts(values: pd.Series, where: str) -> list[str]:
    """A column of a Parquet file as texts; "" for what is not there."""
    kind: Any = values.dtype
    single = kind.numpy_dtype in (np.float16, np.float32)
    cells = [None if cell is pd.NA or cell is None or cell is pd.NaT or cell != cell else cell for cell in values]
    present = [cell for cell in cells if cell is not None]
    for cell in present:
        if isinstance(cell, bytes | list | dict | np.ndarray):
            raise BuildError(f"{where}: is of type {kind}, expected text, numbers, dates or true and false")
    if present and isinstance(present[0], float):
        # Programs that know no missing whole number write 1 as 1.0 in a column that lacks one.
        were_whole = len(present) < len(cells) and all(cell.is_integer() for cell in present)
        numbers = [None if cell is None else int(cell) if were_whole else cell for cell in cells]
        cells = [np.float32(cell) if single and isinstance(cell, float) else cell for cell in numbers]
    return ["" if cell is None else plain(str(cell), where) for cell in cells]


def column_name(name: str) -> str:
    """ "Gene Symbol" -> "gene_symbol", "Dose [µM]" -> "dose_um": letters, digits and underscores."""
    plain = unicodedata.normalize("NFKD", name.replace("µ", "u").replace("μ", "u")).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9a-z]+", "_", plain.lower()).strip("_")


def read_annotation(path: Path, wells_per_plate: int, label: str = "label") -> pd.DataFrame:
    """A table of any origin that has a plate and a well in each line.

    Args:
        path: as for `read_table`. The columns `Plate` and `Well`, in any case, perhaps with the prefix `Metadata_`;
            where they have it, only columns with it are taken, the others are measurements.
        wells_per_plate: the plates' format.
        label: column, by its new name, that stays text, as it is written.

    Returns:
        `plate`, `well` ("B02") and the other columns, under names from `column_name`; numbers where every line has
        one, text otherwise. Index as in `read_table`.

    Raises:
        BuildError: if there is no such column, or a line without plate or with a well that the format does not have.
    """
    table = read_table(path)
    prefixed = {name: name[len(_PREFIX) :] for name in table if name.lower().startswith(_PREFIX)}
    plain = {name: name for name in table}
    chosen = prefixed if {"plate", "well"} <= {name.lower() for name in prefixed.values()} else plain
    columns = {name: column_name(short) for name, short in chosen.items()}
    for needed in ("plate", "well"):
        if needed not in columns.values():
            raise BuildError(f"{path}: there is no column {needed.capitalize()}; there are {', '.join(table)}")
    wells = select(table, path, wells_per_plate, columns)
    for name in set(wells) - {"plate", "well", label}:
        wells[name] = pd.Series(typed(wells[name].tolist()), index=wells.index)
    return wells


def select(table: pd.DataFrame, path: Path, wells_per_plate: int, columns: dict[str, str]) -> pd.DataFrame:
    """Some columns of a table under other names, among them `plate` and `well`, with every well as "B02".

    Raises:
        BuildError: if a column is missing, two get one name, a plate is empty, or the format has no such well.
    """
    missing = [name for name in columns if name not in table]
    if missing:
        raise BuildError(f"{path}: the columns {missing} are missing; it has {', '.join(table)}")
    for name in columns.values():
        sources = [source for source, target in columns.items() if target == name]
        if len(sources) > 1 or not name:
            raise BuildError(f"{path}: the columns {sources} would all be called {name!r}")
    wells = table.filter(items=list(columns)).rename(columns=columns)
    places = [f"{path}, {table.index.name} {number}" for number in table.index]
    for place, plate in zip(places, wells["plate"], strict=True):
        if not plate:
            raise BuildError(f"{place}: the plate is empty")
    wells["well"] = [well_name(name, place, wells_per_plate) for place, name in zip(places, wells["well"], strict=True)]
    return wells


def to_numbers(table: pd.DataFrame, column: str, path: Path, *, unit: str, decimal: str) -> pd.Series:
    """Text -> float64, empty -> NaN.

    Args:
        table: indexed as by `read_table`.
        column: with values as "5.00 micromolar" or "33,33".
        path: of the table, for the message.
        unit: that follows every number after a blank; "" for none.
        decimal: the sign between whole and fraction.

    Raises:
        BuildError: naming the line of what is no such number.
    """
    form = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
    ending = f" {unit}" if unit else ""
    numbers = []
    for line, text in zip(table.index, table[column], strict=True):
        number = text.removesuffix(ending).replace(decimal, ".")
        if text and not (text.endswith(ending) and form.fullmatch(number)):
            raise BuildError(
                f"{path}, {table.index.name} {line}: {column} {text!r} is no number{' of' + ending if unit else ''}"
            )
        numbers.append(float(number) if text else float("nan"))
    return pd.Series(numbers, index=table.index, dtype=float)


def join_texts(table: pd.DataFrame, pattern: str) -> pd.Series:
    """Line by line the values, "; " between them, of all columns whose whole name matches; "" where there is none."""
    columns = [name for name in table if re.fullmatch(pattern, name)]
    return pd.Series(
        ["; ".join(value for value in row if value) for row in table.filter(items=columns).to_numpy()],
        index=table.index,
        dtype=object,
    )


def join(
    index: Index, table: pd.DataFrame, source: str, *, plate_pattern: str | None, leave_out: bool
) -> tuple[Index, dict[str, Any]]:
    """Give every field what the table says of its well.

    Args:
        index: fields of any source.
        table: `plate`, `well` ("B02") and columns of text or numbers; from `read_annotation` or a study.
        source: the table's file, for messages.
        plate_pattern: regular expression whose first group is the plate's name within what the source calls the
            plate, where all of it matches; None: plates are called the same in both.
        leave_out: take wells without a line out of the index, into `ignored`, instead of stopping.

    Returns:
        The index with more metadata, and for `build.json`: the table, counts, and the lists of wells that only one of
        the two has.

    Raises:
        BuildError: if no plate has one name in both, a well has two lines that differ, a well with images has none, or
            a column is in both.
    """
    clash = [name for name in table if name in index.columns]
    if clash:
        raise BuildError(
            f"{source}: the columns {clash} come from the images' source already; rename them in the table"
        )
    wells = _wells(table, source)
    fields = _rename_plates(index.fields, plate_pattern)
    with_images = {(field.plate, field.well): field for field in fields}
    plates, theirs = {plate for plate, _ in with_images}, {plate for plate, _ in wells}
    if not plates & theirs:
        raise BuildError(
            f"{source}: no plate of the images is in it; the images have {_examples(plates)}, the table has "
            f"{_examples(theirs)}"
        )
    missing = [well for well in with_images if well not in wells]
    if missing and not leave_out:
        plate, well = missing[0]
        unknown = sorted({plate for plate, _ in missing} - theirs)
        raise BuildError(
            f"{source}: no line for {len(missing)} of {len(with_images)} wells with images, first plate {plate}, well "
            f"{well}{f'; the plates {_examples(unknown)} are not in it at all' if unknown else ''}; "
            "--skip-bad=FILE.csv leaves them out"
        )
    kept = [
        dataclasses.replace(field, metadata=field.metadata | wells[field.plate, field.well])
        for field in fields
        if (field.plate, field.well) in wells
    ]
    if not kept:
        raise BuildError(f"{source}: it has no line for any of the {len(with_images)} wells with images")
    unused = [well for well in wells if well not in with_images]
    joined = dataclasses.replace(
        index,
        fields=tuple(kept),
        columns=index.columns | _types(table),
        ignored=index.ignored
        + tuple((f"plate {plate}, well {well}", f"no line in {source}") for plate, well in missing),
    )
    notes = {
        "annotation": source,
        "annotated wells with images": len(with_images) - len(missing),
        "wells without annotation": [f"{plate} {well}" for plate, well in missing],
        "annotated wells without images": [f"{plate} {well}" for plate, well in unused],
    }
    return joined, notes


def _wells(table: pd.DataFrame, source: str) -> dict[tuple[str, str], dict[str, str | int | float]]:
    """(plate, well) -> what the table says of it, as plain Python values."""
    lines: dict[tuple[str, str], tuple[int, dict[str, str | int | float]]] = {}
    records = table.drop(columns=["plate", "well"]).to_dict("records")
    for line, plate, well, metadata in zip(table.index, table["plate"], table["well"], records, strict=True):
        first, known = lines.setdefault((plate, well), (line, metadata))
        # As text, because NaN differs from itself.
        differing = [name for name in known if repr(known[name]) != repr(metadata[name])] if first != line else []
        if differing:
            raise BuildError(
                f"{source}: plate {plate}, well {well}: the {table.index.name}s {first} and {line} differ in "
                f"{', '.join(differing[:3])}; a well can have one"
            )
    return {well: metadata for well, (_, metadata) in lines.items()}


def _types(table: pd.DataFrame) -> dict[str, type]:
    kinds = {"f": float, "i": int, "u": int}
    return {name: kinds.get(table[name].dtype.kind, str) for name in table if name not in ("plate", "well")}


def _rename_plates(fields: tuple[Field, ...], pattern: str | None) -> tuple[Field, ...]:
    if pattern is None:
        return fields
    renamed: dict[tuple[str, str, int], tuple[Field, str]] = {}
    for field in fields:
        match = re.fullmatch(pattern, field.plate)
        plate = match[1] if match else field.plate
        key = (plate, field.well, field.site)
        if key in renamed:
            raise BuildError(
                f"{renamed[key][1]!r} and {field.plate!r} of the images are both plate {plate}, and both have the well "
                f"{field.well}, site {field.site}; give one of them only"
            )
        renamed[key] = (dataclasses.replace(field, plate=plate), field.plate)
    return tuple(renamed[key][0] for key in sorted(renamed))


def _examples(names: set[str] | list[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""Write idr0093's fields, cut into tiles, as a set."""

import csv
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from tqdm import tqdm

from data.records import BuildError, Description, Example, write_set

VERSION = "1.0.0"
CROP_PX = 256
# The study does not state it: 6.5 um camera pixels behind a 20x objective, as the CV7000's 2560 x 2160 fields have.
PIXEL_SIZE_UM = 0.325

_TABLE = ("path", "plate", "well", "site", "channel")
_ANNOTATION = ("Plate", "Well", "Gene Symbol", "Control Type")
_COLUMNS = {
    "plate": str,
    "well": str,
    "site": int,
    "label": str,
    "source": str,
    "control_type": str,
    "tile_y_px": int,
    "tile_x_px": int,
}
_SHOWN = 5  # problems told in a message; the rest is counted


@dataclasses.dataclass(frozen=True)
class _Field:
    plate: str
    well: str
    site: int
    label: str
    control_type: str
    paths: tuple[Path, ...]  # one per channel, in the set's order
    source: str  # the first channel's path as the table has it


@dataclasses.dataclass(frozen=True)
class _Problem:
    plate: str
    well: str
    site: str
    path: str
    problem: str


def build_idr0093(
    data_dir: str | Path,
    source: str | Path,
    annotation: str | Path,
    crop_px: int = CROP_PX,
    skipped: str | Path | None = None,
) -> Path:
    """Cut every field into tiles that do not overlap and write them.

    Every file is looked at before the first tile is written. A field is used with all its channels or not at all.

    Args:
        data_dir: folder of built sets.
        source: CSV with the columns path, plate, well, site, channel: one single-page TIFF per line, paths relative to
            the table. Channels keep the order in which the table first names them.
        annotation: IDR's annotation table, `.csv` or `.csv.gz`.
        crop_px: side of a tile; what is left at the right and lower border of a field is not used.
        skipped: CSV to list the fields in that cannot be used. None: such fields stop the build.

    Returns:
        The set's folder.

    Raises:
        BuildError: naming file, plate, well and site, what is wrong, and what to do.
    """
    if crop_px < 1:
        raise BuildError(f"--crop={crop_px}: a tile has at least 1 pixel")
    table = _read_table(Path(source))
    labels = _read_annotation(Path(annotation))
    channels = tuple(dict.fromkeys(table["channel"]))
    fields, problems = _fields(table, channels, labels, Path(source).parent)
    fields, shape, dtype, unreadable = _check_files(fields)
    problems += unreadable
    if problems and skipped is None:
        raise BuildError(f"{_summary(problems)}; mend them, or go on without with --skipped=LIST.csv")
    if not fields:
        raise BuildError(f"{source}: no field can be used ({_summary(problems)})")
    rows, columns = shape[0] // crop_px, shape[1] // crop_px
    if rows * columns == 0:
        raise BuildError(f"--crop={crop_px} is larger than the fields, which are {shape[0]} x {shape[1]} pixels")
    if skipped is not None:
        _write_problems(Path(skipped), problems)
    description = Description(
        name="idr0093",
        version=VERSION,
        channel_names=channels,
        pixel_size_um=PIXEL_SIZE_UM,
        bit_depth=8 * np.dtype(dtype).itemsize,
        image_shape=(crop_px, crop_px, len(channels)),
        dtype=dtype,
        columns=_COLUMNS,
        num_examples=len(fields) * rows * columns,
        text=f"idr0093 (Mueller, Pelkmans, Berry; CC BY 4.0): siRNA screen, {crop_px} px tiles of {len(fields)} fields; "
        f"{len(problems)} problems left out.",
        simulated=False,
    )
    return write_set(description, _tiles(fields, rows, columns, crop_px), data_dir)


def _read_csv(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise BuildError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise BuildError(f"{path}: not a whole CSV table ({error})") from None
    missing = [column for column in needed if column not in table]
    if missing:
        raise BuildError(f"{path}: the columns {missing} are missing; it has {list(table)}")
    return table


def _read_table(path: Path) -> pd.DataFrame:
    table = _read_csv(path, _TABLE)
    if table.empty:
        raise BuildError(f"{path}: no lines")
    wrong = table.index[~table["site"].str.fullmatch(r"\d+")]
    if len(wrong):
        raise BuildError(f"{path}, line {wrong[0] + 2}: site {table['site'][wrong[0]]!r} is not a number")
    table["well"] = [_well_name(well, path) for well in table["well"]]
    table["site"] = table["site"].astype(int)
    key = ["plate", "well", "site", "channel"]
    doubled = table.duplicated(key)
    if doubled.any():
        line = int(doubled.to_numpy().argmax())
        raise BuildError(f"{path}, line {line + 2}: {dict(table.loc[line, key])} was listed before")
    return table


def _read_annotation(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(plate, well) -> label and control type. Control wells without a gene are labelled with their control type."""
    table = _read_csv(path, _ANNOTATION)
    return {
        (plate, _well_name(well, path)): (gene.strip() or control.strip(), control.strip())
        for plate, well, gene, control in table[list(_ANNOTATION)].itertuples(index=False)
    }


def _well_name(name: str, path: Path) -> str:
    """ "B2" and "B02" -> "B02"."""
    match = re.fullmatch(r"([A-P])0?([1-9]|1\d|2[0-4])", name)
    if match is None:
        raise BuildError(f"{path}: well {name!r}: expected a row A to P and a column 1 to 24, as B02")
    return f"{match[1]}{int(match[2]):02d}"


def _fields(
    table: pd.DataFrame, channels: tuple[str, ...], labels: dict[tuple[str, str], tuple[str, str]], folder: Path
) -> tuple[list[_Field], list[_Problem]]:
    """Fields with every channel and a label, by plate, well and site; and what is wrong with the others."""
    fields, problems = [], []
    for (plate, well, site), lines in table.groupby(["plate", "well", "site"], sort=True):
        label, control = labels.get((plate, well), ("", ""))
        paths = dict(zip(lines["channel"], lines["path"], strict=True))
        missing = [channel for channel in channels if channel not in paths]
        found = []
        if missing:
            found.append(f"the table has no file for channel {', '.join(missing)}")
        if (plate, well) not in labels:
            found.append("the well is not in the annotation")
        elif not label:
            found.append("the annotation has neither gene symbol nor control type")
        if found:
            problems += [_Problem(plate, well, str(site), "", text) for text in found]
        else:
            files = tuple(folder / paths[channel] for channel in channels)
            fields.append(_Field(plate, well, int(site), label, control, files, paths[channels[0]]))
    return fields, problems


def _check_files(fields: list[_Field]) -> tuple[list[_Field], tuple[int, int], str, list[_Problem]]:
    """Fields whose files are whole and alike, the shape and dtype they share, and what is wrong with the others.

    Reads the headers only: a file that ends before its last strip is found, damage inside a strip is not (it stops
    the build when the strip is read).
    """
    usable, problems = [], []
    expected: tuple[tuple[int, ...], str] | None = None
    for field in tqdm(fields, desc="check files", unit="field"):
        found = []
        for path in field.paths:
            try:
                seen = _header(path)
            except BuildError as error:
                found.append((path, str(error)))
                continue
            if expected is None:
                expected = seen
            if seen != expected:
                found.append((path, f"{seen[0]} {seen[1]}, the fields before it are {expected[0]} {expected[1]}"))
        problems += [_Problem(field.plate, field.well, str(field.site), str(path), text) for path, text in found]
        if not found:
            usable.append(field)
    if expected is None:
        return usable, (0, 0), "uint16", problems
    return usable, (expected[0][0], expected[0][1]), expected[1], problems


# What tifffile and imagecodecs raise on files that are not what they should be.
_UNREADABLE = (OSError, ValueError, RuntimeError, IndexError, KeyError, tifffile.TiffFileError)


def _header(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape [H, W] and dtype of a TIFF.

    Raises:
        BuildError: if it is not a whole TIFF of one page of uint8 or uint16.
    """
    if not path.is_file():
        raise BuildError("no such file")
    try:
        with tifffile.TiffFile(path) as file:
            pages, page = len(file.pages), file.pages.first
            shape, dtype = page.shape, str(page.dtype)
            end = max((a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
    except _UNREADABLE as error:
        raise BuildError(f"not a TIFF that can be read ({error})") from None
    if end > path.stat().st_size:
        raise BuildError(f"cut off: pixels should go on to byte {end}, the file has {path.stat().st_size}")
    if pages != 1 or len(shape) != 2 or dtype not in ("uint8", "uint16"):
        raise BuildError(f"{pages} pages of {shape} {dtype}, expected one page [H, W] of uint8 or uint16")
    return shape, dtype


def _tiles(fields: list[_Field], rows: int, columns: int, crop_px: int) -> Iterator[Example]:
    for field in fields:
        image = np.stack([_read_page(field, path) for path in field.paths], axis=-1)  # [H, W, C]
        for y in range(0, rows * crop_px, crop_px):
            for x in range(0, columns * crop_px, crop_px):
                yield (
                    image[y : y + crop_px, x : x + crop_px],
                    {
                        "plate": field.plate,
                        "well": field.well,
                        "site": field.site,
                        "label": field.label,
                        "source": f"{field.source}#y={y},x={x}",
                        "control_type": field.control_type,
                        "tile_y_px": y,
                        "tile_x_px": x,
                    },
                )


def _read_page(field: _Field, path: Path) -> np.ndarray:
    try:
        return tifffile.imread(path)
    except _UNREADABLE as error:
        raise BuildError(
            f"{path}: plate {field.plate}, well {field.well}, site {field.site}: pixels cannot be read ({error}); "
            "copy the file again or take the field out of the table"
        ) from None


def _summary(problems: list[_Problem]) -> str:
    shown = [
        f"plate {p.plate}, well {p.well}, site {p.site}{f', {p.path}' if p.path else ''}: {p.problem}"
        for p in problems[:_SHOWN]
    ]
    rest = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{len(problems)} problems: {'; '.join(shown)}{rest}"


def _write_problems(path: Path, problems: list[_Problem]) -> None:
    names = [field.name for field in dataclasses.fields(_Problem)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(dataclasses.asdict(problem) for problem in problems)

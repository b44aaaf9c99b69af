"""Write the siRNA screen idr0093, or some of its plates, as a set of tiles."""

import dataclasses
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from tqdm import tqdm

from data.records import BuildError, Description, Example, well_name, write_set

VERSION = "1.0.0"
CROP_PX = 256
CONTROL = "scrambled"  # label of the negative controls; the simulated plates have the same
NO_GENE = "no gene symbol"  # label of a well that the annotation lists without a gene and without a control type

# CV7000, 20x objective, camera pixels of 6.5 um. IDR's study file does not give it; the images' own metadata do.
PIXEL_SIZE_UM = 0.325

_IMAGE_COLUMNS = ("path", "plate", "well", "site", "channel")
_ANNOTATION_COLUMNS = ("Plate", "Well", "Gene Symbol")
_COLUMNS = {
    "plate": str,
    "well": str,
    "site": int,
    "label": str,
    "source": str,
    "gene_symbol": str,
    "control_type": str,
    "tile_x_px": int,
    "tile_y_px": int,
}
# What tifffile and its codecs raise on a file that is damaged; imagecodecs' errors are RuntimeErrors.
_DAMAGED = (tifffile.TiffFileError, ValueError, KeyError, IndexError, struct.error, RuntimeError, OSError)


@dataclasses.dataclass(frozen=True)
class _Field:
    """One site of one well: a file per channel."""

    plate: str
    well: str
    site: int
    files: dict[str, Path]

    def __str__(self) -> str:
        return f"plate {self.plate}, well {self.well}, site {self.site}"


def build_idr0093(data_dir: str | Path, source: str | Path, annotation: str | Path, crop: int = CROP_PX) -> Path:
    """Cut every field into tiles and write them.

    Args:
        data_dir: folder of built sets.
        source: table (csv) of the images: `path` (relative to the table), `plate`, `well`, `site`, `channel`.
        annotation: IDR's annotation table (csv or csv.gz): `Plate`, `Well`, `Gene Symbol`, perhaps `Control Type`.
        crop: side of a tile in pixels. What does not fill a tile, at the right and at the bottom, is left out.

    Returns:
        The set's folder.

    Raises:
        BuildError: naming plate, well, site or file, before anything is written if the tables or the files' headers
            show it.
    """
    source, annotation = Path(source), Path(annotation)
    channels, fields = _read_fields(source)
    genes = _read_annotation(annotation)
    wells = {(field.plate, field.well): field for field in fields}
    missing = [field for well, field in wells.items() if well not in genes]
    if missing:
        raise BuildError(
            f"{annotation}: no line for plate {missing[0].plate}, well {missing[0].well}"
            + (f", nor for {len(missing) - 1} more wells with images" if len(missing) > 1 else "")
        )
    height, width, dtype = _check_headers(fields)
    if not 0 < crop <= min(height, width):
        raise BuildError(f"--crop={crop}: the images are {height} x {width} pixels, a tile must fit into one")
    tiles = (height // crop) * (width // crop)
    without_gene = sum(_label(*genes[well]) == NO_GENE for well in wells)
    print(
        f"{len(fields)} fields of {height} x {width} pixels in {len(wells)} wells, {tiles} tiles of each; "
        f"{len(genes.keys() - wells.keys())} wells of the annotation have no images here; "
        f"{without_gene} wells with images have neither a gene symbol nor a control type"
    )
    description = Description(
        name="idr0093",
        version=VERSION,
        channel_names=channels,
        pixel_size_um=PIXEL_SIZE_UM,
        bit_depth=8 * np.dtype(dtype).itemsize,
        image_shape=(crop, crop, len(channels)),
        dtype=dtype,
        columns=_COLUMNS,
        num_examples=len(fields) * tiles,
        text=f"idr0093 (genome-wide siRNA screen, CC BY 4.0, Mueller et al), tiles of {crop} x {crop} pixels.",
        simulated=False,
    )
    return write_set(description, _tiles(fields, genes, channels, (height, width), dtype, crop), data_dir)


def _read_table(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        raise BuildError(f"{path}: no such file; data/idr0093/README.md says what it is")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError) as error:
        raise BuildError(f"{path}: not a table of comma-separated values ({str(error).strip()})") from None
    missing = [column for column in needed if column not in table]
    if missing:
        raise BuildError(f"{path}: the columns {missing} are missing; it has {list(table)}")
    return table


def _read_fields(path: Path) -> tuple[tuple[str, ...], list[_Field]]:
    """Channel names and fields, both in the order in which the table first names them."""
    table = _read_table(path, _IMAGE_COLUMNS)
    if table.empty:
        raise BuildError(f"{path}: no images are listed")
    channels = tuple(table["channel"].drop_duplicates())
    fields: dict[tuple[str, str, int], _Field] = {}
    named: dict[Path, int] = {}
    for line, (name, plate, well, site, channel) in enumerate(
        table[list(_IMAGE_COLUMNS)].itertuples(index=False), start=2
    ):
        place = f"{path}, line {line}"
        if not site.isdecimal():
            raise BuildError(f"{place}: site {site!r} of plate {plate}, well {well}: expected a whole number")
        if not plate or not channel:
            raise BuildError(f"{place}: the plate or the channel of {name} is empty")
        field = _Field(plate, well_name(well, place), int(site), {})
        field = fields.setdefault((field.plate, field.well, field.site), field)
        file = path.parent / name
        if channel in field.files:
            raise BuildError(f"{place}: a second file for {field}, channel {channel}: {name}")
        if file in named:
            raise BuildError(f"{place}: {name} stands in line {named[file]} already")
        field.files[channel], named[file] = file, line
    for field in fields.values():
        missing = [channel for channel in channels if channel not in field.files]
        if missing:
            raise BuildError(f"{path}: {field}: no file for the channels {missing}")
    return channels, list(fields.values())


def _read_annotation(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(plate, well) -> gene symbol and control type, either of them empty where IDR gives none."""
    table = _read_table(path, _ANNOTATION_COLUMNS)
    control_types = table["Control Type"] if "Control Type" in table else [""] * len(table)
    genes: dict[tuple[str, str], tuple[str, str]] = {}
    for line, (plate, name, gene, control_type) in enumerate(
        zip(table["Plate"], table["Well"], table["Gene Symbol"], control_types, strict=True), start=2
    ):
        well = well_name(name, f"{path}, line {line}")
        if (plate, well) in genes:
            raise BuildError(f"{path}, line {line}: plate {plate}, well {well} has two lines")
        genes[plate, well] = (gene.strip(), control_type.strip())
    return genes


def _label(gene: str, control_type: str) -> str:
    if "negative" in control_type.lower():
        return CONTROL
    return control_type or gene or NO_GENE


def _check_headers(fields: list[_Field]) -> tuple[int, int, str]:
    """Height, width and dtype that all files share; reads no pixel."""
    found: Counter[tuple[tuple[int, ...], str]] = Counter()
    for field in tqdm(fields, desc="read headers", unit="field"):
        for channel, file in field.files.items():
            found[_header(file, f"{field}, channel {channel}")] += 1
            if len(found) > 1:
                (shape, dtype), (other_shape, other_dtype) = found
                raise BuildError(
                    f"{file}: {field}, channel {channel}: {other_shape} {other_dtype}, the files before it are "
                    f"{shape} {dtype}; a set has images of one size"
                )
    ((height, width), dtype) = next(iter(found))
    return height, width, dtype


def _header(file: Path, place: str) -> tuple[tuple[int, ...], str]:
    if not file.is_file():
        raise BuildError(f"{file}: no such file ({place})")
    size = file.stat().st_size
    try:
        with tifffile.TiffFile(file) as tiff:
            pages, page = len(tiff.pages), tiff.pages.first
            shape, dtype = page.shape, str(page.dtype)
            segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    except _DAMAGED as error:
        raise BuildError(f"{file}: not a TIFF that can be read ({place}): {error}") from None
    if pages != 1 or len(shape) != 2 or dtype not in ("uint8", "uint16"):
        raise BuildError(
            f"{file}: {pages} pages, {shape} {dtype} ({place}); expected one page of [H, W] uint8 or uint16"
        )
    # A part without bytes would be read as zeros, without a word.
    if any(count == 0 or offset + count > size for offset, count in segments):
        raise BuildError(f"{file}: truncated ({place}): pixels are announced that the file does not hold")
    return shape, dtype


def _tiles(
    fields: list[_Field],
    genes: dict[tuple[str, str], tuple[str, str]],
    channels: tuple[str, ...],
    shape: tuple[int, int],
    dtype: str,
    crop: int,
) -> Iterator[Example]:
    for field in fields:
        image = np.empty((*shape, len(channels)), dtype)
        for c, channel in enumerate(channels):
            image[..., c] = _read(field.files[channel], f"{field}, channel {channel}", shape, dtype)
        gene, control_type = genes[field.plate, field.well]
        for y in range(0, shape[0] - crop + 1, crop):
            for x in range(0, shape[1] - crop + 1, crop):
                yield (
                    image[y : y + crop, x : x + crop],
                    {
                        "plate": field.plate,
                        "well": field.well,
                        "site": field.site,
                        "label": _label(gene, control_type),
                        "source": field.files[channels[0]].name,
                        "gene_symbol": gene,
                        "control_type": control_type,
                        "tile_x_px": x,
                        "tile_y_px": y,
                    },
                )


def _read(file: Path, place: str, shape: tuple[int, int], dtype: str) -> np.ndarray:
    try:
        pixels = tifffile.imread(file)
    except _DAMAGED as error:
        raise BuildError(f"{file}: cannot be read ({place}): {error}") from None
    if pixels.shape != shape or str(pixels.dtype) != dtype:
        raise BuildError(f"{file}: {pixels.shape} {pixels.dtype} ({place}) now, {shape} {dtype} a while ago")
    return pixels

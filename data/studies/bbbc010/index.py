"""BBBC010 as an index of fields: worms that live or are dead, and where each of them is."""

import re
from pathlib import Path

import numpy as np

from data.errors import BuildError
from data.fields.index import Field, Index
from data.fields.planes import FilePlane, read_file
from data.sources.download import bring
from data.wells import well_name

VERSION = "1.1.0"
TEXT = "BBBC010: C. elegans infected with E. faecalis, with and without ampicillin (Ausubel; Ljosa et al 2012)."
LABEL = "outcome"
CHANNELS = {"w1": "GFP", "w2": "brightfield"}
WELLS_PER_PLATE = 384
WORM_COLUMNS = {"worm": int, "worm_area_px": int}  # of every object, beside its place

# The second edition, which is complete, and the masks. SHA-256 as a public project that fetches and checks the same
# addresses records them; the files were not at hand here.
FILES = {
    "images": (
        "https://data.broadinstitute.org/bbbc/BBBC010/BBBC010_v2_images.zip",
        "77a82c74d12c0707e861d9b324b47e6a74e316aefe25a3501f596c7a80a0b4f4",
    ),
    "masks": (
        "https://data.broadinstitute.org/bbbc/BBBC010/BBBC010_v1_foreground_eachworm.zip",
        "19b7ceef05d4a21bb3eec9988ee0b61dd0eeb940fb690125f14bb5919ae8ae44",
    ),
}

_OUTCOME_COLUMNS = {"treatment": str, "outcome": str}
_LAST_TREATED_COLUMN = 12
_IMAGE = re.compile(r"(?P<plate>.+)_(?P<well>[A-P]\d{2})_(?P<channel>w[12])_[0-9A-F-]{36}\.tif", re.IGNORECASE)
_MASK = re.compile(r"(?P<well>[A-P]\d{2})_(?P<worm>\d+)(?:_\w+)?\.png", re.IGNORECASE)


def fetch_bbbc010(what: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """One of the two official archives, checked and unpacked; 70 MB of images, 2.7 MB of masks.

    Args:
        what: "images" or "masks".
        folder: for the download and what it holds.

    Returns:
        The folder for `index_bbbc010`, and for `build.json` its address and SHA-256.

    Raises:
        BuildError: as `data.sources.download.bring`.
    """
    return bring(*FILES[what], folder)


def index_bbbc010(source: Path, masks: Path | None) -> Index:
    """One field for each well.

    Args:
        source: folder of the images, at any depth; as unpacked from BBBC010_v2_images.zip or _v1_.
        masks: folder of one mask for each worm, as unpacked from BBBC010_v1_foreground_eachworm.zip; its worms become
            the fields' objects. None: there are no objects.

    Raises:
        BuildError: if there are no such images, a well has two of one channel, or a mask is empty or of no well.
    """
    if not source.is_dir():
        raise BuildError(f"{source}: no such folder; data/studies/bbbc010/README.md says what it is")
    planes: dict[tuple[str, str], dict[tuple[str, int, int], FilePlane]] = {}
    ignored = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        match = _IMAGE.fullmatch(path.name)
        if match is None:
            ignored.append((str(path), "not named as an image of BBBC010"))
            continue
        well = well_name(match["well"], path, WELLS_PER_PLATE)
        of_well = planes.setdefault((match["plate"], well), {})
        key = (match["channel"].lower(), 0, 0)
        if key in of_well:
            raise BuildError(f"{path}: a second {key[0]} of well {well}; the first is {of_well[key].path}")
        of_well[key] = FilePlane(path)
    if not planes:
        raise BuildError(f"{source}: no image is named as those of BBBC010, ..._A01_w1_(an identifier).tif")
    objects = {} if masks is None else _read_masks(masks)
    unknown = sorted(objects.keys() - {well for _, well in planes})
    if unknown:
        raise BuildError(f"{masks}: masks of the wells {', '.join(unknown[:3])}, of which there are no images")
    fields = [
        Field(plate, well, 1, dict(files), _outcome(well), tuple(objects.get(well, ())))
        for (plate, well), files in sorted(planes.items())
    ]
    return Index(tuple(CHANNELS), tuple(fields), _OUTCOME_COLUMNS, pixel_size_um=None, ignored=tuple(ignored))


def index_worm_masks(folder: Path) -> Index:
    """One field for each worm: plate "BBBC010", its well, and its number there as the site.

    Args:
        folder: as `masks` of `index_bbbc010`.

    Raises:
        BuildError: if there is no such folder, or no such mask in it.
    """
    fields = [
        Field("BBBC010", well, worm, {("mask", 0, 0): FilePlane(path)}, _outcome(well))
        for path, well, worm in _find_masks(folder)
    ]
    fields.sort(key=lambda field: (field.well, field.site))
    return Index(("mask",), tuple(fields), _OUTCOME_COLUMNS, pixel_size_um=None, ignored=())


def _outcome(well: str) -> dict[str, str | int | float]:
    """What the set's page says of the plate's columns; most worms of a well, not every one, are so."""
    treated = int(well[1:]) <= _LAST_TREATED_COLUMN
    return {"treatment": "ampicillin" if treated else "untreated", "outcome": "live" if treated else "dead"}


def _read_masks(folder: Path) -> dict[str, list[tuple[float, float, dict[str, str | int | float]]]]:
    """Well -> center (y, x in pixels), number and area of each worm."""
    worms: dict[str, list[tuple[float, float, dict[str, str | int | float]]]] = {}
    for path, well, worm in _find_masks(folder):
        mask = read_file(path)
        y, x = np.nonzero(mask if mask.ndim == 2 else mask[..., 0])
        if len(y) == 0:
            raise BuildError(f"{path}: the mask is empty")
        extra: dict[str, str | int | float] = {"worm": worm, "worm_area_px": len(y)}
        worms.setdefault(well, []).append((float(y.mean()), float(x.mean()), extra))
    return worms


def _find_masks(folder: Path) -> list[tuple[Path, str, int]]:
    """(path, well, number of the worm), sorted by path."""
    if not folder.is_dir():
        raise BuildError(f"{folder}: no such folder; data/studies/bbbc010/README.md says what it is")
    found = []
    for path in sorted(folder.rglob("*.png")):
        match = _MASK.fullmatch(path.name)
        if match is not None:
            found.append((path, well_name(match["well"], path, WELLS_PER_PLATE), int(match["worm"])))
    if not found:
        raise BuildError(f"{folder}: no mask is named after a well and a worm, as A01_01_ground_truth.png")
    return found

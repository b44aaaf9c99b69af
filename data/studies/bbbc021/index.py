"""BBBC021 as an index: fields of its plates with their compounds, or single cells that were cut from three of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pooch

from data.annotation import join, read_annotation, read_table, to_numbers
from data.errors import BuildError
from data.fields.index import Index
from data.fields.planes import FilePlane
from data.limits import check_text
from data.sources.arrays import index_arrays
from data.sources.download import bring, fetch
from data.sources.entries import Entry, Value, make_index, whole
from data.sources.files import find_files

TEXT = "BBBC021: MCF-7 cells under 113 compounds at eight doses (AstraZeneca; Caie et al 2010, Ljosa et al 2012)."
SUBSET_TEXT = "BBBC021 single cells: DMSO or a protein-synthesis inhibitor, three plates (12-bit values times 16)."
LABEL = "moa"
CHANNELS = {"DAPI": "DNA", "Tubulin": "Tubulin", "Actin": "Actin"}
CONTROL = "DMSO"
NOT_GIVEN = "not given"
WELLS_PER_PLATE = 96
SUBSET = "bbbc021_subset.npz"

ADDRESS = "https://data.broadinstitute.org/bbbc/BBBC021/"
IMAGES, COMPOUNDS, MECHANISMS = TABLES = ("BBBC021_v1_image.csv", "BBBC021_v1_compound.csv", "BBBC021_v1_moa.csv")
_ARCHIVE = re.compile(r"BBBC021_v1_images_(\w+)\.zip")
_FILE = re.compile(r"[^/\\]+_s(\d+)_w\d[^/\\]*\.tif", re.IGNORECASE)


def fetch_bbbc021(
    registry: Path, plates: str | None, folder: Path
) -> tuple[dict[str, Path], list[Path], dict[str, Any]]:
    """The three tables and one archive for each plate, about 0.8 GB, held to the sums that the user gives.

    Args:
        registry: lines "NAME SHA256" as pooch writes them, perhaps with an address behind; else `ADDRESS` is asked.
        plates: "Week1_22123,Week1_22141"; None: those whose archives the registry lists.
        folder: for downloads and what they hold.

    Returns:
        Name -> path of the tables, and the unpacked archives, both for `index_bbbc021`; and for `build.json` the files'
        addresses and sums.

    Raises:
        BuildError: for a registry that cannot be read or lacks a file; as `data.sources.download.bring`.
    """
    known = pooch.create(path=folder, base_url=ADDRESS)
    if registry.exists():
        check_text(registry)
    try:
        known.load_registry(registry)
    except (OSError, ValueError) as error:
        raise BuildError(f"{registry}: expected lines 'NAME SHA256', as pooch.make_registry writes ({error})") from None
    listed = [name for name in known.registry if _ARCHIVE.fullmatch(name)]
    if plates is not None:
        listed = [f"BBBC021_v1_images_{plate.strip()}.zip" for plate in plates.split(",")]
    missing = [name for name in (*TABLES, *listed) if name not in known.registry]
    if missing or not listed:
        lacking = ", ".join(missing) or "archives, as BBBC021_v1_images_Week1_22123.zip"
        raise BuildError(f"{registry}: lists no {lacking}; one line for each file is needed, 'NAME SHA256'")
    sums = {name: known.registry[name].removeprefix("sha256:") for name in (*TABLES, *listed)}
    tables = {name: fetch(known.get_url(name), sums[name], folder) for name in TABLES}
    folders = [bring(known.get_url(name), sums[name], folder)[0] for name in listed]
    return tables, folders, {"fetched": [[known.get_url(name), sha256] for name, sha256 in sums.items()]}


def index_bbbc021(tables: Mapping[str, Path], folders: Sequence[Path]) -> tuple[Index, dict[str, Any]]:
    """One field for each line of `IMAGES` whose plate has a folder.

    Args:
        tables: name -> path, of all `TABLES`.
        folders: where the plates' folders are, at any depth; each is called as its plate, Week1_22123.

    Returns:
        The index, and for `build.json` the plates without images.

    Raises:
        BuildError: naming the file, and the line where there is one. Images that a table lists and a plate's folder
            lacks are found when they are read.
    """
    path = tables[IMAGES]
    images = _read(path, ["Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI", "Replicate",
                          "Image_Metadata_Compound", "Image_Metadata_Concentration",
                          *(f"Image_FileName_{channel}" for channel in CHANNELS)])  # fmt: skip
    doses = to_numbers(images, "Image_Metadata_Concentration", path, unit="", decimal=".").tolist()
    smiles = dict(_read(tables[COMPOUNDS], ["compound", "smiles"])[["compound", "smiles"]].to_numpy().tolist())
    mechanisms = _mechanisms(tables[MECHANISMS])
    plates = set(images["Image_Metadata_Plate_DAPI"])
    homes, ignored = _homes(folders, plates, set(tables.values()))
    entries, listed = [], set()
    for line, dose, row in zip(images.index, doses, images.to_dict("records"), strict=True):
        plate, well = row["Image_Metadata_Plate_DAPI"], row["Image_Metadata_Well_DAPI"]
        if plate not in homes:
            continue
        compound, where = row["Image_Metadata_Compound"], f"{path}, line {line}"
        metadata: dict[str, Value] = {
            "compound": compound,
            "concentration_micromolar": dose,
            "moa": CONTROL if compound == CONTROL else mechanisms.get((compound, dose)) or NOT_GIVEN,
            "control_type": "negative control" if compound == CONTROL else "",
            "replicate": whole(row["Replicate"], where, "Replicate"),
            "smiles": smiles.get(compound, ""),
        }
        for channel in CHANNELS:
            name = row[f"Image_FileName_{channel}"]
            match = _FILE.fullmatch(name)
            if match is None:
                raise BuildError(f"{where}: Image_FileName_{channel} is {name!r}, expected ..._s1_w1....tif")
            file = homes[plate] / name
            listed.add(file)
            place = (plate, well, int(match[1]))
            entries.append(Entry(FilePlane(file, pages=1), where, *place, channel, metadata=metadata))
    ignored += [
        (str(file), f"not in {IMAGES}")
        for home in homes.values()
        for file in sorted(home.iterdir())
        if file not in listed and not file.is_dir()
    ]
    index = make_index(entries, tuple(CHANNELS), WELLS_PER_PLATE, ignored=ignored)
    return index, {"plates without images": sorted(plates - homes.keys())}


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    table = read_table(path)
    missing = [name for name in columns if name not in table]
    if missing:
        raise BuildError(f"{path}: the columns {missing} are missing; it has {', '.join(table)}")
    return table


def _mechanisms(path: Path) -> dict[tuple[str, float], str]:
    """(compound, micromolar) -> mechanism of action."""
    table = _read(path, ["compound", "concentration", "moa"])
    doses = to_numbers(table, "concentration", path, unit="", decimal=".")
    mechanisms: dict[tuple[str, float], str] = {}
    for line, compound, dose, moa in zip(table.index, table["compound"], doses, table["moa"], strict=True):
        if mechanisms.setdefault((compound, dose), moa) != moa:
            raise BuildError(f"{path}, line {line}: {compound} at {dose} is {moa!r}, and another in a line above")
    return mechanisms


def _homes(
    folders: Sequence[Path], plates: set[str], tables: set[Path]
) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Plate -> its folder; and (file, why) of what is in none of them."""
    homes: dict[str, Path] = {}
    ignored = []
    for folder in folders:
        files, links = find_files(folder)
        ignored += links
        for file in files:
            parent = folder / PurePosixPath(file).parent
            if parent.name in plates:
                if homes.setdefault(parent.name, parent) != parent:
                    raise BuildError(f"{parent}: plate {parent.name} is in {homes[parent.name]} too; give one of them")
            elif folder / file not in tables:
                ignored.append((str(folder / file), "not in a folder that is called as a plate"))
    if not homes:
        raise BuildError(
            f"{', '.join(map(str, folders))}: no folder is called as a plate of {IMAGES}, e.g. {min(plates)}; "
            "data/studies/bbbc021/README.md says what --source is"
        )
    return homes, ignored


def index_subset(folder: Path, leave_out: bool) -> tuple[Index, dict[str, Any]]:
    """The single-cell subset: arrays beside the study's table of wells.

    Args:
        folder: with `SUBSET` and `wells.csv`.
        leave_out: as `data.annotation.join`.

    Returns:
        As `data.annotation.join`.

    Raises:
        BuildError: naming the file, for one that is missing or not as expected.
    """
    wells = folder / "wells.csv"
    table = read_annotation(wells, WELLS_PER_PLATE)
    keep = {"plate": "plate", "well": "well", "compound_name": "compound", "dose": "dose"}
    missing = [name for name in keep if name not in table]
    if missing:
        raise BuildError(f"{wells}: the columns {missing} are missing; there are {', '.join(table)}")
    return join(
        index_arrays(folder / SUBSET, WELLS_PER_PLATE),
        table.filter(items=list(keep)).rename(columns=keep),
        str(wells),
        plate_pattern=None,
        leave_out=leave_out,
    )

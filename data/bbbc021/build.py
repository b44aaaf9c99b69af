"""Write the single-cell crops of BBBC021 as a set."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from data.records import BuildError, Description, Example, well_name, write_set

VERSION = "1.0.0"
IMAGES, WELLS = "bbbc021_subset.npz", "wells.csv"

_COLUMNS = {
    "plate": str,
    "well": str,
    "site": int,
    "label": str,
    "source": str,
    "cell": int,
    "compound": str,
    "dose": str,
}
_ARRAYS = ("images", "channels", "moa", "plate", "well", "site", "cell")


def build_bbbc021(data_dir: str | Path, source: str | Path) -> Path:
    """Write the crops of a folder that holds `bbbc021_subset.npz` and `wells.csv`.

    Returns:
        The set's folder.

    Raises:
        BuildError: naming the file, what is wrong with it, and what is needed.
    """
    source = Path(source)
    for name in (IMAGES, WELLS):
        if not (source / name).is_file():
            raise BuildError(f"{source / name}: no such file; --source is a folder that holds {IMAGES} and {WELLS}")
    arrays = _read_arrays(source / IMAGES)
    wells = _read_wells(source / WELLS)
    images = arrays["images"]
    description = Description(
        name="bbbc021",
        version=VERSION,
        channel_names=tuple(str(name) for name in arrays["channels"]),
        pixel_size_um=None,  # the crops were rescaled on the way and their source does not say by how much
        bit_depth=12,
        image_shape=images.shape[1:],
        dtype=str(images.dtype),
        columns=_COLUMNS,
        num_examples=len(images),
        text="BBBC021 single cells: DMSO or a protein-synthesis inhibitor, three plates (12-bit values times 16).",
        simulated=False,
    )
    return write_set(description, _examples(arrays, wells), data_dir)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here, as np.load leaves a file open that turns out broken. Nothing from outside is unpickled.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [name for name in _ARRAYS if name not in file]
            if missing:
                raise BuildError(f"{path}: the arrays {missing} are missing; it holds {sorted(file)}")
            arrays = {name: file[name] for name in _ARRAYS}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        if isinstance(error, BuildError):
            raise
        raise BuildError(f"{path}: not a whole .npz file ({error}); copy it again") from None
    images = arrays["images"]
    if images.ndim != 4 or images.dtype != np.uint16 or images.shape[-1] != len(arrays["channels"]):
        raise BuildError(f"{path}: images are {images.shape} {images.dtype}, expected [N, H, W, C] uint16")
    lengths = {name: len(arrays[name]) for name in _ARRAYS if name != "channels"}
    if len(set(lengths.values())) > 1:
        raise BuildError(f"{path}: arrays of different lengths: {lengths}")
    return arrays


def _read_wells(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(plate, well) -> compound and dose; an empty dose is the vehicle's."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise BuildError(f"{path}: not a table of comma-separated values ({str(error).strip()})") from None
    needed = ("Plate", "Well", "Compound Name", "Dose")
    missing = [column for column in needed if column not in table]
    if missing:
        raise BuildError(f"{path}: the columns {missing} are missing; it has {list(table)}")
    wells = {}
    for plate, name, compound, dose in table[list(needed)].itertuples(index=False):
        well = well_name(name, path)
        if (plate, well) in wells:
            raise BuildError(f"{path}: plate {plate}, well {well} has two lines")
        wells[plate, well] = (compound, dose)
    return wells


def _examples(arrays: dict[str, np.ndarray], wells: dict[tuple[str, str], tuple[str, str]]) -> Iterator[Example]:
    for i, image in enumerate(arrays["images"]):
        plate, well = str(arrays["plate"][i]), well_name(str(arrays["well"][i]), IMAGES)
        if (plate, well) not in wells:
            raise BuildError(f"{WELLS} has no line for plate {plate}, well {well}")
        compound, dose = wells[plate, well]
        site, cell = int(arrays["site"][i]), int(arrays["cell"][i])
        yield (
            image,
            {
                "plate": plate,
                "well": well,
                "site": site,
                "label": str(arrays["moa"][i]),
                "source": f"{IMAGES}[{i}]",
                "cell": cell,
                "compound": compound,
                "dose": dose,
            },
        )

"""idr0035: MCF-7 cells under 113 compounds at eight doses; BBBC021 with its mechanisms of action."""

from pathlib import Path

import pandas as pd

from data.annotation import read_table, select, to_numbers
from data.studies.screen import Screen

CONTROL = "DMSO"
NOT_GIVEN = "not given"
_WELLS = 96
_COLUMNS = {
    "Plate": "plate",
    "Well": "well",
    "Characteristics [Organism]": "organism",
    "Characteristics [Cell Line]": "cell_line",
    "Replicate": "replicate",
    "Batch": "batch",
    "Compound Name": "compound_name",
    "Dose": "concentration_micromolar",
    "Compound SMILES": "smiles",
    "Compound MOA (from Ljosa et al, 2013)": "moa",
    "Control Type": "control_type",
}


def read_annotation(path: Path) -> pd.DataFrame:
    """`idr0035-screenA-annotation.csv`: a line for each of the 60 wells in use of 55 plates.

    Raises:
        BuildError: naming the file, and the line where there is one.
    """
    wells = select(read_table(path), path, _WELLS, _COLUMNS)
    wells["concentration_micromolar"] = to_numbers(
        wells, "concentration_micromolar", path, unit="micromolar", decimal="."
    )
    wells["mechanism"] = [
        CONTROL if control == "negative control" else moa or NOT_GIVEN
        for control, moa in zip(wells["control_type"], wells["moa"], strict=True)
    ]
    return wells


IDR0035 = Screen(
    name="idr0035",
    version="1.1.0",
    text="idr0035 (BBBC021: MCF-7 cells under 113 compounds; CC BY 4.0, AstraZeneca, Caie et al).",
    channels={"DAPI": ("w1",), "Tubulin": ("w2",), "Actin": ("w4",)},
    pixel_size_um=None,
    wells_per_plate=_WELLS,
    # The plate is the folder's: BBBC021's files are called after the week and a day.
    layout=None,
    pattern=(
        r"(?:.*/)?(?P<plate>Week\d+_\d{5})/"
        r"(?:[^/]+_)?(?P<well>[A-H]\d{2})_s(?P<site>\d)_(?P<channel>w[124])[0-9A-F-]{36}\.(?i:tif)"
    ),
    plate_pattern=r"(Week\d+_\d{5})",
    label="mechanism",
    negative_control=CONTROL,
    read_annotation=read_annotation,
)

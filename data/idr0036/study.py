"""idr0036: U2OS cells under 1,600 bioactive compounds, Cell Painting; BBBC022."""

from pathlib import Path

import pandas as pd

from data.annotation import read_table, select, to_numbers
from data.study import Study

CONTROL = "DMSO"
_WELLS = 384
_COLUMNS = {
    "Plate": "plate",
    "Well": "well",
    "Characteristics [Organism]": "organism",
    "Characteristics [Cell Line]": "cell_line",
    "Compound Broad Identifier": "compound_id",
    "Compound Broad Identifier Short": "compound_id_short",
    "Compound Name": "compound_name",
    "Compound Source": "compound_source",
    "Compound SMILES": "smiles",
    "PubChem InChIKey": "inchikey",
    "Dose": "concentration_micromolar",
    "Control Type": "control_type",
    "Control Comments": "control_comment",
}


def read_annotation(path: Path) -> pd.DataFrame:
    """`idr0036-screenA-library.txt.gz`: a line for each of the 384 wells of 20 plates.

    Raises:
        BuildError: naming the file, and the line where there is one.
    """
    wells = select(read_table(path), path, _WELLS, _COLUMNS)
    wells["concentration_micromolar"] = to_numbers(
        wells, "concentration_micromolar", path, unit="micromolar", decimal="."
    )
    return wells


IDR0036 = Study(
    name="idr0036",
    version="1.1.0",
    text="idr0036 (BBBC022: Cell Painting of U2OS cells under 1,600 compounds; CC0 1.0, Gustafsdottir et al).",
    # Names as in IDR's .screen files, which also say which of the microscope's numbers is which.
    channels={
        "Hoechst": ("w1",),
        "ERSyto": ("w2",),
        "ERSytoBleed": ("w3",),
        "Ph_golgi": ("w4",),
        "Mito": ("w5",),
    },
    pixel_size_um=None,
    wells_per_plate=_WELLS,
    # The plate is the folder's, of which there is one for each channel: every file is called IXMtest.
    layout=None,
    pattern=(
        r"(?:.*/)?(?:BBBC022_v1_images_)?(?P<plate>\d{5})[^/]*/"
        r"IXMtest_(?P<well>[A-P]\d{2})_s(?P<site>\d)_(?P<channel>w\d)[0-9A-F-]{36}\.(?i:tif)"
    ),
    plate_pattern=r"(\d{5})",
    label="compound_name",
    negative_control=CONTROL,
    read_annotation=read_annotation,
)

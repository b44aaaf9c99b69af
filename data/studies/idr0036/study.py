"""idr0036: U2OS cells under 1,600 bioactive compounds, Cell Painting; BBBC022."""

import sys
from pathlib import Path

import pandas as pd

from data.annotation import join_texts, read_table, select, to_numbers
from data.errors import BuildError
from data.studies.screen import Screen

CONTROL = "DMSO"
PROCESSED = "idr0036-screenA-processed.txt"  # phenotypes by compound; beside the library in the study's repository
_WELLS = 384
_COMPOUND = "Compound Broad Identifier"
_COLUMNS = {
    "Plate": "plate",
    "Well": "well",
    "Characteristics [Organism]": "organism",
    "Characteristics [Cell Line]": "cell_line",
    _COMPOUND: "compound_id",
    "Compound Broad Identifier Short": "compound_id_short",
    "Compound Name": "compound_name",
    "Compound Source": "compound_source",
    "Compound SMILES": "smiles",
    "PubChem InChIKey": "inchikey",
    "Dose": "concentration_micromolar",
    "Control Type": "control_type",
    "Control Comments": "control_comment",
}
_PHENOTYPES = {"Has Phenotype": "has_phenotype", "Phenotype Annotation Level": "phenotype_level"}


def read_annotation(path: Path) -> pd.DataFrame:
    """`idr0036-screenA-library.txt.gz`: a line for each of the 384 wells of 20 plates.

    It has no phenotypes. They are taken from `PROCESSED` beside it; without that file there are no such columns, and
    stderr says so. A table that has them itself is taken at its word.

    Raises:
        BuildError: naming the file, and the line where there is one.
    """
    table = read_table(path)
    wells = select(table, path, _WELLS, _COLUMNS)
    wells["concentration_micromolar"] = to_numbers(
        wells, "concentration_micromolar", path, unit="micromolar", decimal="."
    )
    phenotypes = table if _PHENOTYPES.keys() <= set(table) else _of_compounds(wells, path)
    if phenotypes is not None:
        for name, column in _PHENOTYPES.items():
            wells[column] = phenotypes[name]
        wells["phenotype"] = join_texts(phenotypes, r"Phenotype \d+")
    return wells


def _of_compounds(wells: pd.DataFrame, library: Path) -> pd.DataFrame | None:
    """What `PROCESSED` says of the compound in each line of the library; "" of one that is not in it."""
    path = library.with_name(PROCESSED)
    if not path.is_file():
        print(
            f"{library}: no phenotypes, since {PROCESSED} is not beside it; copy that too to have them", file=sys.stderr
        )
        return None
    processed = read_table(path)
    missing = [name for name in (_COMPOUND, *_PHENOTYPES) if name not in processed]
    if missing:
        raise BuildError(f"{path}: the columns {missing} are missing; it has {', '.join(processed)}")
    by_compound = processed.set_index(_COMPOUND)
    for line, again in zip(processed.index, by_compound.index.duplicated(), strict=True):
        if again:
            raise BuildError(f"{path}, line {line}: this compound is in a line above, too")
    return by_compound.reindex(wells["compound_id"].tolist()).fillna("").set_index(wells.index)


IDR0036 = Screen(
    name="idr0036",
    version="1.2.0",
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

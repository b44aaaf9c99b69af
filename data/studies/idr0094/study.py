"""idr0094: Caco-2 cells with SARS-CoV-2 under 5,632 compounds; what counts is who survives."""

from pathlib import Path

import pandas as pd

from data.annotation import read_table, select, to_numbers
from data.studies.screen import Screen

_WELLS = 96
_COLUMNS = {
    "Plate": "plate",
    "Well": "well",
    "Characteristics [Organism 1]": "organism",
    "Characteristics [Organism 2]": "second_organism",
    "Characteristics [Cell Line]": "cell_line",
    "Compound Name": "compound_name",
    "Compound SMILES": "smiles",
    "Compound PubChem CID": "pubchem_cid",
    "Compound InChIKey": "inchikey",
    "Compound Broad Identifier": "compound_id",
    "Control Type": "control_type",
    "Percentage Inhibition (DPC)": "inhibition_percent",
    "Hit Compound (over 75% activity)": "hit",
}
# Of screen A or of screen B only.
_OPTIONAL = {
    "Quality Control": "quality_control",
    "Phenotype Annotation Level": "phenotype_level",
    "Number of Cells (DPC)": "n_cells",
    "Cells - Number of Objects": "n_cells",
    "Compound Concentration (microMolar)": "concentration_micromolar",
}
_NUMBERS = ("inhibition_percent", "n_cells", "concentration_micromolar")
_RESPONSES = {"yes": "hit", "no": "no hit"}


def read_annotation(path: Path) -> pd.DataFrame:
    """`idr0094-screenA-annotation.csv` (96 wells of 64 plates) or `idr0094-screenB-annotation.csv`.

    Raises:
        BuildError: naming the file, and the line where there is one.
    """
    table = read_table(path)
    wells = select(table, path, _WELLS, _COLUMNS | {name: new for name, new in _OPTIONAL.items() if name in table})
    for name in _NUMBERS:
        if name in wells:
            wells[name] = to_numbers(wells, name, path, unit="", decimal=",")
    wells["response"] = [
        f"{control} control" if control else _RESPONSES.get(hit, "not given")
        for control, hit in zip(wells["control_type"], wells["hit"], strict=True)
    ]
    return wells


IDR0094 = Screen(
    name="idr0094",
    version="1.2.0",
    text="idr0094 (Caco-2 cells with SARS-CoV-2 under a library of known drugs; CC0 1.0, Ellinger et al).",
    channels={"cell body": ()},
    pixel_size_um=None,
    wells_per_plate=_WELLS,
    layout="operetta",
    pattern=None,
    plate_pattern=r"((?:ESP|GUF)\d{7})\[\d+\]",
    label="response",
    negative_control="negative control",  # screen B only; README.md says what is wrong with screen A's controls
    read_annotation=read_annotation,
)

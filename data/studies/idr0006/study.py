"""idr0006: HeLa cells with one tagged protein each, and where in the nucleus it was found."""

from pathlib import Path

import pandas as pd

from data.annotation import join_texts, read_table, select
from data.studies.screen import Screen

NOT_IN_FOCI = "no nuclear foci"
NOT_ANNOTATED = "not annotated"
_WELLS = 96
_COLUMNS = {
    "Plate": "plate",
    "Well": "well",
    "Characteristics [Organism]": "organism",
    "Characteristics [Cell Line]": "cell_line",
    "ORF Identifier": "orf_id",
    "hORFeome V5.1 Clone Description": "orf_description",
    "Gene Identifier": "gene_id",
    "Gene Symbol": "gene_symbol",
    "Control Type": "control_type",
    "Control Comments": "control_comment",
    "Comments": "comment",
    "Scored As Nuclear Foci At Initial Stage": "nuclear_foci",
    "Subcellular Localization Based On Secondary Screening": "nuclear_foci_confirmed",
    "Scored Subcellular Localization By Secondary Screening": "marker",
    "Has Phenotype": "has_phenotype",
    "Phenotype Annotation Level": "phenotype_level",
}


def read_annotation(path: Path) -> pd.DataFrame:
    """`idr0006-screenA-annotation.csv`: a line for each of the 96 wells of 169 plates.

    Raises:
        BuildError: naming the file, and the line where there is one.
    """
    table = read_table(path)
    wells = select(table, path, _WELLS, _COLUMNS)
    # Eight columns, one for each place, so that a protein can be in several; none of the 325 found is.
    wells["phenotype"] = join_texts(table, r"Phenotype \d+")
    wells["phenotype_term"] = join_texts(table, r"Phenotype \d+ Term Name")
    wells["phenotype_accession"] = join_texts(table, r"Phenotype \d+ Term Accession")
    wells["localization"] = [
        marker or (NOT_IN_FOCI if foci == "no" else NOT_ANNOTATED)
        for marker, foci in zip(wells["marker"], wells["nuclear_foci"], strict=True)
    ]
    return wells


IDR0006 = Screen(
    name="idr0006",
    version="1.1.0",
    text="idr0006 (15,483 tagged proteins in HeLa cells, localized to nuclear bodies; CC BY-NC-SA 3.0, Fong et al).",
    channels={"DAPI": (), "TRITC": ()},
    pixel_size_um=None,
    wells_per_plate=_WELLS,
    # The plate is the folder's: the files in "plate 11021_Plate_147" are called after another plate, 31033.
    layout=None,
    pattern=(
        r"(?:.*/)?plate (?P<plate>\d{5})_Plate_\d+/TimePoint_1/"
        r"[^/]+_(?P<well>[A-H]\d{2})_s(?P<site>\d+)_(?P<channel>w\d)\.(?i:tif)"
    ),
    plate_pattern=r"plate (\d{5})_Plate_\d+",
    label="localization",
    negative_control="",
    read_annotation=read_annotation,
)

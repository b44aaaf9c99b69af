"""idr0093: human cells, one gene silenced in each well; DNA, nascent RNA, PCNA and protein."""

from pathlib import Path

import pandas as pd

from data.annotation import join_texts, read_table, select, to_numbers
from data.studies.screen import Screen

CONTROL = "scrambled"  # label of the negative controls; the simulated plates have the same
NO_GENE = "no gene symbol"  # label of a well that the annotation lists without a gene and without a control type
_WELLS = 384
_NEEDED = {"Plate": "plate", "Well": "well", "Gene Symbol": "gene_symbol"}
# What IDR's bulkmap-config.yml lists for this table; the table itself was not at hand.
_OPTIONAL = {
    "Characteristics [Organism]": "organism",
    "Characteristics [Cell Line]": "cell_line",
    "Comment [Cell Line]": "cell_line_comment",
    "Gene Identifier": "gene_id",
    "HGNC Gene Symbol": "hgnc_gene_symbol",
    "Control Type": "control_type",
    "Comment [Control Type Comments]": "control_comment",
    "Comment [siRNA Pool]": "sirna_comment",
    "Quality Control": "quality_control",
    "Has Phenotype": "has_phenotype",
    "Phenotype": "phenotype",
    "Phenotype Term Name": "phenotype_term",
    "Phenotype Term Accession": "phenotype_accession",
    "n_cells": "n_cells",
}


def read_annotation(path: Path) -> pd.DataFrame:
    """`idr0093-screenA-annotation.csv.gz`, or the study's `screenA-library.csv`.

    Raises:
        BuildError: naming the file, and the line where there is one.
    """
    table = read_table(path)
    columns = _NEEDED | {name: new for name, new in _OPTIONAL.items() if name in table}
    wells = select(table, path, _WELLS, columns)
    if "n_cells" in wells:
        wells["n_cells"] = to_numbers(wells, "n_cells", path, unit="", decimal=".")
    wells["sirna_id"] = join_texts(table, r"siRNA Pool Identifier \d+")
    wells["treatment"] = [
        _treatment(*texts)
        for texts in zip(
            wells["gene_symbol"],
            join_texts(table, "Control Type"),
            join_texts(table, r"Comment \[siRNA Pool\]"),
            strict=True,
        )
    ]
    return wells


def _treatment(gene: str, control_type: str, comment: str) -> str:
    # The authors wrote "Scrambled" for the gene; IDR's script (scripts/process_annotations.py of the study's
    # repository) moves it to the front of the siRNA pool's comment.
    if "negative" in control_type.lower() or gene.lower() == CONTROL or comment.lower().startswith(CONTROL):
        return CONTROL
    return control_type or gene or NO_GENE


IDR0093 = Screen(
    name="idr0093",
    version="2.1.0",
    text="idr0093 (genome-wide siRNA screen of cell size and RNA production; CC BY 4.0, Mueller et al).",
    # In the order of IDR's rendering_settings.yml; the microscope's file names end in C01 to C04.
    channels={
        "DNA": ("C01", "DAPI (DNA)", "DAPI"),
        "nascent RNA": ("C02", "EU-Alexa488 (Nascent RNA)", "EU"),
        "PCNA": ("C03", "Alexa568 (PCNA)"),
        "protein": ("C04", "Alexa647 (Succinimidyl ester", "Alexa647 (Succinimidyl ester)", "SE"),
    },
    pixel_size_um=0.325,  # camera pixels of 6.5 um under the 20x objective that the study file names
    wells_per_plate=_WELLS,
    layout="cellvoyager",
    pattern=None,
    plate_pattern=r"(\d{3})",
    label="treatment",
    negative_control=CONTROL,
    read_annotation=read_annotation,
)

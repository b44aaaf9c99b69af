"""Stand-ins with the real tables' columns, and the real tables counted with csv and gzip."""

import csv
import gzip
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from bie_jax.input.image_set import open_image_set
from data.annotation import join
from data.build import main
from data.errors import BuildError
from data.fields.crops import Whole
from data.fields.field_set import build_fields
from data.fields.index import Field, Index
from data.fields.maker import FieldMaker
from data.fields.planes import FilePlane
from data.sources.layouts import index_layout, index_pattern
from data.studies.idr0006.study import IDR0006
from data.studies.idr0035.study import IDR0035
from data.studies.idr0036.study import IDR0036
from data.studies.idr0093.study import IDR0093
from data.studies.idr0094.study import IDR0094
from data.wells import PLATE_FORMATS

pytestmark = pytest.mark.slow

IDR = Path(__file__).resolve().parents[5] / "shared" / "data" / "idr_metadata"
needs_real_tables = pytest.mark.skipif(not IDR.is_dir(), reason="../shared/data/idr_metadata is not here")

TABLES = {
    "idr0006": "idr0006/screenA/idr0006-screenA-annotation.csv.gz",
    "idr0035": "idr0035/screenA/idr0035-screenA-annotation.csv",
    "idr0036": "idr0036/screenA/idr0036-screenA-library.txt.gz",
    "idr0094": "idr0094/screenA/idr0094-screenA-annotation.csv.gz",
}
SCREENS = {screen.name: screen for screen in (IDR0006, IDR0035, IDR0036, IDR0093, IDR0094)}
GUID = "EB868A72-19FC-46BB-BDFA-66B8966A817C"

# In the form of IDR's tables, with wells as they write them. Columns that nothing is read from are left out.
STAND_INS = {
    "idr0006": [
        {
            "Plate": "11001", "Well": "A1", "Characteristics [Organism]": "Homo sapiens",
            "Characteristics [Cell Line]": "HeLa", "ORF Identifier": "9994",
            "hORFeome V5.1 Clone Description": "zinc, finger", "Gene Identifier": "84240", "Gene Symbol": "ZCCHC9",
            "Control Type": "", "Control Comments": "", "Comments": "",
            "Scored As Nuclear Foci At Initial Stage": "yes",
            "Subcellular Localization Based On Secondary Screening": "yes",
            "Scored Subcellular Localization By Secondary Screening": "Nucleolus", "Has Phenotype": "yes",
            "Phenotype Annotation Level": "single replicate of reagent",
            "Phenotype 1": "", "Phenotype 1 Term Name": "", "Phenotype 1 Term Accession": "",
            "Phenotype 4": "in nucleolus", "Phenotype 4 Term Name": "nucleolus phenotype",
            "Phenotype 4 Term Accession": "CMPO_0000397",
        },
        {"Well": "A2", "Scored As Nuclear Foci At Initial Stage": "no", "Gene Symbol": "RPL27A"},
        {"Well": "H12", "Comments": "annotation not available"},
        {
            "Well": "A3", "Scored As Nuclear Foci At Initial Stage": "yes",
            "Scored Subcellular Localization By Secondary Screening": "PML", "Phenotype 1": "a", "Phenotype 4": "b",
        },
    ],
    "idr0035": [
        {
            "Plate": "Week1_22123", "Well": "B2", "Characteristics [Organism]": "Homo sapiens",
            "Characteristics [Cell Line]": "MCF-7", "Replicate": "1", "Batch": "Week1", "Compound Name": "DMSO",
            "Dose": "", "Compound SMILES": "", "Compound MOA (from Ljosa et al, 2013)": "",
            "Control Type": "negative control",
        },
        {
            "Well": "B3", "Compound Name": "cytochalasin B", "Dose": "0.03 micromolar",
            "Compound MOA (from Ljosa et al, 2013)": "Actin disruptors",
        },
        {"Well": "B4", "Compound Name": "cytochalasin B", "Dose": "30 micromolar"},
    ],
    "idr0036": [
        {
            "Plate": "20585", "Well": "A1", "Characteristics [Organism]": "Homo sapiens",
            "Characteristics [Cell Line]": "U2OS", "Compound Broad Identifier": "BRD-K98763141-001-06-8",
            "Compound Broad Identifier Short": "BRD-K98763141", "Compound Name": "NIFLUMIC ACID",
            "Compound Source": "Biomol", "Compound SMILES": "OC", "PubChem InChIKey": "JZF",
            "Dose": "8.86 micromolar", "Control Type": "",
            "Control Comments": "",
        },
        {"Well": "P24", "Compound Name": "DMSO", "Control Type": "negative control", "Control Comments": "mock"},
    ],
    "idr0093": [
        {"Plate": "001", "Well": "B02", "Gene Symbol": "POLA1", "Control Type": "", "n_cells": "100",
         "siRNA Pool Identifier 1": "s1", "siRNA Pool Identifier 2": "s2", "Comment [siRNA Pool]": "",
         "Quality Control": "pass"},
        {"Well": "B03", "Control Type": "negative control", "n_cells": ""},
        {"Well": "B04", "Comment [siRNA Pool]": "Scrambled, AllStars"},
        {"Well": "B05", "Gene Symbol": "KIF11", "Control Type": "positive control"},
        {"Well": "B06", "Gene Symbol": "KIF11"},
        {"Well": "B07"},
        {"Well": "B08", "Gene Symbol": "Scrambled"},
    ],
    "idr0094": [
        {
            "Plate": "ESP0025769", "Well": "A1", "Characteristics [Organism 1]": "Homo sapiens",
            "Characteristics [Organism 2]": "SARS-CoV-2", "Characteristics [Cell Line]": "Caco-2",
            "Compound Name": "L-690330", "Compound SMILES": "CC", "Compound PubChem CID": "132449",
            "Compound InChIKey": "JKO", "Compound Broad Identifier": "BRD-1,BRD-2", "Control Type": "",
            "Quality Control": "pass", "Percentage Inhibition (DPC)": "-8,07",
            "Hit Compound (over 75% activity)": "no", "Number of Cells (DPC)": "12811",
        },
        {"Well": "A2", "Hit Compound (over 75% activity)": "yes", "Percentage Inhibition (DPC)": ""},
        {"Well": "A12", "Control Type": "positive", "Hit Compound (over 75% activity)": "control"},
    ],
}  # fmt: skip


def _stand_in(tmp_path, name, drop=()):
    """Write a study's stand-in under the real file's name; a line lacks what is as in the one above it, or empty."""
    lines = STAND_INS[name]
    columns = [column for column in lines[0] if column not in drop]
    path = tmp_path / Path(TABLES.get(name, f"{name}-annotation.csv.gz")).name
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else open(path, "w", newline="") as file:
        writer = csv.DictWriter(
            file, columns, delimiter="\t" if ".txt" in path.name else ",", restval="", extrasaction="ignore"
        )
        writer.writeheader()
        for line in lines:
            writer.writerow({"Plate": lines[0]["Plate"]} | line)
    return path


def _real(name):
    """Lines of a real table, read by nothing of ours."""
    path = IDR / TABLES[name]
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if ".txt" in path.name else ","))


@pytest.mark.parametrize("name", SCREENS)
def test_what_a_study_promises(tmp_path, name):
    study = SCREENS[name]
    assert study.name == name
    assert name in study.text
    assert study.wells_per_plate in PLATE_FORMATS
    assert (study.layout is None) != (study.pattern is None)
    wells = study.read_annotation(_stand_in(tmp_path, name))
    assert list(wells)[:2] == ["plate", "well"]
    assert study.label in wells
    # Names that a set needs itself, and columns that a crop adds.
    assert not set(wells) & {"site", "label", "source", "image", "channel_names", "z", "t", "object"}
    assert all(re.fullmatch("[a-z][a-z0-9_]*", column) for column in wells)
    assert wells["well"].str.fullmatch(r"[A-P]\d\d").all()
    assert wells[study.label].ne("").all()
    if study.negative_control and name != "idr0094":
        assert study.negative_control in set(wells[study.label])


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("idr0006", ["Nucleolus", "no nuclear foci", "not annotated", "PML"]),
        ("idr0035", ["DMSO", "Actin disruptors", "not given"]),
        ("idr0036", ["NIFLUMIC ACID", "DMSO"]),
        (
            "idr0093",
            ["POLA1", "scrambled", "scrambled", "positive control", "KIF11", "no gene symbol", "scrambled"],
        ),
        ("idr0094", ["no hit", "hit", "positive control"]),
    ],
)
def test_labels(tmp_path, name, labels):
    wells = SCREENS[name].read_annotation(_stand_in(tmp_path, name))
    assert wells[SCREENS[name].label].tolist() == labels


def test_values_of_the_stand_ins(tmp_path):
    wells = SCREENS["idr0006"].read_annotation(_stand_in(tmp_path, "idr0006"))
    assert wells["phenotype"].tolist() == ["in nucleolus", "", "", "a; b"]
    assert wells["phenotype_term"][2] == "nucleolus phenotype"
    assert wells["orf_description"][2] == "zinc, finger"
    for name in ("idr0035", "idr0036"):
        doses = SCREENS[name].read_annotation(_stand_in(tmp_path, name))["concentration_micromolar"].tolist()
        assert [dose for dose in doses if not math.isnan(dose)] == ([0.03, 30.0] if name == "idr0035" else [8.86])
    wells = SCREENS["idr0093"].read_annotation(_stand_in(tmp_path, "idr0093"))
    assert wells["sirna_id"].tolist()[:2] == ["s1; s2", ""]
    assert wells["n_cells"][2] == 100.0
    assert math.isnan(wells["n_cells"][3])
    wells = SCREENS["idr0094"].read_annotation(_stand_in(tmp_path, "idr0094"))
    assert wells["inhibition_percent"][2] == -8.07
    assert math.isnan(wells["inhibition_percent"][3])


def test_idr0036_has_phenotypes_from_the_table_beside_its_library(tmp_path, capsys):
    library = _stand_in(tmp_path, "idr0036")
    read = SCREENS["idr0036"].read_annotation
    assert not [column for column in read(library) if "phenotype" in column]
    assert "no phenotypes, since idr0036-screenA-processed.txt is not beside it" in capsys.readouterr().err
    header = "Compound Broad Identifier\tHas Phenotype\tPhenotype Annotation Level\tPhenotype 1\tPhenotype 2\n"
    processed = tmp_path / "idr0036-screenA-processed.txt"
    processed.write_text(f"{header}BRD-9\t\t\t\t\nBRD-K98763141-001-06-8\tyes\treplicates\ta\tb\n")
    wells = read(library)
    assert wells["has_phenotype"].tolist() == ["yes", ""]  # DMSO is no compound
    assert wells["phenotype_level"].tolist() == ["replicates", ""]
    assert wells["phenotype"].tolist() == ["a; b", ""]
    processed.write_text(f"{header}BRD-9\t\t\t\t\nBRD-9\tyes\t\t\t\n")
    with pytest.raises(BuildError, match=r"processed\.txt, line 3: this compound is in a line above, too"):
        read(library)
    processed.write_text("Compound Broad Identifier\tx\nBRD-9\t1\n")
    with pytest.raises(BuildError, match=r"the columns \['Has Phenotype', 'Phenotype Annotation Level'\] are missing"):
        read(library)


def test_idr0093_without_what_is_optional(tmp_path):
    """The authors' library file has no control types and says "Scrambled" for the gene."""
    drop = [column for column in STAND_INS["idr0093"][0] if column not in ("Plate", "Well", "Gene Symbol")]
    wells = SCREENS["idr0093"].read_annotation(_stand_in(tmp_path, "idr0093", drop))
    assert list(wells) == ["plate", "well", "gene_symbol", "sirna_id", "treatment"]
    expected = ["POLA1", "no gene symbol", "no gene symbol", "KIF11", "KIF11", "no gene symbol", "scrambled"]
    assert wells["treatment"].tolist() == expected


def test_idr0094_screen_b(tmp_path):
    """Its table has doses and names the two kinds of controls; header as in IDR's repository."""
    path = tmp_path / "idr0094-screenB-annotation.csv"
    header = list(STAND_INS["idr0094"][0])
    header = [column for column in header if column not in ("Quality Control", "Number of Cells (DPC)")]
    header += ["Compound Concentration (microMolar)", "Cells - Number of Objects"]
    lines = [
        {"Plate": "ESP0025712", "Well": "B1", "Hit Compound (over 75% activity)": "yes",
         "Compound Concentration (microMolar)": "6,3", "Cells - Number of Objects": "4110"},
        {"Plate": "ESP0025712", "Well": "B12", "Control Type": "negative", "Compound Concentration (microMolar)": "0"},
    ]  # fmt: skip
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(lines)
    wells = SCREENS["idr0094"].read_annotation(path)
    assert wells["concentration_micromolar"].tolist() == [6.3, 0.0]
    assert wells["n_cells"][2] == 4110.0
    assert wells["response"].tolist() == ["hit", SCREENS["idr0094"].negative_control]


@pytest.mark.parametrize("name", SCREENS)
def test_a_table_of_another_study(tmp_path, name):
    other = "idr0035" if name != "idr0035" else "idr0094"
    path = _stand_in(tmp_path, other, drop=("Gene Symbol",))
    with pytest.raises(BuildError, match=r"the columns \[.* are missing; it has Plate, Well"):
        SCREENS[name].read_annotation(path)


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("idr0093", ("C01", "C02", "C03", "C04", "C05"), ["DNA", "nascent RNA", "PCNA", "protein", "C05"]),
        ("idr0093", ("DAPI (DNA)", "x"), ["DNA", "x"]),
        ("idr0093", ("1", "2"), ["1", "2"]),  # a number may count from 0 or from 1
        ("idr0035", ("w4", "w1", "w2"), ["DAPI", "Tubulin", "Actin"]),
        ("idr0035", ("Actin", "dapi", "Tubulin"), ["DAPI", "Tubulin", "Actin"]),
        ("idr0036", ("w1", "w2", "w3", "w4", "w5"), ["Hoechst", "ERSyto", "ERSytoBleed", "Ph_golgi", "Mito"]),
        ("idr0006", ("w1", "w2"), ["w1", "w2"]),
        ("idr0094", ("ch1",), ["cell body"]),
        ("idr0094", ("ch1", "ch2"), ["ch1", "ch2"]),
        ("idr0093", ("C01", "DAPI"), ["C01", "DAPI"]),  # both would be DNA
    ],
)
def test_channels(name, found, expected):
    named = SCREENS[name].name_channels(found)
    assert sorted(named) == sorted(found)
    assert list(named.values()) == expected


@needs_real_tables
@pytest.mark.parametrize(
    ("name", "num_wells", "num_plates"),
    [("idr0006", 16224, 169), ("idr0035", 3300, 55), ("idr0036", 7680, 20), ("idr0094", 6144, 64)],
)
def test_real_tables_whole(name, num_wells, num_plates):
    lines = _real(name)
    wells = SCREENS[name].read_annotation(IDR / TABLES[name])
    assert len(wells) == len(lines) == num_wells
    assert wells["plate"].nunique() == len({line["Plate"] for line in lines}) == num_plates
    assert wells["plate"].tolist() == [line["Plate"] for line in lines]
    assert wells["well"].tolist() == [f"{line['Well'][0]}{int(line['Well'][1:]):02d}" for line in lines]
    assert not wells.duplicated(["plate", "well"]).any()
    assert wells[SCREENS[name].label].ne("").all()


@needs_real_tables
@pytest.mark.parametrize("name", TABLES)
def test_nothing_of_interest_is_left_in_a_real_table(name):
    """Genes, reagents, controls, phenotypes, quality and organisms become columns, with the values they have."""
    lines = _real(name)
    wells = SCREENS[name].read_annotation(IDR / TABLES[name])
    wanted = [
        header
        for header in lines[0]
        if re.search("gene symbol|compound name|control|phenotype|quality|organism|cell line", header.lower())
        and not re.match(r"Phenotype \d", header)
    ]
    assert len(wanted) >= 3
    there = [wells[column].tolist() for column in wells]
    for header in wanted:
        assert [line[header] for line in lines] in there, header


@needs_real_tables
def test_real_phenotypes_of_idr0036():
    wells = SCREENS["idr0036"].read_annotation(IDR / TABLES["idr0036"])
    with open(IDR / "idr0036/screenA/idr0036-screenA-processed.txt", newline="") as file:
        compounds = {line["Compound Broad Identifier"]: line for line in csv.DictReader(file, delimiter="\t")}
    assert len(compounds) == 649
    for compound, has, phenotype in zip(wells["compound_id"], wells["has_phenotype"], wells["phenotype"], strict=True):
        line = compounds.get(compound, {"Has Phenotype": "", "Phenotype 1": "", "Phenotype 2": ""})
        assert has == line["Has Phenotype"]
        assert phenotype == "; ".join(text for text in (line["Phenotype 1"], line["Phenotype 2"]) if text)
    counts = wells.drop_duplicates("compound_id")["phenotype"].value_counts()
    response = "cellular response to chemical stimulus"
    assert counts[[response, f"{response}; decreased cell numbers"]].tolist() == [66, 14]


# The set's channels in order, and what tells each one's files apart.
CHANNELS = {
    "idr0006": {"w1": "_w1.", "w2": "_w2."},
    "idr0035": {"DAPI": f"_w1{GUID}", "Tubulin": f"_w2{GUID}", "Actin": f"_w4{GUID}"},
    "idr0036": {"Hoechst": "-Hoechst/", "ERSyto": "-ERSyto/", "Mito": "-Mito/"},
    "idr0093": {"DNA": "C01.", "nascent RNA": "C02.", "PCNA": "C03.", "protein": "C04."},
    "idr0094": {"cell body": "ch1"},
}
# Images of two or three wells as each study names them, with plate and well.
FILES = {
    "idr0006": [
        (f"11001-11089/plate 11001_Plate_136/TimePoint_1/plate 31033_{well}_s{site}_{channel}.TIF", "11001", well)
        for well in ("A01", "B03") for site in (1, 2) for channel in ("w1", "w2")
    ],
    "idr0035": [
        (f"Week1_22123/Week1_150607_{well}_s1_{channel}{GUID}.tif", "Week1_22123", well)
        for well in ("B02", "B03", "G11") for channel in ("w1", "w2", "w4")
    ],
    "idr0036": [
        (f"{plate}-{stain}/IXMtest_{well}_s1_{channel}{GUID}.tif", plate, well)
        for plate in ("20585", "20586") for well in ("A01", "P24")
        for stain, channel in (("ERSyto", "w2"), ("Hoechst", "w1"), ("Mito", "w5"))
    ],
    "idr0093": [
        (f"001/001_{well}_T0001F00{site}L01A01Z01C0{channel}.tif", "001", well)
        for well in ("B02", "B04") for site in (1, 2) for channel in (1, 2, 3, 4)
    ],
    "idr0094": [
        (f"SARS-CoV2[2454]/ESP0025769[6377]/r{row:02d}c{column:02d}f01p01-ch1sk1fk1fl1.tiff", "ESP0025769", well)
        for row, column, well in ((1, 1, "A01"), (5, 12, "E12"))
    ],
}  # fmt: skip


@needs_real_tables
@pytest.mark.parametrize("name", SCREENS)
def test_a_study_by_the_command(tmp_path, capsys, name):
    """Tiny images under the names of the study and its real table; idr0093's is a stand-in. Half of the wells first."""
    study = SCREENS[name]
    for number, (file, _, _) in enumerate(FILES[name]):
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / file, np.full((8, 9), 300 + number, np.uint16))
    table = IDR / TABLES[name] if name in TABLES else _stand_in(tmp_path, name)
    arguments = [name, f"--source={tmp_path / 'images'}", f"--annotation={table}", "--workers=1"]
    plate, well = FILES[name][0][1:]
    main([*arguments, f"--data-dir={tmp_path / 'part'}", f"--plates={plate}", f"--wells={well}"])
    part = open_image_set(name, str(tmp_path / "part")).metadata
    assert part[["plate", "well"]].drop_duplicates().to_numpy().tolist() == [[plate, well]]
    capsys.readouterr()

    main([*arguments, f"--data-dir={tmp_path / 'whole'}"])
    said = capsys.readouterr().out
    built = open_image_set(name, str(tmp_path / "whole"))
    pairs = {(plate, well) for _, plate, well in FILES[name]}
    assert set(built.metadata[["plate", "well"]].itertuples(index=False, name=None)) == pairs
    assert len(built) * len(built.channel_names) == len(FILES[name])
    assert list(built.channel_names) == list(CHANNELS[name])
    wells = study.read_annotation(table)
    assert f"annotated wells with images: {len(pairs)}" in said
    assert "wells without annotation: 0" in said
    assert f"annotated wells without images: {len(wells) - len(pairs)}, e.g. " in said
    assert f"{len(pairs)} wells" in said
    size = sum((tmp_path / "images" / file).stat().st_size for file, _, _ in FILES[name])
    assert f"  {size:,} bytes read; " in said
    expected = wells.set_index(["plate", "well"])
    for row, line in built.metadata.iterrows():
        # The pixels say which file they are from, and the file which well and channel.
        for channel, value in zip(built.channel_names, built[row][0, 0].tolist(), strict=True):
            file, *place = FILES[name][value - 300]
            assert place == [line["plate"], line["well"]]
            assert CHANNELS[name][channel] in file
        of_well = expected.loc[line["plate"], line["well"]]
        assert line["label"] == of_well[study.label]
        for column in set(expected) - {study.label}:
            assert str(line[column]) == str(of_well[column])  # NaN differs from itself


@needs_real_tables
def test_real_idr0006():
    lines = _real("idr0006")
    wells = SCREENS["idr0006"].read_annotation(IDR / TABLES["idr0006"])
    assert wells["gene_symbol"].tolist() == [line["Gene Symbol"] for line in lines]
    markers = Counter(line["Scored Subcellular Localization By Secondary Screening"] for line in lines)
    labels = Counter(wells["localization"])
    for marker in markers.keys() - {""}:
        assert labels[marker] == markers[marker]
    assert labels["Nucleolus"] == 148
    assert labels["no nuclear foci"] == sum(line["Scored As Nuclear Foci At Initial Stage"] == "no" for line in lines)
    assert labels["not annotated"] == sum(line["Comments"] == "annotation not available" for line in lines) == 677
    for wanted, line in zip(wells["phenotype"], lines, strict=True):
        given = [line[f"Phenotype {i}"] for i in range(1, 9) if line[f"Phenotype {i}"]]
        assert wanted == "; ".join(given)
    assert wells["phenotype"].ne("").sum() == 325
    assert not any(line["Control Type"] for line in lines), "then the study has controls after all"


@needs_real_tables
def test_real_idr0035():
    lines = _real("idr0035")
    wells = SCREENS["idr0035"].read_annotation(IDR / TABLES["idr0035"])
    assert (
        (wells["mechanism"] == "DMSO").sum() == sum(line["Control Type"] == "negative control" for line in lines) == 330
    )
    mechanisms = Counter(line["Compound MOA (from Ljosa et al, 2013)"] for line in lines)
    assert mechanisms.pop("") == 330 + (wells["mechanism"] == "not given").sum()
    assert {name: (wells["mechanism"] == name).sum() for name in mechanisms} == mechanisms
    assert len(mechanisms) == 12
    assert wells["compound_name"].nunique() == 113
    doses = [float(line["Dose"].split()[0]) for line in lines if line["Dose"]]
    assert wells["concentration_micromolar"].dropna().tolist() == doses


@needs_real_tables
def test_real_idr0036():
    lines = _real("idr0036")
    wells = SCREENS["idr0036"].read_annotation(IDR / TABLES["idr0036"])
    controls = wells["control_type"] == "negative control"
    assert controls.sum() == sum(line["Control Comments"] == "mock" for line in lines) == 1280
    assert set(wells.loc[controls, "compound_name"]) == {SCREENS["idr0036"].negative_control}
    assert not (wells.loc[~controls, "compound_name"] == "DMSO").any()
    assert wells["concentration_micromolar"].isna().equals(controls)
    compounds = {line["Compound Broad Identifier"] for line in lines} - {""}
    assert set(wells.loc[~controls, "compound_id"]) == compounds
    assert len(compounds) == 1600
    assert (wells[~controls].groupby("compound_id")["plate"].nunique() == 4).all()
    assert (wells[~controls].groupby("compound_id")["well"].nunique() == 1).all()


@needs_real_tables
def test_real_idr0094():
    lines = _real("idr0094")
    wells = SCREENS["idr0094"].read_annotation(IDR / TABLES["idr0094"])
    hits = Counter(line["Hit Compound (over 75% activity)"] for line in lines)
    assert Counter(wells["response"]) == {
        "hit": hits["yes"], "no hit": hits["no"], "positive control": hits["control"]
    }  # fmt: skip
    given = [line["Percentage Inhibition (DPC)"] for line in lines]
    assert wells["inhibition_percent"].isna().sum() == given.count("") == 8
    assert wells["inhibition_percent"].dropna().tolist() == [float(text.replace(",", ".")) for text in given if text]
    assert set(wells["quality_control"]) == {"pass"}
    # What the README warns of: one name for two kinds of controls.
    controls = wells[wells["control_type"] == "positive"]
    medians = controls.groupby("well")["inhibition_percent"].median()
    assert list(medians.index) == [f"{row}12" for row in "ABCDEFGH"]
    assert medians[:4].abs().max() < 1
    assert medians[4:].min() > 95


@needs_real_tables
@pytest.mark.parametrize(
    ("name", "place"), [("idr0006", -3), ("idr0036", None), ("idr0093", -2), ("idr0094", -1), ("idr0035", None)]
)
def test_plate_names_of_real_folders(name, place):
    """Every line of plates.tsv: the plate is found in its folder's name, or is the folder's name."""
    lines = (IDR / name / "screenA" / f"{name}-screenA-plates.tsv").read_text().splitlines()
    assert len(lines) in (169, 20, 83, 64, 55)
    for line in lines:
        plate, path = sorted(line.split("\t"), key=lambda text: "/" in text)
        folder = Path(path).stem if place is None else path.split("/")[place]
        found = re.fullmatch(SCREENS[name].plate_pattern, folder)
        assert found is not None, folder
        assert found[1] == plate


@needs_real_tables
@pytest.mark.parametrize(("name", "screen"), [("idr0035", "Week4_27801"), ("idr0036", "20585")])
def test_patterns_find_real_files_and_their_channels(name, screen):
    """IDR's .screen file lists every image of a plate under the stain's name."""
    text = (IDR / name / "screens" / f"{screen}.screen").read_text()
    stains = re.search("ChannelNames = (.*)", text)[1].split(",")
    fields = re.findall(r"Field_(\d+) = (.*)<(.*)>(.*)", text)
    assert len(fields) in (240, 3456)
    study = SCREENS[name]
    for number, before, varying, after in fields:
        for stain, part in zip(stains, varying.split(","), strict=True):
            match = re.fullmatch(study.pattern, before.removeprefix("/") + part + after)
            assert match is not None, before + part + after
            assert match["plate"] == screen
            assert int(match["site"]) == int(number) + 1
            assert study.name_channels((match["channel"], "other"))[match["channel"]] == stain


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        (
            "idr0006",  # the one file that IDR's table of downloads names
            "11001-11089/plate 11001_Plate_136/TimePoint_1/plate 11001_B02_s1_w1.TIF",
            ("11001", "B02", "1", "w1"),
        ),
        ("idr0006", "plate 11021_Plate_147/TimePoint_1/plate 31033_H12_s16_w2.TIF", ("11021", "H12", "16", "w2")),
        ("idr0006", "plate 11001_Plate_136/TimePoint_1/plate 11001_B02_s1_w1_thumb.TIF", None),
        (
            "idr0035",
            "Week1_22123/Week1_150607_B02_s4_w1EB868A72-19FC-46BB-BDFA-66B8966A817C.tif",
            ("Week1_22123", "B02", "4", "w1"),
        ),
        (
            "idr0036",
            "BBBC022_v1_images_20585w1/IXMtest_A01_s1_w164FBEEF7-F77C-4892-86F5-72D0160D4FB2.tif",
            ("20585", "A01", "1", "w1"),
        ),
    ],
)
def test_patterns(name, file, expected):
    match = re.fullmatch(SCREENS[name].pattern, file)
    assert (match and match.group("plate", "well", "site", "channel")) == expected


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        (
            "idr0006",
            [f"11001-11089/plate 11001_Plate_136/TimePoint_1/plate 31033_{well}_s2_{channel}.TIF"
             for well in ("A01", "A02") for channel in ("w1", "w2")],
            {("11001", "A01"): "Nucleolus", ("11001", "A02"): "no nuclear foci"},
        ),
        (
            "idr0035",
            [f"Week1_22123/Week1_150607_{well}_s1_{channel}{GUID}.tif"
             for well in ("B02", "B03") for channel in ("w1", "w2", "w4")],
            {("Week1_22123", "B02"): "DMSO", ("Week1_22123", "B03"): "Actin disruptors"},
        ),
        (
            "idr0036",
            [f"20585-{stain}/IXMtest_P24_s1_{channel}{GUID}.tif"
             for stain, channel in (("ERSyto", "w2"), ("Hoechst", "w1"), ("Mito", "w5"))],
            {("20585", "P24"): "DMSO"},
        ),
        (
            "idr0093",
            [f"001/001_{well}_T0001F00{site}L01A01Z01C0{channel}.tif"
             for well in ("B02", "B04") for site in (1, 2) for channel in (1, 2, 3, 4)],
            {("001", "B02"): "POLA1", ("001", "B04"): "scrambled"},
        ),
    ],
)  # fmt: skip
def test_a_study_from_files_to_a_set(tmp_path, name, files, expected):
    study = SCREENS[name]
    for number, file in enumerate(files):
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / file, np.full((8, 9), number, np.uint16))
    if study.layout is not None:
        index = index_layout(tmp_path / "images", study.layout, study.wells_per_plate)
    else:
        index = index_pattern(tmp_path / "images", study.pattern, study.wells_per_plate)
    table = study.read_annotation(_stand_in(tmp_path, name))
    index, notes = join(index, table, name, plate_pattern=study.plate_pattern, leave_out=False)
    channels = study.name_channels(index.channels)
    maker = FieldMaker(tuple(channels), "max", "max", Whole(), study.label, None)
    build_fields(
        name, index, maker, tuple(channels.values()), tmp_path / "datasets",
        num_workers=1, skip_bad=None, text=study.text, version=study.version, notes=notes,
    )  # fmt: skip
    built = open_image_set(name, str(tmp_path / "datasets"))
    assert built.metadata.groupby(["plate", "well"])["label"].first().to_dict() == expected
    known = [channel for channel in study.channels if channel in channels.values()]
    assert list(built.channel_names) == (known or ["w1", "w2"])
    # Pixels say which file they are from.
    first = {channel: files.index(next(file for file in files if f"{channel}" in file)) for channel in channels}
    assert built[0][0, 0].tolist() == [first[channel] for channel in channels]


def test_a_study_from_folder_names_to_metadata(tmp_path):
    """The plate of an idr0006 folder finds its line; the name that the file has instead does not."""
    study = SCREENS["idr0006"]
    table = study.read_annotation(_stand_in(tmp_path, "idr0006"))

    def joined(plate):
        field = Field(plate, "A01", 1, {("w1", 0, 0): FilePlane(Path("a.tif"))})
        index = Index(("w1",), (field,), {}, None, ())
        return join(index, table, "t.csv", plate_pattern=study.plate_pattern, leave_out=False)[0].fields[0]

    assert joined("plate 11001_Plate_136").plate == "11001"
    assert joined("11001").metadata["gene_symbol"] == "ZCCHC9"
    with pytest.raises(BuildError, match="no plate of the images is in it; the images have 'plate 11001'"):
        joined("plate 11001")

import dataclasses
import gzip
import itertools
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.annotation import column_name, join, join_texts, read_annotation, read_table, select, to_numbers
from data.errors import BuildError
from data.fields.index import Field, Index
from data.fields.planes import FilePlane
from data.limits import GB, Limits, using

TABLE = "Plate,Well,Gene Symbol,Dose\n001,B2,POLA1,1\n001,b03,KIF11,\n002,B02,,3\n"


def _write(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _refused(message, call, *args, **kwargs):
    with pytest.raises(BuildError, match=message) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["csv", "tsv", "txt", "csv.gz", "CSV", "parquet", "crlf", "bom", "utf-16", "unpacked"])
def test_every_form_gives_the_same_table(tmp_path, form):
    text = TABLE.replace(",", "\t") if form in ("tsv", "txt") else TABLE
    if form == "parquet":
        path = tmp_path / "table.parquet"
        columns = {
            "Plate": ["001", "001", "002"],
            "Well": ["B2", "b03", "B02"],
            "Gene Symbol": ["POLA1", "KIF11", None],
        }
        pd.DataFrame(columns | {"Dose": pd.array([1, None, 3], dtype="Int64")}).to_parquet(path)
    elif form == "csv.gz":
        path = _write(tmp_path, gzip.compress(text.encode()), "table.csv.gz")
    elif form in ("csv", "tsv", "txt", "CSV"):
        path = _write(tmp_path, text, f"table.{form}")
    else:
        content = {
            "crlf": text.replace("\n", "\r\n").encode(),
            "bom": text.encode("utf-8-sig"),
            "utf-16": text.encode("utf-16"),
            "unpacked": text.encode(),
        }[form]
        path = _write(tmp_path, content, "table.csv.gz" if form == "unpacked" else "table.csv")
    table = read_table(path)
    assert list(table) == ["Plate", "Well", "Gene Symbol", "Dose"]
    assert table.to_numpy().tolist() == [
        ["001", "B2", "POLA1", "1"],
        ["001", "b03", "KIF11", ""],
        ["002", "B02", "", "3"],
    ]
    if form != "parquet":
        assert (table.index.name, list(table.index)) == ("line", [2, 3, 4])


def test_lines_are_those_of_the_file(tmp_path):
    """Quoted line breaks, which become blanks, and blank lines do not shift what a message says."""
    text = 'Plate,Well,Comment\n\n001,B2,"two\nlines, ""quoted"""\n,,\n001,B3, blank around \n'
    table = read_table(_write(tmp_path, text))
    assert list(table.index) == [3, 6]
    assert table["Comment"].tolist() == ['two lines, "quoted"', "blank around"]


def test_another_encoding_is_read_aloud(tmp_path, capsys):
    path = _write(tmp_path, "Plate,Well,Dose\n1,A1,5 µM\n".encode("latin-1"))
    assert read_table(path)["Dose"].tolist() == ["5 µM"]
    assert "table.csv: line 2 is not UTF-8 (byte 0xb5); the table is read as latin-1" in capsys.readouterr().err
    read_table(_write(tmp_path, "Plate,Well,Dose\n1,A1,5 µM\n"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "t.csv", "t.csv: the table is empty"),
        ("\n\n", "t.csv", "t.csv: the table is empty"),
        ("Plate,Well\n", "t.csv", "t.csv: the table is empty"),
        ("Plate,Well\n1,A1,x\n", "t.csv", "t.csv, line 2: 3 values, the header has 2 columns"),
        ('Plate,Well\n"1\n2",A1\n1\n', "t.csv", "t.csv, line 4: 1 values"),
        ("Plate;Well\n1;A1\n", "t.csv", "t.csv: has the one column 'Plate;Well'; it must be separated by ','"),
        ("Plate,Well\n1,A1\n", "t.tsv", "one column 'Plate,Well'"),
        ("Plate,Well,Well\n1,A1,A1\n", "t.csv", r"t.csv: there are several columns \['Well'\]"),
        ("Plate,Well,\n1,A1,x\n", "t.csv", "t.csv: column 3 has values and no name"),
        ('Plate,Well\n1,"A1\n', "t.csv", "t.csv, line 2: not a table"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "t.csv", "t.csv: is no text"),
        ("Plate,Well\n", "t.xlsx", r"t.xlsx: a table is .csv, .tsv or .txt \(tabs\)"),
        (gzip.compress(TABLE.encode())[:-9], "t.csv.gz", "t.csv.gz: not a whole gzip file"),
        (gzip.compress(TABLE.encode())[:10] + bytes(40), "t.csv.gz", "t.csv.gz: not a whole gzip file"),
        (b"PAR1 and no more", "t.parquet", "t.parquet: not a Parquet file"),
        (b"\xff\xfeP", "t.csv", "begins as UTF-16"),
    ],
    ids=itertools.count(),
)
def test_bad_tables(tmp_path, content, name, message):
    _refused(message, read_table, _write(tmp_path, content, name))


def test_a_table_that_is_not_there(tmp_path):
    _refused("gone.csv: no such file", read_table, tmp_path / "gone.csv")
    _refused("is a folder, a file is needed", read_table, tmp_path)


def test_a_table_may_have_one_column(tmp_path):
    assert read_table(_write(tmp_path, "path\na.tif\n"))["path"].tolist() == ["a.tif"]


def test_an_unnamed_column_without_values_is_left_out(tmp_path):
    assert list(read_table(_write(tmp_path, "Plate,Well,,\n1,A1,,\n"))) == ["Plate", "Well"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Gene Symbol", "gene_symbol"),
        ("Compound MOA (from Ljosa et al, 2013)", "compound_moa_from_ljosa_et_al_2013"),
        ("Dose [µM]", "dose_um"),
        ("n_cells", "n_cells"),
        ("Größe", "große".encode("ascii", "ignore").decode()),
    ],
)
def test_column_name(name, expected):
    assert column_name(name) == expected


def test_user_tables(tmp_path):
    wells = read_annotation(_write(tmp_path, TABLE.replace("Plate,Well", "PLATE,well")), 96)
    assert list(wells) == ["plate", "well", "gene_symbol", "dose"]
    assert wells["well"].tolist() == ["B02", "B03", "B02"]
    header = "Metadata_Plate,Metadata_Well,Metadata_Compound,Cells_AreaShape_Area"
    wells = read_annotation(_write(tmp_path, f"{header}\n1,AA1,taxol,3.5\n"), 1536)
    assert wells.to_dict("records") == [{"plate": "1", "well": "AA01", "compound": "taxol"}]
    wells = read_annotation(_write(tmp_path, "Plate,Well,Metadata_Compound\n1,A1,taxol\n"), 384)
    assert list(wells) == ["plate", "well", "metadata_compound"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("Plate", "Barcode"), "there is no column Plate; there are Barcode, Well, Gene Symbol, Dose"),
        (TABLE.replace("Well", "Position"), "there is no column Well"),
        (TABLE.replace("Dose", "gene symbol"), r"the columns \['Gene Symbol', 'gene symbol'\] would all be called"),
        (TABLE.replace("Dose", "%"), r"\['%'\] would all be called ''"),
        (TABLE.replace("002,", ","), "table.csv, line 4: the plate is empty"),
        (TABLE.replace("b03", "H13"), "table.csv, line 3: well 'H13': a plate of 96 wells has the rows A to H"),
        (TABLE.replace("b03", ""), "table.csv, line 3: well ''"),
    ],
)
def test_bad_user_tables(tmp_path, text, message):
    _refused(message, read_annotation, _write(tmp_path, text), 96)


def test_select_names_what_is_missing(tmp_path):
    path = _write(tmp_path, TABLE)
    columns = {"Plate": "plate", "Well": "well", "Gene": "gene", "Locus": "locus"}
    _refused(
        r"the columns \['Gene', 'Locus'\] are missing; it has Plate, Well", select, read_table(path), path, 96, columns
    )


def _numbers(*texts, unit="", decimal="."):
    table = pd.DataFrame({"x": texts}, index=pd.Index(range(2, 2 + len(texts)), name="line"))
    return to_numbers(table, "x", Path("t.csv"), unit=unit, decimal=decimal)


def test_numbers():
    assert _numbers("5.00 micromolar", "0.3 micromolar", unit="micromolar").tolist() == [5.0, 0.3]
    assert _numbers("33,33", "-8,07", "20", decimal=",").tolist() == [33.33, -8.07, 20.0]
    assert _numbers("1e-3", "+7").tolist() == [0.001, 7.0]
    assert math.isnan(_numbers("", "")[3])


@pytest.mark.parametrize(
    ("text", "unit", "decimal"),
    [
        ("5", "micromolar", "."),
        ("5 nanomolar", "micromolar", "."),
        ("micromolar", "micromolar", "."),
        ("1,5", "", "."),
        ("1.234,5", "", ","),
        ("n/a", "", "."),
        ("nan", "", "."),
    ],
)
def test_what_is_no_number(text, unit, decimal):
    _refused(rf"t.csv, line 3: x '{text}' is no number", _numbers, "", text, unit=unit, decimal=decimal)


def test_join_texts():
    table = pd.DataFrame({"P 1": ["a", ""], "P 2": ["b", ""], "P 10 Term": ["x", "y"]})
    assert join_texts(table, r"P \d+").tolist() == ["a; b", ""]
    assert join_texts(table, "Q").tolist() == ["", ""]


def _index(*places):
    """An index of fields, one for each (plate, well, site), without files."""
    fields = tuple(
        Field(plate, well, site, {("DNA", 0, 0): FilePlane(Path(f"{plate}_{well}_{site}.tif"))}, {"day": "1"})
        for plate, well, site in places
    )
    return Index(("DNA",), fields, {"day": str}, 0.5, (("thumbs.db", "no image"),))


def _table(tmp_path, text=TABLE):
    return read_annotation(_write(tmp_path, text), 96)


PLACES = [("001", "B02", 1), ("001", "B02", 2), ("001", "B03", 1)]


def test_join(tmp_path):
    index = _index(*PLACES)
    joined, notes = join(index, _table(tmp_path), "t.csv", plate_pattern=None, leave_out=False)
    assert [field.metadata["gene_symbol"] for field in joined.fields] == ["POLA1", "POLA1", "KIF11"]
    assert joined.fields[0].metadata == {"day": "1", "gene_symbol": "POLA1", "dose": "1"}
    assert joined.columns == {"day": str, "gene_symbol": str, "dose": str}
    assert [field.planes for field in joined.fields] == [field.planes for field in index.fields]
    assert (joined.channels, joined.pixel_size_um, joined.ignored) == (index.channels, 0.5, index.ignored)
    assert notes == {
        "annotation": "t.csv",
        "annotated wells with images": 2,
        "wells without annotation": [],
        "annotated wells without images": ["002 B02"],
    }


def test_joined_numbers_have_python_types():
    table = pd.DataFrame(
        {"plate": ["1"], "well": ["A01"], "dose": [np.nan], "replicate": np.array([2]), "name": ["x"]},
        index=pd.Index([2], name="line"),
    )
    joined, _ = join(_index(("1", "A01", 1)), table, "t.csv", plate_pattern=None, leave_out=False)
    assert joined.columns == {"day": str, "dose": float, "replicate": int, "name": str}
    metadata = joined.fields[0].metadata
    assert [type(metadata[name]) for name in joined.columns] == [str, float, int, str]
    assert math.isnan(metadata["dose"])


def test_wells_without_annotation(tmp_path):
    index = _index(*PLACES, ("001", "C01", 1), ("001", "C01", 2), ("003", "A01", 1))
    message = (
        r"t.csv: no line for 2 of 4 wells with images, first plate 001, well C01; the plates '003' are not in it "
        r"at all; --skip-bad=FILE.csv leaves them out"
    )
    _refused(message, join, index, _table(tmp_path), "t.csv", plate_pattern=None, leave_out=False)
    joined, notes = join(index, _table(tmp_path), "t.csv", plate_pattern=None, leave_out=True)
    assert [(field.plate, field.well, field.site) for field in joined.fields] == PLACES
    assert notes["wells without annotation"] == ["001 C01", "003 A01"]
    assert notes["annotated wells with images"] == 2
    assert joined.ignored == (
        ("thumbs.db", "no image"),
        ("plate 001, well C01", "no line in t.csv"),
        ("plate 003, well A01", "no line in t.csv"),
    )


def test_leaving_out_everything_is_refused(tmp_path):
    _refused(
        "t.csv: it has no line for any of the 1 wells with images",
        join, _index(("001", "A01", 1)), _table(tmp_path), "t.csv", plate_pattern=None, leave_out=True,
    )  # fmt: skip


@pytest.mark.parametrize("leave_out", [False, True])
def test_plate_names_are_not_guessed(tmp_path, leave_out):
    index = _index(("plate 001", "B02", 1), ("plate 002", "B02", 1))
    message = "no plate of the images is in it; the images have 'plate 001', 'plate 002', the table has '001', '002'"
    _refused(message, join, index, _table(tmp_path), "t.csv", plate_pattern=None, leave_out=leave_out)
    joined, _ = join(index, _table(tmp_path), "t.csv", plate_pattern=r"plate (\d+)", leave_out=leave_out)
    assert [field.plate for field in joined.fields] == ["001", "002"]


def test_renamed_plates_are_sorted_again(tmp_path):
    index = _index(("a_002", "B02", 1), ("b_001", "B02", 1))
    joined, _ = join(index, _table(tmp_path), "t.csv", plate_pattern=r"._(\d+)", leave_out=False)
    assert [field.plate for field in joined.fields] == ["001", "002"]


def test_two_folders_of_one_plate(tmp_path):
    index = _index(("plate 001", "B02", 1), ("plate 001 repeat", "B02", 1))
    message = "'plate 001' and 'plate 001 repeat' of the images are both plate 001, and both have the well B02, site 1"
    _refused(message, join, index, _table(tmp_path), "t.csv", plate_pattern=r"plate (\d+)(?: repeat)?", leave_out=False)


def test_a_well_with_two_lines(tmp_path):
    table = _table(tmp_path, TABLE + "001,B02,POLA1,2\n")
    message = "t.csv: plate 001, well B02: the lines 2 and 5 differ in dose; a well can have one"
    _refused(message, join, _index(*PLACES), table, "t.csv", plate_pattern=None, leave_out=True)


def test_a_line_may_stand_twice(tmp_path):
    table = _table(tmp_path, TABLE + "001,B02,POLA1,1\n")
    table["number"] = np.nan  # NaN differs from itself
    joined, _ = join(_index(*PLACES), table, "t.csv", plate_pattern=None, leave_out=False)
    assert len(joined.fields) == 3


def test_a_column_of_both(tmp_path):
    index = dataclasses.replace(_index(*PLACES), columns={"dose": str})
    message = r"t.csv: the columns \['dose'\] come from the images' source already"
    _refused(message, join, index, _table(tmp_path), "t.csv", plate_pattern=None, leave_out=False)


def test_a_small_gzip_file_that_becomes_a_large_table(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"Plate,Well\n" + b"P,B02\n" * 50_000))
    with using(Limits(1 << 20)):
        _refused(r"announces a text of 102 kB and more, 1 MB of memory from .*; at most 1 MB", read_table, path)
    with using(Limits(GB, math.inf)):
        assert len(read_table(path)) == 50_000


def test_a_table_that_is_too_wide(tmp_path):
    path = _write(tmp_path, ",".join(f"c{i}" for i in range(5001)) + "\n" + "1," * 5000 + "1\n")
    _refused("has 5001 columns, 5000 at most are read", read_table, path)


def test_a_parquet_file_of_one_value_many_times(tmp_path):
    path = tmp_path / "table.parquet"
    pd.DataFrame({"Plate": pd.Categorical(["P"] * 3_000_000)}).to_parquet(path)
    _refused(r"announces a table of 3000000 rows and 1 columns, 286 MB of memory from .* kB", read_table, path)


def test_a_parquet_file_of_lists(tmp_path):
    pd.DataFrame({"Plate": ["P"], "Well": [["B02", "B03"]]}).to_parquet(tmp_path / "table.parquet")
    _refused(r"the columns \['Well'\] hold lists or records", read_table, tmp_path / "table.parquet")


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz", "table.parquet"])
def test_a_pipe_is_no_table(tmp_path, name):
    os.mkfifo(tmp_path / name)
    _refused(f"{name}: is a pipe, a file is needed", read_table, tmp_path / name)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz", "table.parquet"])
def test_no_flipped_bit_is_more_than_one_line(tmp_path, name, capsys):
    path = _write(tmp_path, TABLE)
    if name == "table.parquet":
        pd.read_csv(path, dtype=str).to_parquet(tmp_path / name)
    elif name == "table.csv.gz":
        (tmp_path / name).write_bytes(gzip.compress(TABLE.encode()))
    content = (tmp_path / name).read_bytes()
    refused = 0
    for bit in np.random.default_rng(7).integers(8 * len(content), size=60):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        (tmp_path / name).write_bytes(flipped)
        try:
            read_annotation(tmp_path / name, 384)
        except BuildError:
            refused += 1
    assert refused > 5

"""Labels from table, array and folder to the built set: the source's own text, "" where there is none."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import tifffile

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BuildError
from data.fields.labels import label_texts

NAN = float("nan")


def _built(tmp_path, name, source, *arguments):
    data_dir = tmp_path / "sets"
    main([name, f"--source={source}", f"--data-dir={data_dir}", "--workers=1", *map(str, arguments)])
    read = open_image_set(name, data_dir)
    return read, json.loads((read.directory / "build.json").read_text())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, NAN, 3.0], ["1", "", "3"]),
        ([1.0, 2.0], ["1.0", "2.0"]),
        ([0.5, NAN, 1.0], ["0.5", "", "1.0"]),
        ([2.0**60, NAN], [str(2**60), ""]),
        ([7, 10**17 + 1], ["7", str(10**17 + 1)]),
        (["01", "", "1.50"], ["01", "", "1.50"]),
    ],
)
def test_label_texts(values, expected):
    assert label_texts(values) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([1, np.nan, 2, 2]), ["1", "", "2", "2"]),
        (np.array(["a", "nan", "NA", " "]), ["a", "", "", ""]),
        (np.array(["01", "1", "A\u00a0b", "A b"]), ["01", "1", "A b", "A b"]),
    ],
)
def test_labels_of_arrays(tmp_path, given, expected):
    plates = np.array(["Pl\u00e4", "Pla\u0308", "Pl\u00e4\u200b", "\u00a0Pl\u00e4"])
    np.savez(tmp_path / "a.npz", images=np.ones((4, 8, 8), np.uint8), label=given, plate=plates)
    read, notes = _built(tmp_path, "mine", tmp_path / "a.npz")
    assert read.metadata["label"].tolist() == expected
    assert read.metadata["plate"].unique().tolist() == ["Pl\u00e4"]
    assert len(notes["fields without a label"]) == expected.count("")


@pytest.fixture
def rows(tmp_path):
    """Four files, and a table's columns that name them."""
    for site in range(4):
        tifffile.imwrite(tmp_path / f"{site}.tif", np.full((8, 8), site, np.uint8))
    return {"path": [f"{i}.tif" for i in range(4)], "plate": ["p"] * 4, "well": ["B02"] * 4, "site": [*range(4)]}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0.50", "1.0", "2", "1e3"], ["0.50", "1.0", "2", "1e3"]),
        (["01", "NULL", "None", "none"], ["01", "", "", "none"]),
        (["Kontroll\u00e9", "Kontrolle\u0301", "\u200bKontroll\u00e9", "N/A"], ["Kontroll\u00e9"] * 3 + [""]),
        (["True", "true", "2020-01-02", "1234567890123456789"], ["True", "true", "2020-01-02", "1234567890123456789"]),
    ],
)
def test_labels_of_a_table_of_text(tmp_path, rows, cells, expected, capsys):
    pd.DataFrame(rows | {"label": cells}).to_csv(tmp_path / "t.csv", index=False)
    read, notes = _built(tmp_path, "mine", tmp_path / "t.csv")
    assert read.metadata["label"].tolist() == expected
    said = capsys.readouterr()
    if "none" in cells:
        assert "2 cells say that they have no value and count as empty, first line 3, column label: 'NULL'" in said.err
        assert "fields without a label: 2, e.g. plate p, well B02, site 1" in said.out
    if "true" in cells:
        assert notes["names that differ in letter case alone"] == [["label", "True", "true"]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pyarrow.array([2**53 + 1, None, 3, 4]), [str(2**53 + 1), "", "3", "4"]),
        (pyarrow.array([1.0, None, 3.0, float("nan")]), ["1", "", "3", ""]),
        (pyarrow.array([0.1, 1.0, 2.5, 3], pyarrow.float32()), ["0.1", "1.0", "2.5", "3.0"]),
        (pyarrow.array([True, False, None, True]), ["True", "False", "", "True"]),
        (pyarrow.array(["a", None, "a "]).take([0, 1, 2, 2]).dictionary_encode(), ["a", "", "a", "a"]),
    ],
)
def test_labels_of_parquet(tmp_path, rows, values, expected):
    pyarrow.parquet.write_table(pyarrow.table(rows | {"label": values}), tmp_path / "t.parquet")
    read, _ = _built(tmp_path, "mine", tmp_path / "t.parquet")
    assert read.metadata["label"].tolist() == expected


def test_bytes_are_no_text(tmp_path, rows):
    pyarrow.parquet.write_table(pyarrow.table(rows | {"label": [b"DMSO"] * 4}), tmp_path / "t.parquet")
    with pytest.raises(BuildError, match=r"t.parquet, column label: is of type binary"):
        _built(tmp_path, "mine", tmp_path / "t.parquet")


def test_a_folder_that_is_called_none_is_called_so(tmp_path):
    for folder in ("None", "NA"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "images" / folder / "1.tif", np.ones((8, 8), np.uint8))
    read, _ = _built(tmp_path, "mine", tmp_path / "images", "--layout=folder", "--label=folder")
    assert read.metadata["label"].tolist() == ["NA", "None"]


def test_plate_and_site_can_be_labels_and_another_label_is_said(tmp_path, rows):
    pd.DataFrame(rows | {"label": list("abcd")}).to_csv(tmp_path / "t.csv", index=False)
    read, notes = _built(tmp_path, "mine", tmp_path / "t.csv", "--label=site")
    assert read.metadata["label"].tolist() == ["0", "1", "2", "3"]
    assert ["the column label", "--label=site takes its place"] in notes["ignored"]


def test_names_are_compared_as_a_reader_sees_them(tmp_path, rows):
    """Plates in two spellings are one plate; a table finds the file, the annotation the plate, a flag both."""
    composed, decomposed = "Pl\u00e4tte", unicodedata.normalize("NFD", "Pl\u00e4tte")
    for site in (0, 1):
        (tmp_path / f"{site}.tif").rename(tmp_path / f"{decomposed} {site}.tif")
    rows["path"][:2] = [f"{composed}\u00a0{site}.tif" for site in (0, 1)]
    rows["plate"] = [composed, decomposed, f"{composed}\u00a0", composed]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "w.csv").write_text(f"Plate,Well,Drug\n\u200b{decomposed},B2,x\n")
    arguments = (f"--annotation={tmp_path / 'w.csv'}", "--label=drug", f"--plates={decomposed}", "--wells=b2")
    read, _ = _built(tmp_path, "mine", tmp_path / "t.csv", *arguments)
    assert read.metadata[["plate", "label"]].to_numpy().tolist() == [[composed, "x"]] * 4
    assert [int(read[row][0, 0, 0]) for row in range(4)] == [0, 1, 2, 3]
    (tmp_path / f"{composed} 0.tif").write_bytes(b"")
    main_arguments = ["other", f"--source={tmp_path / 't.csv'}", f"--data-dir={tmp_path / 'sets'}"]
    with pytest.raises(BuildError, match=r"t.csv, line 2: .* has 2 files that a reader would call"):
        main(main_arguments)


def test_labels_of_arrays_of_outlines(tmp_path):
    outlines = np.array([[[0, 0], [9, 0], [9, 9], [0, 9]]] * 3)
    np.savez(tmp_path / "a.npz", contours=outlines, label=np.array(["x", "NaN", "x\u00a0"]))
    read, _ = _built(tmp_path, "mine", tmp_path / "a.npz", "--kind=shapes", "--layout=contours", "--points=8")
    assert read.metadata["label"].tolist() == ["x", "", "x"]

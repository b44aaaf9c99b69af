import gzip
import pickle

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile

from data.errors import BadInputError, BuildError
from data.fields.index import PROJECTED, assemble
from data.sources.table import index_table

HEADER = "path,plate,well,site,channel,Compound Name,Dose,Batch"


def _image(path, value, shape=(6, 8), dtype=np.uint16):
    pixels = np.full(shape, value, dtype)
    pixels.flat[1] = 65535 if dtype == np.uint16 else value
    tifffile.imwrite(path, pixels)
    return pixels


@pytest.fixture
def two_sites(tmp_path):
    """(table, pixels by file name) of two sites in two channels, in an order that is not the index's."""
    pixels = {name: _image(tmp_path / name, value) for name, value in (("a.tif", 300), ("b.tif", 7), ("c.tif", 1))}
    (tmp_path / "deep").mkdir()
    pixels["deep/d.tif"] = _image(tmp_path / "deep" / "d.tif", 40000)
    table = tmp_path / "images.csv"
    table.write_text(
        f"{HEADER}\nb.tif,P2,b3,2,RNA,water,0,1\na.tif,P2,B03,2,DNA,water,0,1\n"
        f"c.tif,P1,A1,1,DNA,Taxol,0.3,2\n{tmp_path}/deep/d.tif,P1,A01,1,RNA,Taxol,0.3,2\n"
    )
    return table, pixels


def test_fields_channels_metadata_and_pixels(two_sites):
    table, pixels = two_sites
    index = index_table(table)
    assert index.channels == ("RNA", "DNA")  # as the table has them
    assert [str(field) for field in index.fields] == ["plate P1, well A01, site 1", "plate P2, well B03, site 2"]
    assert index.columns == {"compound_name": str, "dose": float, "batch": int}
    assert [field.metadata for field in index.fields] == [
        {"compound_name": "Taxol", "dose": 0.3, "batch": 2},
        {"compound_name": "water", "dose": 0.0, "batch": 1},
    ]
    assert (index.pixel_size_um, index.ignored) == (None, ())
    images = [next(assemble(field, ("DNA", "RNA"), 0, 0))[0] for field in pickle.loads(pickle.dumps(index.fields))]
    np.testing.assert_array_equal(images[0], np.stack([pixels["c.tif"], pixels["deep/d.tif"]], axis=-1))
    np.testing.assert_array_equal(images[1], np.stack([pixels["a.tif"], pixels["b.tif"]], axis=-1))
    assert images[1].dtype == np.uint16
    assert (images[1][0, 0, 0], images[1][0, 1, 0]) == (300, 65535)


def test_the_same_table_in_other_formats(two_sites, tmp_path):
    table, _ = two_sites
    expected = index_table(table)
    cells = pd.read_csv(table)
    cells.to_csv(tmp_path / "images.tsv", sep="\t", index=False)
    (tmp_path / "images.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    cells.to_parquet(tmp_path / "images.parquet")
    prefixed = {"plate": "Metadata_Plate", "well": "METADATA_WELL", "site": "metadata_Site", "Dose": "Metadata_Dose"}
    cells.rename(columns=prefixed).to_csv(tmp_path / "prefixed.csv", index=False)
    for name in ("images.tsv", "images.csv.gz", "images.parquet", "prefixed.csv"):
        assert index_table(tmp_path / name) == expected


def test_types_of_metadata(tmp_path):
    rows = [("0012", "12", "0.5", "", "1e-3"), ("0013", "-3", "2", "4", ".5")]
    lines = [f"{i}.tif,P,A01,{i},c,{','.join(row)}" for i, row in enumerate(rows)]
    (tmp_path / "t.csv").write_text("\n".join(["path,plate,well,site,channel,Barcode,N,Dose,Age,E", *lines]))
    index = index_table(tmp_path / "t.csv")
    assert index.columns == {"barcode": str, "n": int, "dose": float, "age": str, "e": float}
    assert index.fields[0].metadata == {"barcode": "0012", "n": 12, "dose": 0.5, "age": "", "e": 1e-3}
    assert index.fields[1].metadata == {"barcode": "0013", "n": -3, "dose": 2.0, "age": "4", "e": 0.5}


def test_z_and_t(tmp_path):
    lines = []
    for z in range(3):
        for t in range(2):
            _image(tmp_path / f"{z}{t}.tif", 100 * z + t)
            lines.append(f"{z}{t}.tif,P,A01,1,c,{z},{t}")
    (tmp_path / "t.csv").write_text("\n".join(["path,plate,well,site,channel,z,t", *lines]))
    (field,) = index_table(tmp_path / "t.csv").fields
    image, _ = next(assemble(field, ("c",), "max", 1))
    assert image[0, 0, 0] == 201
    kept = [kept for _, kept in assemble(field, ("c",), "each", "each")]
    assert kept == [{"z": z, "t": t} for t in range(2) for z in range(3)]
    assert PROJECTED not in {z for _, z, _ in field.planes}


def test_planes_that_siblings_have_are_listed(tmp_path):
    lines = ["a.tif,P,A01,1,c,0", "b.tif,P,A01,1,c,1", "d.tif,P,A01,1,d,0", "e.tif,P,A02,1,c,0", "f.tif,P,A02,1,c,1"]
    (tmp_path / "t.csv").write_text("\n".join(["path,plate,well,site,channel,z", *lines]))
    assert index_table(tmp_path / "t.csv").ignored == (
        ("plate P, well A01, site 1", "channel d: 1 planes lacking: z 1"),
        ("plate P, well A02, site 1", "channel d: no image"),
    )


def test_without_channels_pages_are_channels(tmp_path):
    pixels = np.arange(3 * 6 * 8, dtype=np.uint16).reshape(3, 6, 8) + 300
    for name in ("a.tif", "b.tif"):
        with tifffile.TiffWriter(tmp_path / name, byteorder=">") as writer:
            for page in pixels:
                writer.write(page, contiguous=False)
    _image(tmp_path / "c.tif", 5)
    (tmp_path / "t.csv").write_text("path,plate,well,site\na.tif,P,A01,1\nb.tif,P,A02,1\nc.tif,P,A03,1\n")
    index = index_table(tmp_path / "t.csv")
    assert index.channels == ("0", "1", "2")
    image, _ = next(assemble(index.fields[1], index.channels, 0, 0))
    np.testing.assert_array_equal(image, np.moveaxis(pixels, 0, -1))
    with pytest.raises(
        BadInputError, match=r"c.tif: holds 1 channel .*a.tif.* 3 channels .*\(plate P, well A03, site 1,"
    ):
        next(assemble(index.fields[2], index.channels, 0, 0))


def test_without_channels_colors_are_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 8, 3), np.uint16)
    pixels[0, 0] = (300, 65535, 256)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(pixels))
    # The first file is not readable; another says what to expect.
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "t.csv").write_text("path,plate,well,site\na.png,P,A01,1\nb.png,P,A02,1\n")
    index = index_table(tmp_path / "t.csv")
    assert index.channels == ("R", "G", "B")
    np.testing.assert_array_equal(next(assemble(index.fields[1], ("R", "G", "B"), 0, 0))[0], pixels)
    np.testing.assert_array_equal(next(assemble(index.fields[1], ("B", "R"), 0, 0))[0], pixels[..., [2, 0]])
    with pytest.raises(BadInputError, match=r"a.png: the file is empty"):
        next(assemble(index.fields[0], ("R",), 0, 0))


def test_pages_of_colors_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 6, 8, 3), np.uint8), photometric="rgb")
    (tmp_path / "t.csv").write_text("path,plate,well,site\na.tif,P,A01,1\n")
    with pytest.raises(BuildError, match=r"a.tif: 2 pages of 3 colors"):
        index_table(tmp_path / "t.csv")


def test_a_file_of_several_pages_is_no_single_plane(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 6, 8), np.uint16), photometric="minisblack")
    (tmp_path / "t.csv").write_text("path,plate,well,site,channel\na.tif,P,A01,1,c\n")
    with pytest.raises(BadInputError, match=r"a.tif: holds 4 planes .*, expected 1"):
        next(assemble(index_table(tmp_path / "t.csv").fields[0], ("c",), 0, 0))


def test_images_that_are_not_on_plates(tmp_path):
    (tmp_path / "t.csv").write_text("path,plate,well,site,channel\na.tif,P,,1,c\nb.tif,P,,2,c\n")
    assert [field.well for field in index_table(tmp_path / "t.csv").fields] == ["", ""]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["a.tif,P,A01,1,c,x", "b.tif,P,Q25,1,c,x"], "t.csv, line 3: well 'Q25'"),
        (["a.tif,P,A01,1,c,x", "b.tif,,A02,1,c,x"], "t.csv, line 3: the plate has no name"),
        (["a.tif,P,A01,1,c,x", "b.tif,P,A1,1,c,x"], "t.csv, line 3: .*is .*t.csv, line 2 already"),
        (["a.tif,P,A01,1,c,x", "./a.tif,P,A02,1,c,x"], "t.csv, line 3: ./a.tif is named in .*line 2 already"),
        (["a.tif,P,A01,1,c,x", ",P,A02,1,c,x"], "t.csv, line 3: the path is empty"),
        (["a.tif,P,A01,1,c,x", "b.tif,P,A01,2.5,c,x"], "t.csv, line 3: site is '2.5', expected a whole number"),
        (["a.tif,P,A01,1,c,x", "b.tif,P,A01,-2,c,x"], "t.csv, line 3: site is '-2'"),
        (["a.tif,P,A01,1,c,x", "b.tif,P,A01,,c,x"], "t.csv, line 3: site is ''"),
        (["a.tif,P,A01,1,c,x", "b.tif,P,A01,2,,x"], "t.csv, line 3: the channel has no name"),
        (["a.tif,P,A01,1,c,x", "b.tif,P,,2,c,x"], "t.csv, line 3: has no well, while .*line 2 has A01"),
        (["a.tif,P,A01,1,c,x", "b.tif,P,A01,1,d,y"], "t.csv, line 3: dose is 'y', but 'x' in .*line 2"),
        (["a.tif,P,A01,1,c"], "t.csv, line 2"),
        ([], "t.csv: the table is empty"),
    ],
)
def test_lines_that_are_refused(tmp_path, lines, problem):
    (tmp_path / "t.csv").write_text("\n".join(["path,plate,well,site,channel,dose", *lines]))
    with pytest.raises(BuildError, match=problem):
        index_table(tmp_path / "t.csv")


def test_a_z_that_is_no_number(tmp_path):
    (tmp_path / "t.csv").write_text("path,plate,well,site,channel,z\na.tif,P,A01,1,c,top\n")
    with pytest.raises(BuildError, match=r"t.csv, line 2: z is 'top'"):
        index_table(tmp_path / "t.csv")


def test_columns_that_are_missing_or_double(tmp_path):
    (tmp_path / "t.csv").write_text("file,plate,site,Dose\na,b,1,2\n")
    with pytest.raises(BuildError, match="the columns path, well are missing; there are file, plate, site, Dose"):
        index_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("path,plate,Metadata_Plate,well,site\na,b,c,A01,1\n")
    with pytest.raises(BuildError, match="the column 'Metadata_Plate' would be called 'plate'"):
        index_table(tmp_path / "t.csv")


def test_another_plate_format(tmp_path):
    (tmp_path / "t.csv").write_text("path,plate,well,site,channel\na.tif,P,AF48,1,c\n")
    with pytest.raises(BuildError, match="a plate of 384 wells"):
        index_table(tmp_path / "t.csv")
    assert index_table(tmp_path / "t.csv", wells_per_plate=1536).fields[0].well == "AF48"


def test_what_is_found_when_a_plane_is_read(tmp_path):
    _image(tmp_path / "a.tif", 1)
    _image(tmp_path / "odd.tif", 1, shape=(6, 9))
    _image(tmp_path / "byte.tif", 1, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "nan.tif", np.array([[1, np.nan]], np.float32))
    (tmp_path / "dir.tif").mkdir()
    names = ["odd.tif", "byte.tif", "nan.tif", "dir.tif", "absent.tif"]
    lines = [line for i, name in enumerate(names) for line in (f"{name},P,A01,{i},c", f"./{i}/../a{i}.tif,P,A01,{i},d")]
    for i in range(len(names)):
        _image(tmp_path / f"a{i}.tif", 1)
    (tmp_path / "t.csv").write_text("\n".join(["path,plate,well,site,channel", *lines]))
    index = index_table(tmp_path / "t.csv")
    problems = [
        "differ in size or type",
        "byte.tif: holds 1 channel of uint8, but .*odd.tif, which comes first, holds 1 channel of uint16",
        "nan.tif: holds 1 channel of float32, but .*odd.tif",
        "is a folder",
        "opened",
    ]
    for field, problem in zip(index.fields, problems, strict=True):
        with pytest.raises(BadInputError, match=problem) as raised:
            list(assemble(field, ("c", "d"), 0, 0))
        assert f"plate P, well A01, site {field.site}" in str(raised.value)

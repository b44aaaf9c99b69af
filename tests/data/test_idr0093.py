import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from bie_jax.image_set import open_image_set
from data.idr0093.build import build_idr0093
from data.records import BuildError

CHANNELS = ("DAPI", "EU")
FIELDS = [("001", "B2", 1), ("001", "B2", 2), ("001", "C03", 1), ("002", "B02", 1)]
HEIGHT, WIDTH, CROP = 24, 37, 8
# In the form of IDR's tables: more columns than are read, wells without a leading zero.
ANNOTATION = """Plate,Well,Characteristics [Organism],Gene Identifier,Gene Symbol,Control Type,n_cells
001,B2,Homo sapiens,5422,POLA1,,100
001,C3,Homo sapiens,,,negative control,200
002,B2,Homo sapiens,3832,KIF11,positive control,30
002,B3,Homo sapiens,,,,0
003,B2,Homo sapiens,7157,TP53,,90
"""
IDR = Path(__file__).resolve().parents[3] / "shared" / "data" / "idr_metadata"


def _pixels(number, channel):
    rng = np.random.default_rng([number, channel])
    return rng.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)


@pytest.fixture
def source(tmp_path):
    """A folder as a user would have it: files, a table of them and the annotation."""
    folder = tmp_path / "source"
    (folder / "files").mkdir(parents=True)
    lines = []
    for number, (plate, well, site) in enumerate(FIELDS):
        for c, channel in enumerate(CHANNELS):
            name = f"files/{plate}_{well}_{site}_{channel}.tif"
            tifffile.imwrite(folder / name, _pixels(number, c), compression="zlib")
            lines.append([name, plate, well, site, channel])
    pd.DataFrame(lines, columns=["path", "plate", "well", "site", "channel"]).to_csv(folder / "images.csv", index=False)
    with gzip.open(folder / "annotation.csv.gz", "wt") as file:
        file.write(ANNOTATION)
    return folder


def _build(source, tmp_path, crop=CROP):
    return build_idr0093(tmp_path / "datasets", source / "images.csv", source / "annotation.csv.gz", crop)


def _refused(source, tmp_path, message, crop=CROP):
    with pytest.raises(BuildError, match=message) as caught:
        _build(source, tmp_path, crop)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "datasets").glob("*")), "something was left behind"


def test_tiles(source, tmp_path, capsys):
    _build(source, tmp_path)
    built = open_image_set("idr0093", tmp_path / "datasets")
    assert built.channel_names == CHANNELS
    assert built.image_shape == (CROP, CROP, 2)
    assert (built.bit_depth, built.pixel_size_um, built.simulated) == (16, 0.325, False)
    rows_of_tiles, columns_of_tiles = HEIGHT // CROP, WIDTH // CROP  # 3 x 4; five columns of pixels are left over
    assert len(built) == len(FIELDS) * rows_of_tiles * columns_of_tiles
    row = 0
    for number, (plate, well, site) in enumerate(FIELDS):
        field = np.stack([_pixels(number, c) for c in range(2)], axis=-1)
        for y in range(rows_of_tiles):
            for x in range(columns_of_tiles):
                tile = field[y * CROP : (y + 1) * CROP, x * CROP : (x + 1) * CROP]
                np.testing.assert_array_equal(built[row], tile)
                line = built.metadata.iloc[row]
                assert (line["plate"], line["site"]) == (plate, site)
                assert line["well"] == {"B2": "B02", "B02": "B02", "C03": "C03"}[well]
                assert (line["tile_y_px"], line["tile_x_px"]) == (y * CROP, x * CROP)
                assert line["source"] == f"{plate}_{well}_{site}_DAPI.tif"
                row += 1
    wells = built.metadata.groupby(["plate", "well"])[["label", "gene_symbol", "control_type"]].first()
    assert wells.loc[("001", "B02")].tolist() == ["POLA1", "POLA1", ""]
    assert wells.loc[("001", "C03")].tolist() == ["scrambled", "", "negative control"]
    assert wells.loc[("002", "B02")].tolist() == ["positive control", "KIF11", "positive control"]
    assert "2 wells of the annotation have no images here" in capsys.readouterr().out


def test_a_well_without_a_gene_is_kept_and_counted(source, tmp_path, capsys):
    (source / "images.csv").write_text((source / "images.csv").read_text().replace("002,B02,", "002,B03,"))
    _build(source, tmp_path)
    metadata = open_image_set("idr0093", tmp_path / "datasets").metadata
    assert set(metadata.loc[metadata["plate"] == "002", "label"]) == {"no gene symbol"}
    assert "1 wells with images have neither a gene symbol nor a control type" in capsys.readouterr().out


@pytest.mark.parametrize("crop", [0, -8, 25])
def test_a_tile_must_fit(source, tmp_path, crop):
    _refused(source, tmp_path, rf"--crop={crop}: the images are 24 x 37 pixels", crop)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("files/001_B2_2_EU.tif,001,B2,2,EU\n", "", r"plate 001, well B02, site 2: no file for the channels \['EU'\]"),
        ("B2,2,EU", "B2,1,EU", r"line 5: a second file for plate 001, well B02, site 1, channel EU: files/001_B2_2_EU"),
        ("001_B2_2_EU.tif", "001_B2_1_EU.tif", r"line 5: files/001_B2_1_EU.tif stands in line 3 already"),
        ("001,C03,1,EU", "001,A0,1,EU", r"images.csv, line 7: well 'A0': expected a row A to P"),
        ("B2,2,EU", "B2,two,EU", r"line 5: site 'two' of plate 001, well B2: expected a whole number"),
        ("001,B2,2,EU", ",B2,2,EU", r"line 5: the plate or the channel of files/001_B2_2_EU.tif is empty"),
        ("files/001_B2_2_EU.tif", "gone.tif", r"gone.tif: no such file \(plate 001, well B02, site 2, channel EU\)"),
        ("002,B02", "002,H09", r"annotation.csv.gz: no line for plate 002, well H09$"),
        ("path,", "file,", r"images.csv: the columns \['path'\] are missing"),
    ],
)
def test_bad_images_table(source, tmp_path, old, new, message):
    text = (source / "images.csv").read_text()
    assert old in text
    (source / "images.csv").write_text(text.replace(old, new))
    _refused(source, tmp_path, message)


@pytest.mark.parametrize("text", ["", "path,plate,well,site,channel\n"])
def test_empty_images_table(source, tmp_path, text):
    (source / "images.csv").write_text(text)
    _refused(source, tmp_path, "images.csv: n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Gene Symbol", "Gene", r"annotation.csv.gz: the columns \['Gene Symbol'\] are missing"),
        ("001,C3", "001,B02", r"annotation.csv.gz, line 3: plate 001, well B02 has two lines"),
        ("001,C3", "001,R3", r"annotation.csv.gz, line 3: well 'R3'"),
        ("001,", "004,", r"no line for plate 001, well B02, nor for 1 more wells with images"),
    ],
)
def test_bad_annotation(source, tmp_path, old, new, message):
    with gzip.open(source / "annotation.csv.gz", "wt") as file:
        file.write(ANNOTATION.replace(old, new))
    _refused(source, tmp_path, message)


def test_annotation_that_is_cut_off(source, tmp_path):
    whole = (source / "annotation.csv.gz").read_bytes()
    (source / "annotation.csv.gz").write_bytes(whole[:-20])
    _refused(source, tmp_path, "annotation.csv.gz: not a table")


@pytest.mark.parametrize("name", ["images.csv", "annotation.csv.gz"])
def test_missing_table(source, tmp_path, name):
    (source / name).unlink()
    _refused(source, tmp_path, f"{name}: no such file; data/idr0093/README.md")


PLACE = r"plate 001, well B02, site 2, channel EU"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((HEIGHT, WIDTH + 1), np.uint16), rf"{PLACE}: \(24, 38\) uint16, the files before it are \(24, 37\)"),
        (np.zeros((HEIGHT, WIDTH), np.uint8), rf"{PLACE}: \(24, 37\) uint8, the files before it are"),
        (np.zeros((HEIGHT, WIDTH), np.float32), rf"1 pages, \(24, 37\) float32 \({PLACE}\)"),
        (np.zeros((2, HEIGHT, WIDTH), np.uint16), rf"2 pages, .*\({PLACE}\)"),
    ],
    ids=["size", "8 bit", "float", "pages"],
)
def test_files_that_differ(source, tmp_path, image, message):
    tifffile.imwrite(source / "files/001_B2_2_EU.tif", image, photometric="minisblack")
    _refused(source, tmp_path, rf"001_B2_2_EU.tif: .*{message}")


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.99])
def test_files_that_are_cut_off(source, tmp_path, kept):
    path = source / "files/001_B2_2_EU.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    _refused(source, tmp_path, rf"001_B2_2_EU.tif: (not a TIFF that can be read|truncated) \({PLACE}\)")


def test_a_file_that_is_no_tiff(source, tmp_path):
    (source / "files/001_B2_2_EU.tif").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    _refused(source, tmp_path, rf"001_B2_2_EU.tif: not a TIFF that can be read \({PLACE}\)")


def test_pixels_that_cannot_be_decompressed(source, tmp_path):
    """The header is sound: it shows only when the pixels are read, after tiles of other fields were written."""
    path = source / "files/002_B02_1_EU.tif"
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 50] = bytes(50)
    path.write_bytes(content)
    _refused(source, tmp_path, r"002_B02_1_EU.tif: cannot be read \(plate 002, well B02, site 1, channel EU\)")


def test_a_part_without_bytes_is_not_read_as_zeros(source, tmp_path):
    path = source / "files/001_B2_2_EU.tif"
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["StripByteCounts"].overwrite(0)
    assert not tifffile.imread(path).any(), "tifffile is silent about it, this is why we must look"
    _refused(source, tmp_path, rf"001_B2_2_EU.tif: truncated \({PLACE}\)")


@pytest.mark.skipif(not IDR.is_dir(), reason="../shared/data/idr_metadata is not here")
def test_a_real_annotation_of_idr(source, tmp_path, capsys):
    """idr0006's, which has the columns that idr0093's is documented to have; it is another study."""
    annotation = IDR / "idr0006" / "screenA" / "idr0006-screenA-annotation.csv.gz"
    text = (source / "images.csv").read_text().replace("002,B02", "11002,B02").replace(",001,", ",11001,")
    (source / "images.csv").write_text(text)
    build_idr0093(tmp_path / "datasets", source / "images.csv", annotation, CROP)
    table = pd.read_csv(annotation, dtype=str, keep_default_na=False).set_index(["Plate", "Well"])
    metadata = open_image_set("idr0093", tmp_path / "datasets").metadata
    genes = metadata.groupby(["plate", "well"])["gene_symbol"].first()
    assert len(genes) == 3
    for (plate, well), gene in genes.items():
        assert gene == table.loc[(plate, f"{well[0]}{int(well[1:])}"), "Gene Symbol"]
    assert f"{len(table) - 3} wells of the annotation have no images here" in capsys.readouterr().out

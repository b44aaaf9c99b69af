import itertools
import os

import imagecodecs
import numpy as np
import pytest
import tifffile

from data.errors import BadInputError, BuildError
from data.fields.index import assemble
from data.sources.folder import index_folder
from data.sources.layouts import index_layout, index_pattern
from data.sources.table import index_table


def _png(path, value, shape=(5, 7), dtype=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(shape, value, dtype)
    path.write_bytes(imagecodecs.png_encode(pixels))
    return pixels


def test_every_image_is_a_field(tmp_path):
    root = tmp_path / "set"
    _png(root / "b" / "2.png", 300)
    _png(root / "b" / "deeper" / "1.PNG", 65535)
    _png(root / "a.png", 7)
    _png(root / "007" / "1.png", 8)
    (root / "notes.txt").write_text("x")
    (root / ".hidden.png").write_bytes(b"x")
    _png(root / ".cache" / "x.png", 1)
    index = index_folder(root)
    assert index.channels == ("0",)
    assert index.columns == {"folder": str, "file": str}
    assert index.ignored == (("notes.txt", "no image"),)
    assert [(f.plate, f.well, f.site, f.metadata["folder"], f.metadata["file"]) for f in index.fields] == [
        ("set", "", 1, "007", "1.png"),
        ("set", "", 2, "", "a.png"),
        ("set", "", 3, "b", "2.png"),
        ("set", "", 4, "b/deeper", "1.PNG"),
    ]
    values = [next(assemble(field, ("0",), 0, 0))[0] for field in index.fields]
    assert [(image[0, 0, 0], image.shape, image.dtype) for image in values] == [
        (value, (5, 7, 1), np.uint16) for value in (8, 7, 300, 65535)
    ]


def test_colors(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, 4), np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    index = index_folder(tmp_path)
    assert index.channels == ("R", "G", "B", "A")
    np.testing.assert_array_equal(next(assemble(index.fields[0], index.channels, 0, 0))[0], pixels)


def test_pages(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (2, 5, 7), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", byteorder=">")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((3, 5, 7), np.uint16), photometric="minisblack")
    index = index_folder(tmp_path)
    assert index.channels == ("0", "1")
    image, _ = next(assemble(index.fields[0], ("0", "1"), 0, 0))
    np.testing.assert_array_equal(image, np.moveaxis(pixels, 0, -1))
    with pytest.raises(BadInputError, match=r"b.tif: holds 3 channels of uint16, but .*a.tif.* holds 2 channels"):
        next(assemble(index.fields[1], ("0", "1"), 0, 0))


def test_damaged_files_are_met_when_they_are_read(tmp_path):
    _png(tmp_path / "c.png", 1)
    content = (tmp_path / "c.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:40])
    (tmp_path / "b.jpg").write_bytes(b"")
    index = index_folder(tmp_path)
    for field, problem in zip(index.fields[:2], ("a.png: damaged", "b.jpg: the file is empty"), strict=True):
        with pytest.raises(BadInputError, match=problem):
            next(assemble(field, ("0",), 0, 0))
    (tmp_path / "c.png").unlink()
    with pytest.raises(BadInputError, match=r"a.png: damaged"):
        index_folder(tmp_path)


def test_links_out_of_the_folder_are_listed_and_not_followed(tmp_path):
    root = tmp_path / "set"
    _png(root / "a.png", 1)
    _png(tmp_path / "elsewhere" / "b.png", 2)
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "outside.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "loop.png").symlink_to(root / "loop.png")
    index = index_folder(root)
    assert [field.metadata["file"] for field in index.fields] == ["a.png", "inside.png", "loop.png"]
    assert [file for file, _ in index.ignored] == ["folder", "outside.png"]
    with pytest.raises(BadInputError, match=r"loop.png: cannot be opened"):
        next(assemble(index.fields[2], ("0",), 0, 0))
    # The folder itself may be a link.
    (tmp_path / "link").symlink_to(root)
    assert [field.plate for field in index_folder(tmp_path / "link").fields] == ["set"] * 3


def test_what_is_no_folder_of_images(tmp_path):
    with pytest.raises(BuildError, match="absent: is not there"):
        index_folder(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BuildError, match="file: is a file, a folder is needed"):
        index_folder(tmp_path / "file")
    with pytest.raises(BuildError, match=r"no file in it or below ends in .tif"):
        index_folder(tmp_path)


def test_a_name_that_is_no_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):
        pass
    with pytest.raises(BuildError, match="is not UTF-8; rename it"):
        index_folder(tmp_path)


def _tiff(path, shape=(5, 7), dtype=np.uint8, **options):
    tifffile.imwrite(path, np.ones(shape, dtype), **{"photometric": "minisblack"} | options)


KINDS = {
    "grey": {},
    "16 bits": {"dtype": np.uint16},
    "signed": {"dtype": np.int16},
    "12 bits": {"dtype": np.uint16, "bitspersample": 12},
    "0 is white": {"photometric": "miniswhite"},
    "palette": {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
    "focal planes": {"shape": (3, 5, 7), "metadata": {"axes": "ZYX"}},
    "time points": {"shape": (3, 5, 7), "metadata": {"axes": "TYX"}},
    "channels": {"shape": (3, 5, 7), "metadata": {"axes": "CYX"}},
    "more channels": {"shape": (4, 5, 7), "metadata": {"axes": "CYX"}},
    "colors": {"shape": (5, 7, 3), "photometric": "rgb"},
    "alpha": {"shape": (5, 7, 4), "photometric": "rgb", "extrasamples": ["unassalpha"]},
    "no alpha": {"shape": (5, 7, 4), "photometric": "rgb", "extrasamples": ["unspecified"]},
}


def test_whichever_comes_first_every_difference_is_refused_and_both_are_named(tmp_path):
    for (one, first), (other, second) in itertools.permutations(KINDS.items(), 2):
        folder = tmp_path / f"{one}, {other}"
        folder.mkdir()
        _tiff(folder / "a.tif", **first)
        _tiff(folder / "b.tif", **second)
        index = index_folder(folder)
        fields = [assemble(field, index.channels, "each", "each") for field in index.fields]
        assert next(fields[0])[0].shape[:2] == (5, 7)
        with pytest.raises(BadInputError, match=r"b\.tif: holds .*, but .*a\.tif, which comes first, holds .*"):
            next(fields[1])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("how", ["folder", "table", "table with channels", "pattern", "imagexpress"])
def test_colors_with_and_without_alpha_in_every_kind_of_source(tmp_path, how, reverse):
    names = [f"P_{well}_s1_w1.tif" for well in ("A01", "A02")]
    shapes = [(5, 7), (5, 7, 2)] if how in ("table with channels", "imagexpress") else [(5, 7, 3), (5, 7, 4)]
    for name, shape in zip(names, shapes[::-1] if reverse else shapes):
        _tiff(tmp_path / name, shape, photometric="rgb" if shape[-1] in (3, 4) else "minisblack", planarconfig="contig")
    lines = [f"{name},P,{well},1,w1" for name, well in zip(names, ("A01", "A02"))]
    (tmp_path / "with.csv").write_text("\n".join(["path,plate,well,site,channel", *lines]))
    (tmp_path / "without.csv").write_text("\n".join(["path,plate,well,site,stain", *lines]))
    index = {
        "folder": lambda: index_folder(tmp_path),
        "table": lambda: index_table(tmp_path / "without.csv"),
        "table with channels": lambda: index_table(tmp_path / "with.csv"),
        "pattern": lambda: index_pattern(tmp_path, r"P_(?P<well>[A-Z]\d+)_.*"),
        "imagexpress": lambda: index_layout(tmp_path, "imagexpress"),
    }[how]()
    with pytest.raises(BadInputError, match=r"A02_s1_w1\.tif: holds .*, but .*A01_s1_w1\.tif, which comes first"):
        next(assemble(index.fields[1], index.channels, 0, 0))


def test_a_file_that_cannot_be_read_does_not_decide(tmp_path):
    (tmp_path / "P_A01_w1.tif").write_bytes(b"II*\0")
    _tiff(tmp_path / "P_A02_w1.tif")
    _tiff(tmp_path / "P_A03_w1.tif", photometric="miniswhite")
    index = index_layout(tmp_path, "imagexpress")
    assert next(assemble(index.fields[1], ("w1",), 0, 0))[0].shape == (5, 7, 1)
    with pytest.raises(BadInputError, match=r"A03_w1\.tif: holds .*0 is white, but .*A02_w1\.tif"):
        next(assemble(index.fields[2], ("w1",), 0, 0))


def test_folders_within_folders(tmp_path):
    deep = tmp_path.joinpath(*["a"] * 101)
    deep.mkdir(parents=True)
    tifffile.imwrite(deep / "a.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(BuildError, match="has more than 100 folders within each other"):
        index_folder(tmp_path)

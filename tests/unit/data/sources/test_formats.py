"""Files that are not read: what is said of them, wherever one can be named."""

import re
import zipfile

import numpy as np
import pytest
import tifffile

from data.build import main
from data.errors import BadInputError, BuildError
from data.fields.index import assemble
from data.fields.planes import read_file
from data.sources.arrays import index_arrays
from data.sources.contours import index_contours
from data.sources.folder import index_folder
from data.sources.formats import FORMATS, SNIFFED, format_of
from data.sources.layouts import index_layout, index_pattern
from data.sources.ome_tiff import index_ome_tiff
from data.sources.table import index_table

CZI, HDF5 = b"ZISRAWFILE" + bytes(600), b"\x89HDF\r\n\x1a\n" + bytes(600)
SAID = "is a Zeiss CZI, which is not read; convert it to OME-TIFF with Bio-Formats"


def _refused(problem, read):
    with pytest.raises(BuildError) as caught:
        read()
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("a b.CZI", b"", 'a Zeiss CZI, which is not read; .*"bfconvert a b.CZI a b.ome.tiff"'),
        ("x.nii.gz", b"", '"bfconvert x.nii.gz x.ome.tiff"'),
        ("x.svs", b"", '"bioformats2raw x.svs x.zarr"'),
        ("x.tif", CZI, "a Zeiss CZI"),
        ("x.tif", bytes(128) + b"DICM", "a DICOM"),
        ("x.ims", HDF5, "an Imaris IMS"),
        ("x.dat", HDF5, "an HDF5, .*h5py"),
        ("x.webp", b"", "a WebP"),
        ("x.png", b"RIFF\0\0\0\0WEBPVP8 ", "a WebP"),
        ("cells_seg.npy", b"", r"Cellpose.*nothing is unpickled.*'cells_masks.tif'.*--mask=labels"),
        ("x.geojson", b"", "GeoJSON.*QuPath.*--mask=labels"),
        ("x.roi", b"", "ImageJ.*roifile.*--layout=contours"),
    ],
)
def test_formats_by_name_and_by_content(name, start, said):
    found = format_of(name, start)
    assert found is not None
    assert re.search(said, found)


def test_what_is_read_is_no_format_that_is_not():
    for name in ("a.tif", "a.ome.tiff", "a.png", "a.jpeg", "a.npy", "a.npz", "a.zarr", "a.csv", "a.zip", "notes.md"):
        assert format_of(name) is None
    assert format_of("a", b"II*\0") is format_of("a", b"") is None


def test_the_table_is_sound():
    suffixes = [suffix for known in FORMATS for suffix in known.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    for known in FORMATS:
        assert all(suffix == suffix.lower() for suffix in known.suffixes)
        assert known.at + len(known.start) <= SNIFFED
        assert "\n" not in known.way_out


def test_wherever_a_file_is_named(tmp_path):
    source = tmp_path / "m"
    source.mkdir()
    (source / "P_A01_s1_w1.czi").write_bytes(CZI)
    _refused(SAID.removeprefix("is "), lambda: index_folder(source))
    _refused(SAID.removeprefix("is "), lambda: index_layout(source, "imagexpress"))
    _refused(SAID.removeprefix("is "), lambda: index_pattern(source, r"(?P<well>\w+)\.png"))
    _refused(SAID.removeprefix("is "), lambda: index_ome_tiff(source))
    (tmp_path / "t.csv").write_text("path,plate,well,site\nm/P_A01_s1_w1.czi,P,A01,1\n")
    _refused(SAID, lambda: index_table(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("path,plate,well,site,channel\nm/P_A01_s1_w1.czi,P,A01,1,c\n")
    (field,) = index_table(tmp_path / "t.csv").fields
    with pytest.raises(BadInputError, match=f"{SAID}.*plate P, well A01"):
        next(assemble(field, ("c",), 0, 0))
    for name in ("a.tif", "a.png", "a.ome.tif"):  # its bytes say what it is
        path = tmp_path / name
        path.write_bytes(CZI)
        _refused(SAID, lambda path=path: read_file(path))
    _refused(SAID, lambda: index_ome_tiff(tmp_path / "a.ome.tif"))
    (tmp_path / "a.npy").write_bytes(HDF5)
    _refused("is an HDF5, which is not read", lambda: index_arrays(tmp_path / "a.npy"))


def test_members_that_are_not_read_are_listed_with_the_way_out(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint16))
    (tmp_path / "b.czi").write_bytes(CZI)
    np.save(tmp_path / "a_seg.npy", np.array({"masks": 1}), allow_pickle=True)
    index = index_folder(tmp_path)
    assert len(index.fields) == 1
    told = dict(index.ignored)
    assert set(told) == {"b.czi", "a_seg.npy"}
    assert told["b.czi"].startswith("a Zeiss CZI, which is not read; convert")
    assert told["a_seg.npy"].startswith("a Cellpose result, which is not read; it holds pickled")


def test_a_cellpose_result_is_not_unpickled_and_plain_labels_of_that_name_are_read(tmp_path):
    path = tmp_path / "cells_seg.npy"
    np.save(path, np.array({"masks": np.zeros((4, 4), int)}), allow_pickle=True)
    _refused("is a Cellpose result, which is not read; it holds pickled", lambda: index_arrays(path))
    np.save(path, np.zeros((2, 4, 4), np.uint16))
    assert len(index_arrays(path).fields) == 2


def test_a_folder_of_imagej_regions(tmp_path):
    with zipfile.ZipFile(tmp_path / "RoiSet.zip", "w") as archive:
        archive.writestr("1.roi", b"Iout" + bytes(60))
        archive.writestr("2.roi", b"Iout" + bytes(60))
    with zipfile.ZipFile(tmp_path / "RoiSet.zip") as archive:
        archive.extractall(tmp_path / "RoiSet")
    _refused("is a folder with 1.roi, an ImageJ region, which", lambda: index_contours(tmp_path / "RoiSet", None))


@pytest.mark.parametrize("flags", [(), ("--layout=folder",), ("--layout=ome-tiff",), ("--layout=ome-zarr",)])
@pytest.mark.parametrize("name", ["a.czi", "a.lif", "a.h5", "a.mp4", "a.dcm", "https://server.invalid/a.nd2"])
def test_as_a_source_it_is_named_before_anything_is_fetched(tmp_path, name, flags):
    source = name if "://" in name else str(tmp_path / name)
    if "://" not in name:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BuildError, match=re.escape(source) + ": is .*, which is not read; ") as caught:
        main(["mine", f"--source={source}", *flags, f"--data-dir={tmp_path / 'sets'}"])
    assert "--layout=" in str(caught.value) or "save " in str(caught.value)


def test_one_image_as_a_source(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint16))
    with pytest.raises(BuildError, match=r"a.tif: is one image; give its folder with --layout=folder"):
        main(["mine", f"--source={tmp_path / 'a.tif'}", f"--data-dir={tmp_path / 'sets'}"])

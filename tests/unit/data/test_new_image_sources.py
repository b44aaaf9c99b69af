import os

import numpy as np
import pytest
import tifffile

from data.command_line import options_of
from data.errors import BuildError
from data.new_images import by_hand, find_images, name_of
from tests.end_to_end.commands import build


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/Plate 7", "plate_7"),
        ("/data/Plate 7/", "plate_7"),
        ("https://server/a/plate.ome.zarr", "plate"),
        ("https://server/plate.zarr?x=1/2", "images_2"),
        ("s3://bucket/2024-01-31.zarr", "images_2024_01_31"),
        ("/data/cells.ome.tif", "cells"),
        ("/data/Zellen-Übersicht.csv.gz", "zellen_bersicht"),
        ("/data/...", "images"),
        ("/data/bbbc021", "bbbc021_images"),
    ],
)
def test_a_set_is_called_as_its_source_is(source, name):
    assert name_of(source) == name
    options_of([name, "--source=x", "--layout=folder"])  # a name that the builder takes


def _images(folder, count=3, channels=2):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((channels, 8, 8), number, np.uint16)
        tifffile.imwrite(folder / f"{number}.tif", pixels, imagej=True, metadata={"axes": "CYX"})
    return str(folder)


def test_a_folder_of_images_needs_no_more_than_names_of_its_channels(tmp_path):
    source = _images(tmp_path / "Plate 7")
    images = find_images(source, None, "DNA,actin", tmp_path / "sets")
    assert (images.name, images.layout, images.channels) == ("plate_7", "folder", {"0": "DNA", "1": "actin"})
    arguments = images.arguments({"0": "DNA"})
    expected = [
        "plate_7",
        f"--source={source}",
        f"--data-dir={tmp_path / 'sets'}",
        "--layout=folder",
        "--channels=0=DNA",
    ]
    assert arguments == expected
    assert not (tmp_path / "sets").exists()
    as_they_are = find_images(source, None, None, tmp_path / "sets")
    assert as_they_are.arguments(as_they_are.channels) == expected[:-1]


def test_images_are_read_once_and_again_when_they_are_others(tmp_path):
    source, sets = _images(tmp_path / "a" / "plate"), tmp_path / "sets"
    arguments = []

    def is_built(source=source, channels=None):
        images = find_images(source, None, channels, sets)
        arguments[:] = images.arguments(images.channels)
        return images.is_built(arguments)

    assert not is_built()
    assert not is_built()  # a build that broke off goes on
    assert build(*arguments).returncode == 0
    assert is_built()
    assert not is_built(channels="x,y")  # what was built under other names is gone
    assert not is_built()
    assert build(*arguments).returncode == 0
    os.utime(f"{source}/1.tif", ns=(1, 1))
    assert not is_built()
    assert build(*arguments).returncode == 0
    assert is_built()
    _images(tmp_path / "b" / "plate")
    with pytest.raises(BuildError, match=r"holds images of .*a/plate, whose name is that of .*b/plate: rename one"):
        is_built(str(tmp_path / "b" / "plate"))
    assert is_built()


def test_what_cannot_be_known_is_asked_for(tmp_path):
    named, empty = tmp_path / "named", tmp_path / "empty"
    for folder, name in (
        (named, "P1_B02_s1_w1.TIF"),
        (empty, "notes.txt"),
        (tmp_path / "cv", "P_B02_T0001F001L01A01Z01C01.tif"),
    ):
        folder.mkdir()
        (folder / name).touch()
    for source, layout, message in (
        (str(tmp_path / "gone"), None, r"--images=.*gone: no such file or folder"),
        (str(empty), None, r"empty: no file in it or below ends in .tif"),
        (str(named), None, r"files are named as imagexpress has it: say --layout=imagexpress, or --layout=folder"),
        (str(tmp_path / "cv"), None, r"files are named as cellvoyager has it"),
        (str(named), "zip", r"--layout=zip: expected one of table, folder"),
        ("", None, r"--images: expected a folder, a file or an address"),
        ("a\x00b", None, r"U\+0000"),
        ("http://127.0.0.1:9/plate.zarr", None, r"http://127.0.0.1:9/plate.zarr"),
    ):
        with pytest.raises(BuildError, match=message):
            find_images(source, layout, None, tmp_path / "sets")


def test_files_that_say_that_they_are_ome_tiff_are(tmp_path):
    folder = tmp_path / "omes"
    folder.mkdir()
    tifffile.imwrite(
        folder / "a.ome.tif",
        np.zeros((2, 8, 8), np.uint16),
        metadata={"axes": "CYX", "Channel": {"Name": ["DNA", "actin"]}},
    )
    images = find_images(str(folder), None, None, tmp_path / "sets")
    assert (images.layout, tuple(images.channels)) == ("ome-tiff", ("DNA", "actin"))


def test_the_command_can_be_typed():
    assert (
        by_hand("plate_7", "/data/Plate 7", "folder")
        == "python -m data.build plate_7 '--source=/data/Plate 7' --layout=folder"
    )

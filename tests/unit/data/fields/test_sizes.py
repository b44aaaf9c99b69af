"""Images of several sizes, in every layout alike."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BuildError

SIZES = [(64, 64), (48, 64), (40, 40)]


@pytest.fixture(params=["ome-tiff", "folder", "table"])
def source(request, tmp_path):
    """Three images of three sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        tifffile.imwrite(folder / f"{number}.ome.tif", np.full(size, number, np.uint16), ome=True)
    rows = [{"path": f"images/{i}.ome.tif", "plate": "p", "well": "", "site": i} for i in range(3)]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    path = tmp_path / "t.csv" if request.param == "table" else folder
    return [f"--source={path}", f"--layout={request.param}", f"--data-dir={tmp_path / 'sets'}", "--workers=1"]


def _numbers(tmp_path, name):
    read = open_image_set(name, tmp_path / "sets")
    return [int(read[row][0, 0, 0]) for row in range(len(read))]


def test_every_size_that_holds_the_window_is_used(source, tmp_path):
    main(["mine", *source, "--crop=16"])
    assert _numbers(tmp_path, "mine") == [0] * 16 + [1] * 12 + [2] * 4
    notes = json.loads(next(tmp_path.glob("sets/mine/*/build.json")).read_text())
    assert [size for size, _ in notes["image sizes"]] == ["64 x 64", "48 x 64", "40 x 40"]


def test_whole_images_of_several_sizes_stop_it_or_are_listed(source, tmp_path):
    with pytest.raises(BuildError, match=r"of 3 sizes: 64 x 64 \(1 field, e.g. .*0.ome.tif\), .*--crop=N, N up to 40"):
        main(["mine", *source])
    main(["mine", *source, f"--skip-bad={tmp_path / 'bad.csv'}"])
    assert _numbers(tmp_path, "mine") == [0]
    with open(tmp_path / "bad.csv") as file:
        assert [line["source"][-9:] for line in csv.DictReader(file)] == ["1.ome.tif", "2.ome.tif"]


def test_images_that_are_too_small_stop_it_or_are_listed(source, tmp_path):
    with pytest.raises(
        BuildError, match=r"1 of 3 images are smaller than --crop=48: 40 x 40 .*2.ome.tif\).*--skip-bad"
    ):
        main(["mine", *source, "--crop=48"])
    main(["mine", *source, "--crop=48", f"--skip-bad={tmp_path / 'bad.csv'}"])
    assert _numbers(tmp_path, "mine") == [0, 1]


def _slide(path, number, names, sizes):
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, size in zip(names, sizes, strict=True):
            tiff.write(np.full(size, number, np.uint8), metadata={"axes": "YX", "Name": name})


def test_what_lies_beside_scans_is_none(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(3):
        _slide(tmp_path / "images" / f"{i}.ome.tif", 1 + i, [f"scan {i}", "label image"], [(30 + i, 30), (20, 20)])
    _slide(tmp_path / "images" / "1_thumb.ome.tif", 9, [""], [(20, 20)])
    source = [f"--source={tmp_path / 'images'}", f"--data-dir={tmp_path / 'sets'}", "--workers=1", "--crop=16"]
    main(["mine", *source, "--layout=ome-tiff"])
    assert _numbers(tmp_path, "mine") == [1, 2, 3, 3]  # 32 pixels hold two
    notes = json.loads(next(tmp_path.glob("sets/mine/*/build.json")).read_text())
    assert len(notes["ignored"]) == 4
    assert all("left out: its name is that of a mask, label" in why for _, why in notes["ignored"])


def test_masks_beside_images_of_a_folder_are_none_and_alone_they_are_meant(tmp_path):
    for name in ("a", "b", "a_mask", "b_mask", "class_b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", np.full((8, 8), len(name), np.uint8))
    source = [f"--source={tmp_path / 'images'}", f"--data-dir={tmp_path / 'sets'}", "--workers=1", "--layout=folder"]
    main(["mine", *source])
    assert _numbers(tmp_path, "mine") == [1, 1, 7]
    for name in ("a", "b", "class_b"):
        (tmp_path / "images" / f"{name}.tif").unlink()
    main(["masks", *source])
    assert _numbers(tmp_path, "masks") == [6, 6]

"""The command, as a person types it."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from bie_jax.input.image_set import open_image_set
from data.studies.known import STUDIES
from data.studies.study import readme
from tests.end_to_end.commands import REPOSITORY, build

REAL_TREES = REPOSITORY.parent / "shared/data/hcs_imagexpress_layout"
REAL_BBBC021 = REPOSITORY.parent / "shared/data/bbbc021_singlecell_subset"


def _run(*arguments):
    """In a process of its own; most tests are content with `build`."""
    command = [sys.executable, "-m", "data.build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=REPOSITORY)


def _built(data_dir, name, *arguments):
    result = build(name, f"--data_dir={data_dir}", "--workers=1", *arguments)
    assert result.returncode == 0, result.stderr[-2000:]
    return open_image_set(name, data_dir), result.stdout


def _refused(result, *parts):
    """Exit status not 0, and one line that says why."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for part in parts:
        assert part in last
    return last


def _pixels(plate, well, site, channel, shape=(24, 32)):
    """16-bit pixels that say where they are from; over 255, so that 8 bits cannot hold them."""
    rng = np.random.default_rng([plate, well, site, channel])
    return (300 + 5000 * channel + rng.integers(0, 60000 - 5000 * channel, shape)).astype(np.uint16)


@pytest.fixture
def plate_folder(tmp_path):
    """2 plates x 3 wells x 2 sites x 2 channels of TIFF, a table that lists them, and one of the wells."""
    folder = tmp_path / "images"
    rows = []
    for plate in range(2):
        for well in range(3):
            for site in range(2):
                for channel in range(2):
                    path = folder / f"plate{plate}" / f"B0{well + 2}_{site + 1}_{'ab'[channel]}.tif"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    tifffile.imwrite(path, _pixels(plate, well, site, channel), compression="zlib")
                    place = {
                        "plate": f"plate{plate}",
                        "well": f"b{well + 2}",
                        "site": site + 1,
                        "channel": "ab"[channel],
                    }
                    rows.append({"path": path.relative_to(folder), **place})
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    wells = [
        {"Plate": f"plate{plate}", "Well": f"B{well + 2}", "Compound": ["DMSO", "x", "y"][well], "Dose [uM]": well / 2}
        for plate in range(2)
        for well in range(3)
    ]
    pd.DataFrame(wells).to_csv(folder / "wells.csv", index=False)
    return folder


def test_a_plate_with_its_annotation(plate_folder, tmp_path):
    read, said = _built(
        tmp_path / "sets",
        "screen",
        f"--source={plate_folder / 'images.csv'}",
        f"--annotation={plate_folder / 'wells.csv'}",
        "--label=compound",
        "--channels=b=DNA,a=actin",
        "--workers=2",
    )
    assert read.channel_names == ("DNA", "actin")
    assert len(read) == 12
    assert read.metadata["label"].tolist() == ["DMSO", "DMSO", "x", "x", "y", "y"] * 2
    assert read.metadata["dose_um"].tolist()[:6] == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    for row, line in read.metadata.iterrows():
        place = int(line["plate"][-1]), int(line["well"][1:]) - 2, line["site"] - 1
        expected = np.stack([_pixels(*place, channel) for channel in (1, 0)], axis=-1)
        np.testing.assert_array_equal(read[row], expected)
    pixels = np.stack([read[row] for row in range(6)]).reshape(-1, 2)
    np.testing.assert_allclose(read.statistics["plates"]["plate0"]["mean"], pixels.mean(axis=0))
    for part in (
        "12 images 24 x 32 x 2 uint16",
        "2 plates, 6 wells, 12 sites",
        " bytes read; ",
        "missing wells: 0",
        "DNA: 0.1 %:",
    ):
        assert part in said


def test_names_are_read_by_a_pattern(plate_folder, tmp_path):
    pattern = r"plate(?P<plate>\d)/(?P<well>[A-P]\d\d)_(?P<site>\d)_(?P<channel>\w)\.tif"
    read, _ = _built(tmp_path / "sets", "named", f"--source={plate_folder}", f"--pattern={pattern}", "--wells=B03")
    assert read.metadata[["plate", "well", "site"]].to_numpy().tolist() == [
        ["0", "B03", 1],
        ["0", "B03", 2],
        ["1", "B03", 1],
        ["1", "B03", 2],
    ]
    np.testing.assert_array_equal(read[3][..., 0], _pixels(1, 1, 1, 0))


def test_tiles_and_random_windows(plate_folder, tmp_path):
    source = f"--source={plate_folder / 'images.csv'}"
    tiles, _ = _built(tmp_path / "sets", "tiles", source, "--crop=16", "--overlap=8")
    assert len(tiles) == 12 * 2 * 3
    for row in (0, 3, 5):
        y, x = tiles.metadata.loc[row, ["tile_y_px", "tile_x_px"]]
        np.testing.assert_array_equal(tiles[row][..., 0], _pixels(0, 0, 0, 0)[y : y + 16, x : x + 16])
    windows, _ = _built(tmp_path / "sets", "windows", source, "--crop=16", "--random-crops=5", "--workers=2")
    again, _ = _built(tmp_path / "again", "windows", source, "--crop=16", "--random-crops=5", "--workers=1")
    pd.testing.assert_frame_equal(windows.metadata, again.metadata)
    assert len(windows.metadata[["tile_y_px", "tile_x_px"]].drop_duplicates()) > 30
    y, x = windows.metadata.loc[7, ["tile_y_px", "tile_x_px"]]
    np.testing.assert_array_equal(windows[7][..., 1], _pixels(0, 0, 1, 1)[y : y + 16, x : x + 16])


def test_one_example_for_each_object_of_a_table(plate_folder, tmp_path):
    centers = [
        ("plate0", "B02", 1, 12.0, 16.0, 7),
        ("plate0", "B02", 1, 1.0, 31.0, 8),
        ("plate1", "B04", 2, 23.4, 0.2, 9),
    ]
    pd.DataFrame(centers, columns=["Plate", "Well", "Site", "y", "x", "Area"]).to_csv(tmp_path / "o.csv", index=False)
    read, _ = _built(
        tmp_path / "sets",
        "objects",
        f"--source={plate_folder / 'images.csv'}",
        f"--objects={tmp_path / 'o.csv'}",
        "--crop=8",
    )
    assert read.metadata["object_area"].tolist() == [7, 8, 9]
    assert read.metadata["object_y_px"].tolist() == [12.0, 1.0, 23.4]
    np.testing.assert_array_equal(read[0][..., 0], _pixels(0, 0, 0, 0)[8:16, 12:20])
    np.testing.assert_array_equal(read[1][..., 0], _pixels(0, 0, 0, 0)[:8, 24:])  # moved inwards
    np.testing.assert_array_equal(read[2][..., 1], _pixels(1, 2, 1, 1)[16:, :8])


def test_one_example_for_each_label_of_a_mask(plate_folder, tmp_path):
    mask = np.zeros((24, 32), np.uint8)
    mask[2:6, 3:7], mask[15:20, 20:28] = 4, 9
    table = pd.read_csv(plate_folder / "images.csv")
    for path in table.loc[table["channel"] == "b", "path"]:
        tifffile.imwrite(plate_folder / path, mask)
    read, said = _built(
        tmp_path / "sets", "cells", f"--source={plate_folder / 'images.csv'}", "--label-mask=b", "--crop=8"
    )
    assert f"  {sum(path.stat().st_size for path in plate_folder.rglob('*.tif')):,} bytes read; " in said  # masks too
    assert read.channel_names == ("a",)
    assert read.metadata["object"].tolist() == [4, 9] * 12
    assert read.metadata["object_area_px"].tolist()[:2] == [16, 40]
    assert read.metadata.loc[0, ["object_y_px", "object_x_px"]].tolist() == [3.5, 4.5]
    np.testing.assert_array_equal(read[0][..., 0], _pixels(0, 0, 0, 0)[:8, :8])
    np.testing.assert_array_equal(read[1][..., 0], _pixels(0, 0, 0, 0)[13:21, 20:28])


def test_illumination_is_divided_away(tmp_path):
    """Flat fields under a lamp that fades to one side: what is left is flat, and the function is the lamp's."""
    lamp = np.linspace(0.6, 1.4, 64)[None, :] * np.ones((48, 1))
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = []
    for site in range(30):
        tifffile.imwrite(tmp_path / f"images/{site}.tif", rng.poisson(4000 * lamp).astype(np.uint16))
        rows.append({"path": f"images/{site}.tif", "plate": "p", "well": "B02", "site": site, "channel": "x"})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    raw, _ = _built(tmp_path / "sets", "raw", f"--source={tmp_path / 'table.csv'}")
    mended, _ = _built(tmp_path / "sets", "mended", f"--source={tmp_path / 'table.csv'}", "--illumination")
    columns = [np.mean([s[row][..., 0] for row in range(30)], axis=(0, 1)) for s in (raw, mended)]
    assert columns[0].std() / columns[0].mean() > 0.2
    inner = columns[1][8:-8]  # smoothing knows less at the border
    assert inner.std() / inner.mean() < 0.005
    assert abs(columns[1].mean() / columns[0].mean() - 1) < 0.02
    function = np.load(mended.directory / "illumination-0000.npy")
    np.testing.assert_allclose(function[:, 8:-8, 0], lamp[:, 8:-8], rtol=0.02)
    assert mended.dtype == "uint16"


def test_bad_files_stop_the_build_or_are_listed(plate_folder, tmp_path):
    table = pd.read_csv(plate_folder / "images.csv")
    bad = {
        "plate0/B02_1_a.tif": b"",
        "plate0/B02_2_b.tif": b"GIF89a" + bytes(100),
        "plate1/B03_1_a.tif": (plate_folder / "plate1/B03_1_a.tif").read_bytes()[:700],
    }
    for name, content in bad.items():
        (plate_folder / name).write_bytes(content)
    (plate_folder / "plate0/B03_1_b.tif").unlink()
    tifffile.imwrite(plate_folder / "plate1/B04_1_a.tif", np.full((24, 32), np.nan, np.float32))
    source, sets = f"--source={plate_folder / 'images.csv'}", tmp_path / "sets"
    stopped = build("screen", source, f"--data_dir={sets}")
    _refused(stopped, "plate0/B02_1_a.tif", "the file is empty", "plate plate0, well B02, site 1, channel a")
    assert "--skip-bad=FILE.csv leaves such fields out" in stopped.stderr.splitlines()[-1]
    assert not (sets / "screen").exists()

    tifffile.imwrite(plate_folder / "plate1/B04_2_a.tif", np.zeros((24, 30), np.uint16))
    read, _ = _built(sets, "screen", source, f"--skip-bad={tmp_path / 'bad.csv'}")
    assert len(read) == 6
    with open(tmp_path / "bad.csv") as file:
        listed = {Path(line["source"]).name: line["problem"] for line in csv.DictReader(file)}
    expected = {
        "B02_1_a.tif": "the file is empty",
        "B02_2_b.tif": "is a GIF, which is not read",
        "B03_1_a.tif": "truncated",
        "B03_1_b.tif": "cannot be opened",
        "B04_2_a.tif": "differ in size",
        "B04_1_a.tif": "holds 1 channel of float32, but ",
    }
    assert listed.keys() == expected.keys()
    for name, problem in expected.items():
        assert problem in listed[name]
    assert len(table) == 24


def test_one_odd_sized_image_among_many(plate_folder, tmp_path):
    for channel in "ab":
        tifffile.imwrite(plate_folder / f"plate1/B02_2_{channel}.tif", np.zeros((24, 40), np.uint16))
    result = build("screen", f"--source={plate_folder / 'images.csv'}", f"--data_dir={tmp_path / 'sets'}")
    _refused(result, "of 2 sizes: 24 x 40 (1 field, e.g. ", "plate1/B02_2_a.tif), 24 x 32 (11 fields", "--skip-bad=")
    assert not (tmp_path / "sets/screen").exists()


def test_wells_that_do_not_match_are_counted_and_listed(plate_folder, tmp_path):
    wells = pd.read_csv(plate_folder / "wells.csv")
    wells.loc[0, "Well"] = "H12"
    wells.to_csv(plate_folder / "wells.csv", index=False)
    arguments = (f"--source={plate_folder / 'images.csv'}", f"--annotation={plate_folder / 'wells.csv'}")
    result = build("screen", *arguments, f"--data_dir={tmp_path / 'sets'}")
    _refused(result, "no line for 1 of 6 wells", "plate plate0, well B02")
    read, said = _built(tmp_path / "sets", "screen", *arguments, f"--skip-bad={tmp_path / 'bad.csv'}")
    assert len(read) == 10
    assert "wells without annotation: 1, e.g. plate0 B02" in said
    assert "annotated wells without images: 1, e.g. plate0 H12" in said
    assert "missing wells: 1, e.g. plate0 B02" in said
    notes = json.loads((read.directory / "build.json").read_text())
    assert notes["annotated wells without images"] == ["plate0 H12"]


@pytest.mark.parametrize("name", ["Projection-Mix", "1well-3C-2S-Zmix-T"])
def test_real_imagexpress_trees(name, tmp_path):
    if not REAL_TREES.exists():
        pytest.skip(f"the real trees are not at {REAL_TREES}")
    read, said = _built(tmp_path / "sets", "real", f"--source={REAL_TREES / name}", "--layout=imagexpress")
    if name == "Projection-Mix":
        assert (len(read), read.image_shape, read.channel_names) == (4, (512, 512, 4), ("w1", "w2", "w3", "w4"))
        assert "thumbnail" in said
    else:
        assert (len(read), read.image_shape) == (4, (256, 256, 3))
        assert read.metadata["t"].tolist() == [0, 1, 0, 1]
        folder = REAL_TREES / name / "2024-04-22/1697/TimePoint_2"
        (file,) = folder.glob("*_s1_w2*.tif")
        np.testing.assert_array_equal(read[1][..., 1], tifffile.imread(file))


@pytest.fixture(scope="module")
def bbbc021_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    np.savez_compressed(
        folder / "bbbc021_subset.npz",
        images=np.arange(2 * 4 * 4 * 3, dtype=np.uint16).reshape(2, 4, 4, 3),
        channels=np.array(["DAPI", "Tubulin", "Actin"]),
        moa=np.array(["DMSO", "x"]),
        plate=np.array(["P1", "P1"]),
        well=np.array(["B02", "B03"]),
        site=np.array([1, 1]),
        cell=np.array([0, 0]),
    )
    (folder / "wells.csv").write_text("Plate,Well,Compound Name,Dose\nP1,B2,DMSO,\nP1,B3,a,1\n")
    return folder


def test_builds_then_says_that_it_is_there(bbbc021_source, tmp_path):
    first = _run("bbbc021", f"--source={bbbc021_source}", f"--data_dir={tmp_path}")
    assert first.returncode == 0, first.stderr
    for part in ("2 images 4 x 4 x 3 uint16 (7 of 16 bits in use), 1 plates, 2 wells, 2 sites", "DAPI: 0.1 %: 0"):
        assert part in first.stdout
    assert "build bbbc021: 100%" in first.stderr  # the progress bar
    assert open_image_set("bbbc021", tmp_path)[1][0, 0].tolist() == [48, 49, 50]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = build("bbbc021", f"--data_dir={tmp_path}")  # needs no source to say so
    assert second.returncode == 0
    assert "is built already (images 4 x 4 x 3)" in second.stdout
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_the_real_cells_of_bbbc021(tmp_path):
    if not REAL_BBBC021.exists():
        pytest.skip(f"the real cells are not at {REAL_BBBC021}")
    read, _ = _built(tmp_path, "bbbc021", f"--source={REAL_BBBC021}")
    with np.load(REAL_BBBC021 / "bbbc021_subset.npz", allow_pickle=False) as file:
        images, moa, wells, sites = (file[name] for name in ("images", "moa", "well", "site"))
        cells = file["cell"]
    assert len(read) == len(images) == 1440
    # The set is sorted by plate, well and site; the array's own order is in `source`.
    numbers = read.metadata["source"].str.extract(r"\[(\d+)\]", expand=False).astype(int).to_numpy()
    assert sorted(numbers) == list(range(1440))
    assert read.metadata["label"].tolist() == moa[numbers].tolist()
    assert read.metadata["well"].tolist() == wells[numbers].tolist()
    assert read.metadata["site"].tolist() == sites[numbers].tolist()
    assert read.metadata["cell"].tolist() == cells[numbers].tolist()
    assert set(read.metadata.loc[read.metadata["label"] == "DMSO", "compound"]) == {"DMSO"}
    for row in (0, 700, 1439):
        np.testing.assert_array_equal(read[row], images[numbers[row]])


def test_a_zip_is_unpacked(plate_folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted(plate_folder.rglob("*.tif")):
            archive.write(path, path.relative_to(plate_folder))
    pattern = r".*plate(?P<plate>\d)/(?P<well>[A-P]\d\d)_(?P<site>\d)_(?P<channel>\w)\.tif"
    read, _ = _built(tmp_path / "sets", "zipped", f"--source={tmp_path / 'images.zip'}", f"--pattern={pattern}")
    assert len(read) == 12


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = _run("simulated", f"--data_dir={tmp_path / 'file' / 'datasets'}")
    assert result.stderr.strip() == _refused(result, "data.build: ", "Not a directory")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["My Set"], ["the name 'My Set'", "small letters"]),
        (["mine"], ["mine needs --source", "data/README.md"]),
        (["bbbc021"], ["bbbc021 needs --source", "data/studies/bbbc021/README.md"]),
        (["bbbc021", "--source=nowhere"], ["nowhere: no such file or folder"]),
        (["simulated", "--source=x"], ["simulated takes no --source"]),
        (["idr0093", "--source=x.csv"], ["idr0093 needs --annotation", "data/studies/idr0093/README.md"]),
        (["mine", "--source=x.csv"], ["x.csv: no such file"]),
        (["mine", "--source=data"], ["data: say how it is organized, --layout=table|folder|imagexpress"]),
        (["mine", "--source=x.csv", "--crop=big"], ["--crop", "'big': expected a whole number from 1"]),
        (["mine", "--source=x.csv", "--overlap=4"], ["--overlap needs --crop"]),
        (["mine", "--source=x.csv", "--crop=4", "--overlap=4"], ["--overlap=4: expected 0 to 3, less than --crop"]),
        (["mine", "--source=x.csv", "--crop=4", "--random-crops=2", "--label-mask=a"], ["only one is possible"]),
        (["mine", "--source=x.csv", "--z=best"], ["'best': expected a number from 0, max, mean, focus or each"]),
        (["mine", "--source=x.csv", "--z=each", "--t=max"], ["--z=each with --t=max"]),
        (["mine", "--source=x.csv", "--layuot=table"], ["unrecognized arguments: --layuot=table"]),
    ],
)
def test_what_cannot_be_built(tmp_path, arguments, parts):
    _refused(build(*arguments, f"--data_dir={tmp_path / 'datasets'}"), *parts)
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--channels=a,c", ["there is no c", "the source has the channels a, b"]),
        ("--channels=x,y,z", ["3 names for 2 channels"]),
        ("--channels=a,a", ["named twice"]),
        ("--channels=a=b=c", ["expected a,b or source=name"]),
        ("--plates=plate9", ["--plates=plate9: there are no images of plate9, but of plate0, plate1"]),
        ("--wells=A1", ["--wells=A1", "but of B02, B03, B04"]),
        ("--label=moa", ["--label=moa: there is no such column; there are plate, well, site"]),
        ("--z=3", ["its plane is missing", "z 3"]),
        ("--crop=25", ["12 of 12 images are smaller than --crop=25: 24 x 32 (12 fields", "--skip-bad=FILE.csv"]),
    ],
)
def test_what_a_source_does_not_have(plate_folder, tmp_path, flag, parts):
    _refused(build("mine", f"--source={plate_folder / 'images.csv'}", flag, f"--data_dir={tmp_path / 'sets'}"), *parts)
    assert not (tmp_path / "sets" / "mine").exists()


def test_each_known_set_has_a_readme():
    """The messages send people there."""
    for study in STUDIES.values():
        assert (REPOSITORY / readme(study)).is_file()

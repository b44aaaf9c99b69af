"""`python -m data.build ... --kind=shapes`, as a person types it: masks of every sort, label images, and contours."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import skimage.measure
import tifffile
from PIL import Image

from bie_jax.input.image_set import SetNotBuiltError, open_image_set
from bie_jax.shapes.contour import mask_to_contour
from bie_jax.shapes.distance_matrix import normalized_distances
from bie_jax.shapes.polygon import signed_area
from data.build import main
from data.errors import BuildError

REPOSITORY = Path(__file__).resolve().parents[2]
REAL_MNIST = REPOSITORY.parent / "shared/data/mnist"
REAL_CELLS = REPOSITORY.parent / "shared/data/osteosarcoma_cell_contours"


def _built(data_dir, name, *arguments, set_name=None):
    main([name, f"--data_dir={data_dir}", "--kind=shapes", "--workers=1", *map(str, arguments)])
    return open_image_set(set_name or name, data_dir)


def _refused(*arguments):
    """The one line on stderr of a command that fails."""
    command = [sys.executable, "-m", "data.build", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=REPOSITORY)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def _masks():
    """Name -> [40, 50] bool, every ordinary trouble, with the number of pixels of what is to be outlined."""
    y, x = np.mgrid[:40, :50]
    disc = (y - 18) ** 2 + (x - 22) ** 2 <= 12**2
    two = disc | ((y - 35) ** 2 + (x - 44) ** 2 <= 9)
    ring = disc & ((y - 18) ** 2 + (x - 22) ** 2 > 25)
    border = (y - 2) ** 2 + (x - 1) ** 2 <= 100
    pixel, line = np.zeros_like(disc), np.zeros_like(disc)
    pixel[7, 9] = True
    line[5, 4:40] = True
    diagonal = (y == x) & (y < 30)
    everything = np.ones_like(disc)
    return {
        "disc": (disc, disc.sum()),
        "two": (two, disc.sum()),
        "ring": (ring, ring.sum()),
        "border": (border, border.sum()),
        "pixel": (pixel, 1),
        "line": (line, 36),
        "diagonal": (diagonal, 30),
        "everything": (everything, 2000),
    }


@pytest.fixture(scope="module")
def mask_folder(tmp_path_factory):
    """Two folders, which are classes, of PNGs: 0 and 255."""
    folder = tmp_path_factory.mktemp("masks")
    for number, (name, (mask, _)) in enumerate(_masks().items()):
        path = folder / ("even", "odd")[number % 2] / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(imagecodecs.png_encode(mask.astype(np.uint8) * 255))
    return folder


@pytest.fixture(scope="module")
def of_masks(mask_folder, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("sets")
    source = f"--source={mask_folder}"
    return _built(data_dir, "things", source, "--layout=folder", "--label=folder", "--points=64")


def _rows_by_file(image_set):
    return {Path(file).stem: row for row, file in enumerate(image_set.metadata["file"])}


def test_every_mask_has_its_outline(of_masks):
    assert (of_masks.kind, of_masks.channel_names, of_masks.image_shape) == ("shapes", ("outline",), (64, 2, 1))
    assert of_masks.dtype == "float32"
    rows = _rows_by_file(of_masks)
    assert rows.keys() == _masks().keys()
    for name, (mask, _) in _masks().items():
        np.testing.assert_array_equal(of_masks[rows[name]][..., 0], mask_to_contour(mask, 64).astype(np.float32))
    labels = [of_masks.metadata["label"][rows[name]] for name in _masks()]
    assert labels == ["even", "odd"] * 4


def test_columns_against_scikit_image(of_masks):
    """Centroid and area of the largest component; the scale is that of the distance matrix."""
    rows = _rows_by_file(of_masks)
    for name, (mask, pixels) in _masks().items():
        line = of_masks.metadata.iloc[rows[name]]
        largest = max(skimage.measure.regionprops(skimage.measure.label(mask)), key=lambda found: found.area)
        assert line["area_px"] == largest.area == pixels
        np.testing.assert_allclose(line[["centroid_row_px", "centroid_col_px"]].astype(float), largest.centroid)
        _, scale = normalized_distances(mask_to_contour(mask, 64))
        np.testing.assert_allclose(line["scale_px"], scale, rtol=1e-12)
        assert line["object"] == 1


def test_the_outline_of_a_disc_encloses_the_disc(of_masks):
    """Something that knows nothing of marching squares: pi r^2, and 2 r / sqrt(2) = sqrt(mean squared distance)."""
    row = _rows_by_file(of_masks)["disc"]
    # Stairs of whole pixels are within a pixel of the circle, and half a pixel of it on average.
    assert abs(signed_area(of_masks[row][..., 0]) / (np.pi * 12**2) - 1) < 0.03
    np.testing.assert_allclose(of_masks.metadata["scale_px"][row], np.sqrt(2) * 12, rtol=0.02)
    radii = np.linalg.norm(of_masks[row][..., 0] - (18, 22), axis=1)
    assert abs(radii - 12).max() < 1
    top = of_masks[row][0, :, 0]
    assert top[0] == 5.5  # it starts above the first pixel of the top row


def _write(path, how, mask):
    """One mask [H, W] bool in another way to write it."""
    grey = mask.astype(np.uint8)
    if how == "palette":
        image = Image.fromarray(grey, "P")
        image.putpalette([0, 0, 0, 200, 30, 90])
        image.save(path)
    elif how == "palette upside down":  # the object is the color number 0
        image = Image.fromarray(1 - grey, "P")
        image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(path)
    elif how == "1 bit":
        Image.fromarray(mask).save(path)
    elif how == "colors":
        path.write_bytes(imagecodecs.png_encode(np.stack([grey * 250, grey * 3, grey * 0], axis=-1)))
    elif how == "transparent":
        path.write_bytes(imagecodecs.png_encode(np.stack([np.full_like(grey, 255)] * 3 + [grey * 255], axis=-1)))
    else:
        dtype, high = {"0 1": ("u1", 1), "off-white": ("u1", 254), "16 bit": ("u2", 60000), "float": ("f4", 0.3)}[how]
        (tifffile.imwrite if path.suffix == ".tif" else _write_png)(path, mask.astype(dtype) * np.asarray(high, dtype))


def _write_png(path, pixels):
    path.write_bytes(imagecodecs.png_encode(pixels))


@pytest.mark.parametrize(
    "ways",
    [
        ["palette", "0 1", "colors", "1 bit", "off-white", "palette upside down", "transparent", "16 bit"],
        ["0 1", "palette", "colors", "16 bit", "1 bit", "transparent", "off-white", "palette upside down"],
    ],
    ids=["a palette first", "grey first"],
)
def test_masks_of_one_folder_may_be_written_in_all_ways(tmp_path, ways):
    """A set of images must be all colors or all grey; a mask is a mask."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, (how, (mask, _)) in enumerate(zip(ways, _masks().values(), strict=True)):
        if how == "off-white":
            mask_values = np.where(mask, 254, 1).astype(np.uint8)  # nor is black quite black
            _write_png(folder / f"{number}.png", mask_values)
        else:
            _write(folder / f"{number}.png", how, mask)
    read = _built(tmp_path / "sets", "mixed", f"--source={folder}", "--layout=folder", "--points=32")
    for outline, (mask, pixels), area in zip(
        read.images(range(8)), _masks().values(), read.metadata["area_px"], strict=True
    ):
        np.testing.assert_allclose(outline[..., 0], mask_to_contour(mask, 32), atol=0.01)
        assert area == pixels


@pytest.mark.parametrize("how", ["0 1", "off-white", "16 bit", "float"])
def test_a_table_of_tiffs(tmp_path, how):
    rows = []
    for site, (name, (mask, _)) in enumerate(_masks().items()):
        _write(tmp_path / f"{name}.tif", how, mask)
        rows.append({"path": f"{name}.tif", "plate": "p", "well": "B02", "site": site, "label": name})
    pd.DataFrame(rows).to_csv(tmp_path / "masks.csv", index=False)
    read = _built(tmp_path / "sets", "tiffs", f"--source={tmp_path / 'masks.csv'}", "--points=16")
    assert read.metadata["label"].tolist() == list(_masks())
    for outline, (mask, _) in zip(read.images(range(8)), _masks().values(), strict=True):
        np.testing.assert_allclose(outline[..., 0], mask_to_contour(mask, 16), atol=1e-5)


@pytest.mark.parametrize("method", ["linear", "spline", "ray"])
def test_resampling(tmp_path, method):
    masks = np.stack([mask for mask, _ in _masks().values()])
    np.save(tmp_path / "masks.npy", masks)
    source = f"--source={tmp_path / 'masks.npy'}"
    read = _built(tmp_path / "sets", "arrays", source, f"--resampling={method}", "--points=48")
    for outline, mask in zip(read.images(range(8)), masks, strict=True):
        np.testing.assert_array_equal(outline[..., 0], mask_to_contour(mask, 48, method).astype(np.float32))
    assert json.loads((read.directory / "build.json").read_text())["resampling"] == method


def test_masks_in_an_npz_with_labels(tmp_path):
    masks = np.stack([mask for mask, _ in _masks().values()])
    np.savez(tmp_path / "masks.npz", images=masks, label=np.array(list(_masks())), plate=np.array(["a", "b"] * 4))
    read = _built(tmp_path / "sets", "arrays", f"--source={tmp_path / 'masks.npz'}")
    assert read.image_shape == (256, 2, 1)  # by default
    assert read.metadata.groupby("plate")["label"].apply(list).to_dict() == {
        "a": list(_masks())[::2],
        "b": list(_masks())[1::2],
    }
    part = _built(
        tmp_path / "sets", "arrays", f"--source={tmp_path / 'masks.npz'}", "--plates=b", "--as=of_b", set_name="of_b"
    )
    assert part.metadata["label"].tolist() == list(_masks())[1::2]


def _label_image():
    """[60, 70] with the labels 3, 7, 9, 300; 7 and 9 touch, 9 touches the border, 300 is in two parts."""
    labels = np.zeros((60, 70), np.int32)
    y, x = np.mgrid[:60, :70]
    labels[(y - 15) ** 2 + (x - 20) ** 2 < 100] = 3
    labels[30:45, 10:30] = 7
    labels[30:60, 30:40] = 9
    labels[5:12, 50:65] = 300
    labels[50:53, 60:63] = 300
    return labels


def _check_labels(read, labels):
    found = {region.label: region for region in skimage.measure.regionprops(labels)}
    assert read.metadata["object"].tolist() == sorted(found)
    for outline, (_, line) in zip(read.images(range(len(read))), read.metadata.iterrows(), strict=True):
        mask = labels == line["object"]
        np.testing.assert_array_equal(outline[..., 0], mask_to_contour(mask, 40).astype(np.float32))
        parts = skimage.measure.regionprops(skimage.measure.label(mask))
        largest = max(parts, key=lambda region: region.area)
        assert line["area_px"] == largest.area
        np.testing.assert_allclose(line[["centroid_row_px", "centroid_col_px"]].astype(float), largest.centroid)


@pytest.mark.parametrize("form", ["tif", "npy", "colors"])
def test_one_outline_for_each_label(tmp_path, form):
    labels = _label_image()
    source = tmp_path / "images"
    source.mkdir()
    arguments = (f"--source={source}", "--layout=folder", "--mask=labels", "--points=40")
    expected = labels
    if form == "tif":
        tifffile.imwrite(source / "a.tif", labels)
    elif form == "npy":
        np.save(tmp_path / "labels.npy", labels[None].astype(np.uint16))
        arguments = (f"--source={tmp_path / 'labels.npy'}", *arguments[2:])
    else:  # every color is an object; its number is read off the color
        colors = np.random.default_rng(0).integers(1, 256, (301, 3)).astype(np.uint8)
        colors[0] = 0
        _write_png(source / "a.png", colors[labels])
        expected = (colors.astype(int) @ (65536, 256, 1))[labels]
    _check_labels(_built(tmp_path / "sets", "labeled", *arguments), expected)


def test_labels_of_a_palette_are_its_indices(tmp_path):
    labels = np.minimum(_label_image(), 12).astype(np.uint8)
    image = Image.fromarray(labels, "P")
    image.putpalette([0, 0, 0, *np.random.default_rng(0).integers(0, 256, 36).tolist()])
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "a.png")
    arguments = ("--layout=folder", "--mask=labels", "--points=40")
    _check_labels(_built(tmp_path / "sets", "labeled", f"--source={tmp_path / 'images'}", *arguments), labels)


@pytest.mark.parametrize("background", [0, 1])
def test_a_mask_with_the_palette_of_a_tiff_is_as_bright_as_its_colors(tmp_path, background):
    mask = next(iter(_masks().values()))[0]
    image = Image.fromarray((mask ^ bool(background)).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0] if background else [0, 0, 0, 9, 255, 9])
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks" / "a.tif")
    read = _built(tmp_path / "sets", "one", f"--source={tmp_path / 'masks'}", "--layout=folder", "--points=32")
    np.testing.assert_allclose(read.images(range(1))[0, ..., 0], mask_to_contour(mask, 32), atol=1e-4)


def test_an_empty_mask_stops_the_build_or_is_listed(mask_folder, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    _write_png(folder / "good.png", _masks()["disc"][0].astype(np.uint8))
    _write_png(folder / "nothing.png", np.zeros((40, 50), np.uint8))
    (folder / "broken.png").write_bytes(imagecodecs.png_encode(np.eye(40, dtype=np.uint8))[:60])
    source = (f"--source={folder}", "--layout=folder", f"--data_dir={tmp_path / 'sets'}", "--kind=shapes")
    (folder / "broken.png").rename(tmp_path / "broken.png")
    line = _refused("things", *source)
    assert line.startswith(f"data.build: {folder / 'nothing.png'}: the mask is empty: no pixel is above 0")
    assert "site 2" in line
    (tmp_path / "broken.png").rename(folder / "broken.png")
    assert not (tmp_path / "sets" / "things").exists()

    read = _built(tmp_path / "sets", "things", *source[:2], f"--skip-bad={tmp_path / 'bad.csv'}")
    assert read.metadata["file"].tolist() == ["good.png"]
    with open(tmp_path / "bad.csv") as file:
        listed = {Path(row["source"]).name: row["problem"] for row in csv.DictReader(file)}
    assert listed.keys() == {"nothing.png", "broken.png"}
    assert "empty" in listed["nothing.png"]


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (np.zeros((5, 6), np.uint8), "none of the 1 fields gives an example"),
        (np.full((5, 6), 0.5, np.float32), "is no label image"),
        (np.full((5, 6), -1, np.int16), "is no label image"),
        (np.full((5, 6), np.nan), "NaN"),
    ],
    ids=["empty", "not whole", "negative", "NaN"],
)
def test_what_is_no_label_image(tmp_path, image, problem):
    np.save(tmp_path / "labels.npy", image[None])
    with pytest.raises(ValueError, match=problem) as caught:
        _built(tmp_path / "sets", "labeled", f"--source={tmp_path / 'labels.npy'}", "--mask=labels")
    assert "labels.npy[0]" in str(caught.value) or not image.any()


def _digest(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("truncate", [False, True])
def test_labels_of_several_focal_planes_are_not_projected(tmp_path, truncate):
    (tmp_path / "in").mkdir()
    labels = np.zeros((2, 20, 20), np.uint16)
    labels[0, 2:8, 2:8], labels[1, 4:16, 4:16] = 7, 3
    tifffile.imwrite(tmp_path / "in/a.tif", labels, imagej=True, metadata={"axes": "ZYX"}, truncate=truncate)
    command = ("cells", f"--source={tmp_path / 'in'}", "--layout=folder", "--mask=labels")
    with pytest.raises(BuildError, match=r"a.tif: holds label images of several focal planes, and --z=max of numbers"):
        _built(tmp_path / "sets", *command)
    table = _built(tmp_path / "sets", *command, "--z=each").metadata
    assert table[["z", "object", "area_px"]].to_numpy().tolist() == [[0, 7, 36], [1, 3, 144]]


def test_the_same_bytes_again_and_by_any_number_of_workers(mask_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "data.records.writer.SHARD_BYTES", 3 * 64 * 2 * 4
    )  # several shards, so that there is work for two
    digests = []
    for number, workers in enumerate((1, 1, 2)):
        arguments = (f"--source={mask_folder}", "--layout=folder", "--points=64", f"--workers={workers}")
        digests.append(_digest(_built(tmp_path / str(number), "things", *arguments).directory))
    assert digests[0] == digests[1] == digests[2]
    assert len([name for name in digests[0] if "array_record" in name]) == 3


def test_what_is_said_of_a_set(mask_folder, tmp_path, capsys):
    arguments = ("things", f"--source={mask_folder}", "--layout=folder", "--kind=shapes", f"--data_dir={tmp_path}")
    main([*arguments, "--workers=1", "--points=64"])
    said = capsys.readouterr().out
    for part in ("Outlines of 64 points.", "8 outlines of 64 points, 1 plates", "area_px: 0.1 %: 1", "mask: binary"):
        assert part in said
    for part in ("bits", "illumination", "images 64"):
        assert part not in said
    main(list(arguments))
    assert "is built already (outlines of 64 points)" in capsys.readouterr().out


# --- contours


def _star(points=30, wobble=0.4):
    angle = 2 * np.pi * np.arange(points) / points
    radius = 20 * (1 + wobble * np.cos(5 * angle))
    return np.stack([100 + radius * np.cos(angle), -50 + radius * np.sin(angle)], axis=1)  # x, y


def _square():
    """Counter-clockwise on the screen, closed: the first point is there again."""
    return np.array([[10, 10], [10, 30], [50, 30], [50, 10], [10, 10]])


def _as_text(contours, separator=" ", end="\n"):
    return (end + end).join(end.join(f"{x}{separator}{y}" for x, y in points) for points in contours) + end


def _check_square(read, row):
    """Corners of 40 x 20 by hand: 120 px around in 12 steps of 10, clockwise, from the point that was first."""
    line = read.metadata.iloc[row]
    assert line["area_px"] == 800
    assert line[["centroid_row_px", "centroid_col_px"]].tolist() == [20, 30]
    columns = [10, 20, 30, 40, 50, 50, 50, 40, 30, 20, 10, 10]
    rows = [10, 10, 10, 10, 10, 20, 30, 30, 30, 30, 30, 20]
    np.testing.assert_allclose(read[row][..., 0], np.stack([rows, columns], axis=1), atol=1e-5)


@pytest.mark.parametrize(("separator", "end"), [(" ", "\n"), ("\t", "\r\n"), (", ", "\n")])
def test_a_text_file_of_contours(tmp_path, separator, end):
    path = tmp_path / "cells.txt"
    path.write_bytes(("\n\n" + _as_text([_square(), _star()], separator, end) + "\n\n").encode())
    (tmp_path / "cells.csv").write_text("Label,Dose [uM]\nsquare,1\nstar,2.5\n")
    arguments = (f"--source={path}", f"--annotation={tmp_path / 'cells.csv'}", "--points=12")
    read = _built(tmp_path / "sets", "cells", *arguments)
    assert read.metadata["label"].tolist() == ["square", "star"]
    assert read.metadata["dose_um"].tolist() == [1, 2.5]
    assert read.metadata["site"].tolist() == [1, 2]
    assert read.metadata["source"].tolist() == [f"{path}, line 3", f"{path}, line 9"]
    _check_square(read, 0)
    # pi r^2 (1 + wobble^2 / 2), the area inside of a curve r (1 + wobble cos 5 t); x is the column.
    assert abs(read.metadata["area_px"][1] / (np.pi * 400 * 1.08) - 1) < 0.1
    np.testing.assert_allclose(read.metadata.loc[1, ["centroid_row_px", "centroid_col_px"]].astype(float), (-50, 100))


@pytest.mark.parametrize("form", ["contours", "points and lengths", "npy"])
def test_arrays_of_contours(tmp_path, form):
    path = tmp_path / f"cells.np{'y' if form == 'npy' else 'z'}"
    square = _square()[:-1].astype(np.float32)
    if form == "npy":
        np.save(path, np.stack([square, square + 1]))
    elif form == "contours":
        np.savez(path, contours=np.stack([square, square + 1]), line=np.array(["a", "b"]), plate=np.array(["p", "q"]))
    else:
        points = np.concatenate([square, _star()])
        np.savez(path, points=points, lengths=np.array([4, 30]), line=np.array(["a", "b"]), other=np.zeros(3))
    label = [] if form == "npy" else ["--label=line"]
    read = _built(tmp_path / "sets", "cells", f"--source={path}", "--layout=contours", "--points=12", *label)
    _check_square(read, 0)
    assert read.metadata["label"].tolist() == (["", ""] if form == "npy" else ["a", "b"])
    assert read.metadata["plate"].tolist() == (["p", "q"] if form == "contours" else ["cells", "cells"])
    ignored = json.loads((read.directory / "build.json").read_text())["ignored"]
    assert len(ignored) == (form == "points and lengths")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_of_pairs_are_contours_without_being_told(tmp_path, suffix):
    """Read as masks, each is 2 px wide and has an outline too."""
    contours = np.stack([_square()[:-1], _square()[:-1] + 1])
    path = tmp_path / f"cells.{suffix}"
    np.save(path, contours) if suffix == "npy" else np.savez(path, contours=contours)
    _check_square(_built(tmp_path / "sets", "cells", f"--source={path}", "--points=12"), 0)


@pytest.mark.parametrize("points", [20, 100_000])
def test_contours_of_few_and_of_many_points(tmp_path, points):
    (tmp_path / "cells.txt").write_text(_as_text([_star(points)]))
    read = _built(tmp_path / "sets", "cells", f"--source={tmp_path / 'cells.txt'}", "--points=128")
    assert len(read) == 1
    exact = signed_area(_star(points)[:, ::-1])
    assert abs(read.metadata["area_px"][0] / abs(exact) - 1) < 1e-5


def test_contours_that_are_none_stop_the_build_or_are_listed(tmp_path):
    two_points, one_place = [[1, 1], [2, 2]], [[5, 5]] * 4
    path = tmp_path / "cells.txt"
    path.write_text(_as_text([two_points, _square(), one_place]))
    with pytest.raises(ValueError, match=r"cells.txt, line 1: an outline is .* at least 3 points") as caught:
        _built(tmp_path / "sets", "cells", f"--source={path}")
    assert "site 1" in str(caught.value)
    read = _built(tmp_path / "sets", "cells", f"--source={path}", f"--skip-bad={tmp_path / 'bad.csv'}", "--points=12")
    assert read.metadata["site"].tolist() == [2]
    _check_square(read, 0)
    with open(tmp_path / "bad.csv") as file:
        problems = {row["source"].rsplit(", ")[-1]: row["problem"] for row in csv.DictReader(file)}
    assert problems.keys() == {"line 1", "line 10"}
    assert "all at [5.0, 5.0]" in problems["line 10"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2\n3 4\n5\n", r"cells.txt, line 3: '5': expected two numbers, \"x y\""),
        (b"x y\n1 2\n", r"cells.txt, line 1: 'x y': expected two numbers"),
        (b"\n \n", "cells.txt: there is no outline in it"),
        (b"\xff\xfe\xfa", "cells.txt: neither text nor .npy nor .npz"),
        (b"PK\3\4 and no more", "cells.txt: no whole .npy or .npz file"),
    ],
    ids=["one number", "header", "empty", "binary", "cut off"],
)
def test_text_that_is_no_contours(tmp_path, content, message):
    (tmp_path / "cells.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _built(tmp_path / "sets", "cells", f"--source={tmp_path / 'cells.txt'}")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((2, 5, 3))}, r"expected numbers contours \[N, V, 2\].*it has a \(2, 5, 3\) float64"),
        ({"points": np.zeros((5, 2)), "lengths": np.array([3, 3])}, "with the sum 6, expected .* the sum 5"),
        ({"points": np.zeros((5, 2)), "lengths": np.array([5, 0])}, "expected whole numbers from 1"),
        ({"points": np.zeros((5, 2)), "lengths": np.zeros(0, int)}, "expected numbers contours"),
        ({"contours": np.zeros((0, 5, 2))}, "expected numbers contours"),
    ],
)
def test_arrays_that_are_no_contours(tmp_path, arrays, message):
    np.savez(tmp_path / "cells.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        _built(tmp_path / "sets", "cells", f"--source={tmp_path / 'cells.npz'}", "--layout=contours")


def test_a_table_with_another_number_of_lines(tmp_path):
    (tmp_path / "cells.txt").write_text(_as_text([_square(), _star()]))
    (tmp_path / "cells.csv").write_text("label\na\n")
    arguments = (f"--source={tmp_path / 'cells.txt'}", f"--annotation={tmp_path / 'cells.csv'}")
    with pytest.raises(ValueError, match=r"cells.csv: has 1 lines under its header, .*cells.txt has 2 outlines"):
        _built(tmp_path / "sets", "cells", *arguments)


# --- sets that are known by name


def _digits(folder, train=6, test=3):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:28, :28]

    def draw(count):
        radii = rng.uniform(4, 12, count)[:, None, None]
        return (np.clip(radii - np.hypot(y - 13.5, x - 13.5), 0, 1) * 255).astype(np.uint8)

    folder.mkdir()
    labels = {"y_train": np.arange(train, dtype=np.uint8), "y_test": np.arange(test, dtype=np.uint8)}
    np.savez(folder / "mnist.npz", x_train=draw(train), x_test=draw(test), **labels)
    return folder / "mnist.npz"


def test_digits_lie_beside_the_images_of_them(tmp_path):
    source = f"--source={_digits(tmp_path / 'source')}"
    images = tmp_path / "sets"
    main(["mnist", source, f"--data_dir={images}", "--workers=1"])
    shapes = _built(images, "mnist", source, set_name="mnist_shapes")
    tests = _built(images, "mnist", source, "--plates=test", "--as=mnist_test_shapes", set_name="mnist_test_shapes")
    digits = open_image_set("mnist", images)
    assert (digits.kind, shapes.kind, len(digits), len(shapes), len(tests)) == ("images", "shapes", 9, 9, 3)
    assert shapes.metadata["label"].tolist() == digits.metadata["label"].tolist() == list("012012345")
    assert tests.metadata["plate"].tolist() == ["test"] * 3
    for row in range(9):
        # Grey: the outline lies between pixels, where the level is met.
        expected = mask_to_contour(digits[row][..., 0]).astype(np.float32)
        np.testing.assert_array_equal(shapes[row][..., 0], expected)


def test_real_digits(tmp_path):
    if not REAL_MNIST.exists():
        pytest.skip(f"the real digits are not at {REAL_MNIST}")
    # A tenth of one plate, by the command that README gives for all of both.
    with np.load(REAL_MNIST / "mnist.npz") as archive:
        kept = {name: archive[name][::10] for name in archive}
    digits, labels = kept["x_test"], kept["y_test"]
    (tmp_path / "some").mkdir()
    np.savez(tmp_path / "some" / "mnist.npz", **kept)
    read = _built(
        tmp_path,
        "mnist",
        f"--source={tmp_path / 'some'}",
        "--plates=test",
        "--points=32",
        "--as=digits",
        set_name="digits",
    )
    assert len(read) == 1_000
    assert read.metadata["label"].tolist() == [str(label) for label in labels]
    for row in range(0, 1_000, 50):
        np.testing.assert_array_equal(read[row][..., 0], mask_to_contour(digits[row], 32).astype(np.float32))
    assert (read.metadata["area_px"] > 5).all()


def test_worms(tmp_path):
    """BBBC010's masks alone: one outline for each worm, with what its well says."""
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, radius in (("A01_01_ground_truth", 5), ("A01_02_ground_truth", 8), ("B24_01_ground_truth", 6)):
        y, x = np.mgrid[:52, :70]
        _write_png(masks / f"{name}.png", (np.hypot(y - 20, x - 30) < radius).astype(np.uint8) * 255)
    arguments = (f"--masks={masks}", "--points=16")
    read = _built(tmp_path / "sets", "bbbc010", *arguments, set_name="bbbc010_shapes")
    assert read.metadata[["well", "site", "label"]].to_numpy().tolist() == [
        ["A01", 1, "live"],
        ["A01", 2, "live"],
        ["B24", 1, "dead"],
    ]
    assert read.metadata["area_px"].is_monotonic_increasing is False
    assert read.metadata["area_px"].rank().tolist() == [1, 3, 2]


def _cells(folder):
    folder.mkdir()
    (folder / "cells.txt").write_text(_as_text([_square(), _star(), _star(50)]))
    (folder / "cell_lines.txt").write_text("dlm8\ndunn\ndunn\n")
    (folder / "treatments.txt").write_text("control\njasp\ncytd\n")
    return folder


def test_osteosarcoma(tmp_path):
    read = _built(tmp_path / "sets", "osteosarcoma", f"--source={_cells(tmp_path / 'source')}", "--points=12")
    assert read.metadata["label"].tolist() == read.metadata["cell_line"].tolist() == ["dlm8", "dunn", "dunn"]
    assert read.metadata["treatment"].tolist() == ["control", "jasp", "cytd"]
    _check_square(read, 0)


def test_osteosarcoma_that_is_not_whole(tmp_path):
    source = _cells(tmp_path / "source")
    (source / "treatments.txt").write_text("control\n")
    with pytest.raises(ValueError, match=r"treatments.txt: has 1 words, expected 3, one for each outline"):
        _built(tmp_path / "sets", "osteosarcoma", f"--source={source}")
    (source / "cell_lines.txt").unlink()
    with pytest.raises(ValueError, match=r"cell_lines.txt: no such file; data/studies/osteosarcoma/README.md says"):
        _built(tmp_path / "sets", "osteosarcoma", f"--source={source}")


def test_real_osteosarcoma_cells(tmp_path):
    if not REAL_CELLS.exists():
        pytest.skip(f"the real cells are not at {REAL_CELLS}")
    read = _built(tmp_path, "osteosarcoma", f"--source={REAL_CELLS}")
    assert read.image_shape == (256, 2, 1)
    assert read.metadata["cell_line"].value_counts().to_dict() == {"dunn": 392, "dlm8": 258}
    assert read.metadata["treatment"].value_counts().to_dict() == {"control": 318, "jasp": 157, "cytd": 175}
    blocks = (REAL_CELLS / "cells.txt").read_text().strip().split("\n\n")
    for row in range(0, 650, 50):
        x, y = np.array(blocks[row].split(), float).reshape(-1, 2).T
        # Shoelace, written out.
        area = abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2
        np.testing.assert_allclose(read.metadata["area_px"][row], area)
        np.testing.assert_allclose(read[row][0, :, 0], (y[0], x[0]))


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["mine", "--source=x.csv", "--points=64"], ["--points needs --kind=shapes"]),
        (["mine", "--source=x.csv", "--points", "256"], ["--points needs --kind=shapes"]),
        (["mine", "--source=x.csv", "--resampling=ray"], ["--resampling needs --kind=shapes"]),
        (["mine", "--source=x.csv", "--mask=labels"], ["--mask needs --kind=shapes"]),
        (["mine", "--source=x.txt", "--layout=contours"], ["--layout=contours needs --kind=shapes"]),
        (["osteosarcoma", "--source=x"], ["osteosarcoma needs --kind=shapes"]),
        (["osteosarcoma", "--kind=shapes"], ["osteosarcoma needs --source", "data/studies/osteosarcoma/README.md"]),
        (["osteosarcoma", "--kind=shapes", "--source=x", "--mask=labels"], ["--mask means nothing for osteosarcoma"]),
        (
            ["mine", "--source=x.txt", "--kind=shapes", "--mask=binary"],
            ["--mask means nothing for the layout contours"],
        ),
        (["mine", "--source=x.csv", "--kind=shapes", "--crop=64"], ["--kind=shapes takes no --crop"]),
        (["mine", "--source=x.csv", "--kind=shapes", "--illumination"], ["takes no --illumination"]),
        (["mine", "--source=x.csv", "--kind=shapes", "--crop=9", "--label_mask=a"], ["--kind=shapes takes no --crop"]),
        (["mine", "--source=x.csv", "--kind=shapes", "--seed=1"], ["--kind=shapes takes no --seed"]),
        (["mine", "--source=x.csv", "--kind=shapes", "--points=2"], ["--points=2: an outline has 3 points at least"]),
        (["mine", "--source=x.csv", "--kind=shapes", "--resampling=best"], ["'best'", "linear", "spline", "ray"]),
        (["mine", "--source=x.csv", "--kind=outlines"], ["'outlines'", "images", "shapes"]),
        (["mine", "--source=x.csv", "--kind=shapes", "--as=My Set"], ["the name 'My Set'"]),
        (["simulated", "--kind=shapes"], ["simulated takes no --kind"]),
        (["bbbc010", "--kind=shapes"], ["bbbc010 --kind=shapes needs --masks=official"]),
        (["mine", "--source=x.txt", "--kind=shapes"], ["x.txt: no such file or folder"]),
    ],
)
def test_what_makes_no_sense(tmp_path, capsys, arguments, parts):
    with pytest.raises((SystemExit, ValueError)) as caught:
        main([*arguments, f"--data_dir={tmp_path / 'datasets'}"])
    said = capsys.readouterr().err.strip().splitlines()[-1:] or [str(caught.value)]
    for part in parts:
        assert part in said[0]
    assert not (tmp_path / "datasets").exists()


def test_several_channels_of_which_one_holds_the_masks(tmp_path):
    masks = np.stack([mask for mask, _ in _masks().values()]).astype(np.uint8)
    images = np.stack([np.ones_like(masks), masks], axis=-1)
    np.savez(tmp_path / "both.npz", images=images, channels=np.array(["DNA", "cells"]))
    source = f"--source={tmp_path / 'both.npz'}"
    with pytest.raises(ValueError, match="takes one channel, that of the masks, and here are DNA, cells") as caught:
        _built(tmp_path / "sets", "both", source)
    assert "--channels" in str(caught.value)
    read = _built(tmp_path / "sets", "both", source, "--channels=cells", "--points=16")
    np.testing.assert_array_equal(read[0][..., 0], mask_to_contour(masks[0], 16).astype(np.float32))
    assert read.channel_names == ("outline",)


def test_a_set_of_an_earlier_version(of_masks, tmp_path):
    """Sets that do not say what they hold are not guessed at."""
    folder = tmp_path / "simulated" / "1.0.0"
    folder.mkdir(parents=True)
    described = json.loads((of_masks.directory / "statistics.json").read_text())
    del described["kind"]
    (folder / "statistics.json").write_text(json.dumps(described))
    with pytest.raises(SetNotBuiltError, match=r"1\.0\.0: was built by an earlier version.*data.build simulated"):
        open_image_set("simulated", tmp_path)

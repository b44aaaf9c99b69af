"""Every kind of source by the command: values, places, channels, pixel size, and how many bytes were read."""

import gzip
import itertools
import struct

import numpy as np
import pytest
import tifffile
import zarr

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BadInputError, BuildError
from data.studies.simulated import study
from data.studies.simulated.simulation import Design


@pytest.fixture
def build(tmp_path, capsys):
    """Builds a set and gives it, with what was said."""

    def command(name, *arguments):
        main([name, *map(str, arguments), f"--data-dir={tmp_path / 'sets'}", "--workers=1"])
        return open_image_set(name, str(tmp_path / "sets")), capsys.readouterr().out

    return command


def _size(*paths):
    return f"  {sum(path.stat().st_size for path in paths):,} bytes read; "


def _pixels(*numbers, shape=(8, 9)):
    """16 bits that say where they are from, most over 255."""
    return np.random.default_rng(numbers).integers(0, 65536, shape, np.uint16)


def _write(path, *numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, _pixels(*numbers), compression="zlib")
    return path


def test_ome_tiff(build, tmp_path):
    """Two images of three channels, two focal planes and two time points."""
    stacks = _pixels(0, shape=(2, 2, 3, 2, 8, 9))  # [image, T, C, Z, Y, X]
    files = [tmp_path / f"images/{name}.ome.tif" for name in "ab"]
    files[0].parent.mkdir()
    for file, stack in zip(files, stacks, strict=True):
        metadata = {"axes": "TCZYX", "Channel": {"Name": ["DNA", "RNA", "ER"]}}
        metadata |= {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
        tifffile.imwrite(file, stack, ome=True, metadata=metadata)
    (tmp_path / "images/notes.txt").write_text("not an image")
    read, said = build("mine", f"--source={tmp_path / 'images'}", "--layout=ome-tiff", "--channels=ER,DNA", "--t=1")
    assert (read.channel_names, read.pixel_size_um, read.image_shape) == (("ER", "DNA"), 0.5, (8, 9, 2))
    assert read.metadata[["plate", "well", "site"]].to_numpy().tolist() == [["images", "", 1], ["images", "", 2]]
    for row in range(2):
        np.testing.assert_array_equal(read[row], np.moveaxis(stacks[row, 1, [2, 0]].max(axis=1), 0, -1))
    assert _size(*files) in said
    assert "notes.txt" in said


@pytest.mark.parametrize("how", ["folder", "table"])
def test_planes_of_imagej_behind_one_page(build, tmp_path, how):
    """As Fiji writes what is larger than 4 GB."""
    stack = _pixels(5, shape=(2, 2, 3, 8, 9))  # [T, Z, C, Y, X]
    (tmp_path / "in").mkdir()
    metadata = {"axes": "TZCYX"}
    tifffile.imwrite(tmp_path / "in/a.tif", stack, imagej=True, metadata=metadata, truncate=True)
    (tmp_path / "t.csv").write_text("path,plate,well,site\nin/a.tif,P,A01,1\n")
    source = (
        (f"--source={tmp_path / 'in'}", "--layout=folder") if how == "folder" else (f"--source={tmp_path / 't.csv'}",)
    )
    read, said = build("mine", *source)
    assert (read.channel_names, read.metadata["t"].tolist()) == (("0", "1", "2"), [0, 1])
    np.testing.assert_array_equal(read.images(range(2)), np.moveaxis(stack.max(axis=1), 1, -1))
    assert _size(tmp_path / "in/a.tif") in said


def test_a_stack_where_a_name_says_one_plane(build, tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in/P_A01_s1_w1.tif"
    tifffile.imwrite(path, _pixels(6, shape=(3, 8, 9)), imagej=True, metadata={"axes": "CYX"}, truncate=True)
    with pytest.raises(BadInputError, match=r"w1\.tif: holds 3 planes \(3 channels of uint16\), expected 1"):
        build("mine", f"--source={tmp_path / 'in'}", "--layout=imagexpress")


def test_focal_planes_in_a_file_and_in_its_table(build, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _pixels(7, shape=(3, 8, 9)), imagej=True, metadata={"axes": "ZYX"})
    (tmp_path / "t.csv").write_text("path,plate,well,site,z\na.tif,P,A01,1,0\n")
    with pytest.raises(
        BuildError, match=r"a\.tif: holds 3 focal planes of uint16, and .*line 2 gives it one z; leave z"
    ):
        build("mine", f"--source={tmp_path / 't.csv'}")


@pytest.mark.parametrize("level", ["-1", "1.0", "x"])
def test_a_level_that_is_no_number_from_zero(build, tmp_path, capsys, level):
    with pytest.raises(SystemExit):
        build("mine", f"--source={tmp_path / 'a.zarr'}", f"--level={level}")
    assert f"argument --level: '{level}': expected a whole number from 0" in capsys.readouterr().err


def _harmony_index(images):
    """(file, row, column, field, plane, channel number, channel) -> as Harmony 5 writes it."""
    listed = "".join(
        f"<Image><URL>{file}</URL><Row>{row}</Row><Col>{column}</Col><FieldID>{field}</FieldID><PlaneID>{plane}"
        f"</PlaneID><TimepointID>0</TimepointID><ChannelID>{number}</ChannelID><ChannelName>{channel}</ChannelName>"
        '<ImageResolutionX Unit="m">2.5E-07</ImageResolutionX></Image>'
        for file, row, column, field, plane, number, channel in images
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?><EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5">'
        f"<Plates><Plate><PlateID>1</PlateID><Name>Plate 7</Name></Plate></Plates><Images>{listed}</Images>"
        "</EvaluationInputData>"
    )


def test_operetta_by_its_index(build, tmp_path):
    folder = tmp_path / "m/Images"
    places = list(itertools.product((2, 16), (1, 2), (1, 2), (1, 2)))  # row, field, plane, channel
    images, files = [], []
    for row, field, plane, channel in places:
        file = f"r{row:02d}c03f{field:02d}p{plane:02d}-ch{channel}sk1fk1fl1.tiff"
        files.append(_write(folder / file, row, field, plane, channel))
        images.append((file, row, 3, field, plane, channel, ("DAPI", "Alexa 488")[channel - 1]))
    _write(folder / "r01c01f01p01-ch1sk1fk1fl1.tiff", 0)  # not in the index
    (folder / "Index.idx.xml").write_text(_harmony_index(images))
    read, said = build("mine", f"--source={tmp_path / 'm'}", "--layout=operetta", "--channels=Alexa 488=RNA,DAPI=DNA")
    assert (read.channel_names, read.pixel_size_um) == (("RNA", "DNA"), 0.25)
    sites = [["Plate 7", "B03", 1], ["Plate 7", "B03", 2], ["Plate 7", "P03", 1], ["Plate 7", "P03", 2]]
    assert read.metadata[["plate", "well", "site"]].to_numpy().tolist() == sites
    for row, (number, field) in enumerate(itertools.product((2, 16), (1, 2))):
        stack = [[_pixels(number, field, plane, channel) for channel in (2, 1)] for plane in (1, 2)]
        np.testing.assert_array_equal(read[row], np.moveaxis(np.max(stack, axis=0), 0, -1))
    assert _size(*files) in said
    assert "not in the index" in said
    # Of one plane and one channel only these files are read.
    read, said = build("part", f"--source={tmp_path / 'm'}", "--layout=operetta", "--channels=DAPI", "--z=1")
    np.testing.assert_array_equal(read[3][..., 0], _pixels(16, 2, 2, 1))
    assert _size(*[file for file in files if "p02-ch1" in file.name]) in said


def test_cellvoyager(build, tmp_path):
    plate, files = "AssayPlate_Greiner_#655090", []
    for well, (site, channel, z) in itertools.product(("C02", "P24"), itertools.product((1, 2), (1, 3), (1, 2))):
        name = f"{plate}_{well}_T0001F{site:03d}L01A01Z{z:02d}C{channel:02d}.tif"
        files.append(_write(tmp_path / plate / name, ord(well[0]), site, channel, z))
    (tmp_path / plate / "MeasurementData.mlf").write_text("x")
    arguments = (f"--source={tmp_path / plate}", "--layout=cellvoyager", "--channels=RNA,DNA", "--z=focus")
    read, said = build("mine", *arguments)
    assert read.channel_names == ("RNA", "DNA")
    assert read.metadata["well"].tolist() == ["C02", "C02", "P24", "P24"]
    for row, (well, site) in enumerate(itertools.product("CP", (1, 2))):
        for c, channel in enumerate((1, 3)):
            steps = [_pixels(ord(well), site, channel, z) for z in (1, 2)]
            assert any(np.array_equal(read[row][..., c], step) for step in steps)
    assert _size(*files) in said


def test_arrays_and_a_tfds_set_made_of_them(build, tmp_path):
    """The second set is built from the first one's files, which are TFDS's own."""
    images = _pixels(1, shape=(5, 8, 9, 2))
    wells = np.array(["B02", "B03", "B04", "B05", "B06"])
    file = tmp_path / "a.npz"
    np.savez(file, images=images, well=wells, plate=np.full(5, "P1"), site=np.ones(5, int), channels=["DNA", "RNA"])
    first, said = build("first", f"--source={file}")
    assert _size(file) in said
    np.testing.assert_array_equal(first.images(range(5)), images)
    second, said = build("second", f"--source={first.directory}", "--layout=tfds", "--channels=RNA", "--wells=B03,B06")
    assert second.channel_names == ("RNA",)
    assert second.metadata[["plate", "well", "site"]].to_numpy().tolist() == [["P1", "B03", 1], ["P1", "B06", 1]]
    assert second.metadata["given_source"].tolist() == [f"{file}:images[1]", f"{file}:images[4]"]
    np.testing.assert_array_equal(second.images(range(2)), images[[1, 4], ..., 1:])
    assert _size(*first.directory.glob("*.array_record*")) in said
    np.save(tmp_path / "a.npy", images[..., 0])
    third, said = build("third", f"--source={tmp_path / 'a.npy'}")
    assert _size(tmp_path / "a.npy") in said
    np.testing.assert_array_equal(third.images(range(5))[..., 0], images[..., 0])


def test_of_a_tfds_set_the_shards_that_were_read_count(build, tmp_path, monkeypatch):
    monkeypatch.setattr("data.records.writer.SHARD_BYTES", 2 * 8 * 9)
    images = _pixels(2, shape=(4, 8, 9))
    texts = np.array(["x" * 70_000 * i for i in range(4)])  # a shard is a multiple of 64 kB
    np.savez(tmp_path / "a.npz", images=images, plate=np.array(list("abcd")), text=texts)
    first, _ = build("first", f"--source={tmp_path / 'a.npz'}")
    shards = sorted(first.directory.glob("*.array_record*"))
    assert len(shards) == 4
    second, said = build("second", f"--source={first.directory}", "--layout=tfds", "--plates=c")
    np.testing.assert_array_equal(second[0][..., 0], images[2])
    assert _size(shards[2]) in said


def test_mnist(build, tmp_path):
    digits = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    files = {}
    for name in ("train", "t10k"):
        header = struct.pack(">HBBIII", 0, 8, 3, 3, 28, 28)
        files[name] = tmp_path / "mnist" / f"{name}-images-idx3-ubyte.gz"
        files[name].parent.mkdir(exist_ok=True)
        files[name].write_bytes(gzip.compress(header + digits.tobytes()))
        labels = struct.pack(">HBBI", 0, 8, 1, 3) + bytes([5, 0, 4])
        (tmp_path / "mnist" / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    read, said = build("mnist", f"--source={tmp_path / 'mnist'}", "--plates=train")
    np.testing.assert_array_equal(read.images(range(3))[..., 0], digits)
    assert read.metadata["label"].tolist() == ["5", "0", "4"]
    assert _size(files["train"]) in said


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_of_an_ome_zarr(build, tmp_path, zarr_format):
    """Of one channel and one level of a pyramid; a chunk of zeros, which Zarr does not write, has no bytes."""
    pixels = _pixels(3, shape=(2, 20, 24))
    pixels[1, :10, :12] = 0
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    scale = {"type": "scale", "scale": [1, 1, 1]}
    datasets = [{"path": str(level), "coordinateTransformations": [scale]} for level in range(2)]
    ome = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
    store = tmp_path / "a.zarr"
    group = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    group.attrs.update(ome if zarr_format == 2 else {"ome": ome})
    for level, array in enumerate((pixels, pixels[:, ::2, ::2])):
        made = group.create_array(str(level), shape=array.shape, chunks=(1, 10, 12), dtype=np.uint16)
        made[:] = array
    read, said = build("mine", f"--source={store}", "--channels=1=RNA")
    np.testing.assert_array_equal(read[0][..., 0], pixels[1])
    start = store / ("0/c/1" if zarr_format == 3 else "0")
    chunks = [path for path in start.rglob("*") if path.is_file() and path.name[0] != "." and path.name != "zarr.json"]
    chunks = [path for path in chunks if zarr_format == 3 or path.relative_to(start).as_posix()[0] == "1"]
    assert len(chunks) == 3
    assert _size(*chunks) in said


def test_simulated_plates_read_nothing(build, monkeypatch):
    monkeypatch.setattr(
        study, "Design", lambda: Design(plates=1, control_wells=1, wells_per_sirna=1, sites=1, image_size=16)
    )
    assert "  0 bytes read; " in build("simulated")[1]
